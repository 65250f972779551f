//! Settings of the whole process.

use crate::telemetry;

/// Applies the settings. Must be called at the start of `main`, before other threads start.
pub fn prepare() {
    telemetry::disable();
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    keep_memory();
}

/// Keeps freed buffers in the process. A training step allocates and frees hundreds of maps of some
/// ten megabytes. By default glibc would return them to the kernel, which zeroes them before each
/// new use.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code)]
fn keep_memory() {
    const MOST: libc::c_int = 1 << 30;
    // SAFETY: mallopt only sets two parameters of the allocator, before other threads start.
    let set = unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MOST) == 1
            && libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX) == 1
    };
    if !set {
        tracing::debug!("cannot make the allocator keep large buffers; training is slower");
    }
}
