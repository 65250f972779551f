//! See `twintrack::fuzzing::metadata`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| twintrack::fuzzing::metadata(bytes));
