//! Evaluation of trajectories: HOTA, CLEAR MOT and identity measures by MOTChallenge's rules.
//!
//! [`sequence`] aligns results with ground truth. [`hota`], [`clear`] and [`identity`] compute the
//! measures. [`report`] prints them.

mod assignment;
pub mod clear;
pub mod hota;
pub mod identity;
pub mod multi_camera;
pub mod report;
pub mod sequence;
pub mod tune;

pub use report::{Scores, combine, score};
pub use sequence::{Aligned, Benchmark, EvalError, Sequence};
