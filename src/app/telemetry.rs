//! Disables ONNX Runtime's telemetry. Shared with the program `twintrack-train`.

/// Sets the environment variable that disables ONNX Runtime's telemetry, unless the user has set
/// it. `with_telemetry(false)` is not enough: when the library is loaded, version 1.31 stores a
/// telemetry record, which includes the program's path, in the user's cache folder, and sends it to
/// Microsoft later. This function must be called at the start of `main`, before other threads
/// start.
#[expect(
    unsafe_code,
    reason = "set_var is sound while no other thread runs; main has not started any"
)]
pub fn disable() {
    const KEY: &str = "ORT_DISABLE_TELEMETRY";
    if std::env::var_os(KEY).is_none() {
        // SAFETY: main has not started any other thread.
        unsafe { std::env::set_var(KEY, "1") }
    }
}
