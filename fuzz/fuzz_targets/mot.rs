//! See `twintrack::fuzzing::mot`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| twintrack::fuzzing::mot(bytes));
