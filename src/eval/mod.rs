//! How good are trajectories: HOTA, CLEAR MOT and identity measures by the rules of MOTChallenge.
//!
//! [`sequence`] lines results up with ground truth, [`hota`], [`clear`] and [`identity`] count, [`report`] prints.

pub mod clear;
pub mod hota;
pub mod identity;
pub mod report;
pub mod sequence;
pub mod tune;

pub use report::{Scores, combine, score};
pub use sequence::{Aligned, Benchmark, EvalError, Sequence};
