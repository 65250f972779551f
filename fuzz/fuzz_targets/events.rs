//! See `twintrack::fuzzing::events`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| twintrack::fuzzing::events(bytes));
