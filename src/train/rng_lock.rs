//! burn has one random number generator per process, so tests that depend on it must not run at the
//! same time.

use std::sync::Mutex;

/// Locked by tests that create or train a network.
pub static RNG_LOCK: Mutex<()> = Mutex::new(());
