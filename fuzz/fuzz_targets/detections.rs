//! See `twintrack::fuzzing::detections`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| twintrack::fuzzing::detections(bytes));
