//! burn has one random number generator per process: tests that depend on it must not run at once.

use std::sync::Mutex;

/// Locked by tests that create or train a network.
pub static RNG_LOCK: Mutex<()> = Mutex::new(());
