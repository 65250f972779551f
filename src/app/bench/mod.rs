//! `twintrack bench`: measures the stages on this machine, alone and together.

mod alone;
pub mod command;
mod machine;
mod report;
mod scaled;
mod together;
