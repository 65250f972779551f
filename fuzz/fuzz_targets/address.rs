//! See `twintrack::fuzzing::address`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| twintrack::fuzzing::address(bytes));
