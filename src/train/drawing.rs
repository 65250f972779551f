//! burn's random numbers are one sequence for the whole process: tests that draw from it take turns.

use std::sync::Mutex;

/// Held by a test while it makes a network or trains.
pub static ALONE: Mutex<()> = Mutex::new(());
