//! See `twintrack::fuzzing::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| twintrack::fuzzing::config(bytes));
