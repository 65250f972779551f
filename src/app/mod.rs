//! The commands, a file each. They compose the rooms below and talk to people; nothing here decides an identity.

pub mod doctor;
pub mod evaluate;
pub mod refine;
pub mod show;
pub mod track;
pub mod tune;
