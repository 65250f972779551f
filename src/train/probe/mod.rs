//! Probe pictures for knowledge distillation: pictures of people that a teacher network judges and a student learns from.
//! Nobody needs to know who is in them, so they may be made up: parts of real and drawn people are recoloured, exchanged,
//! put before other backgrounds, covered and degraded.
//!
//! Reading order: [`grid`] (pictures and masks), [`figure`] (a person cut out, with body parts), [`footage`] and [`atlas`]
//! (where figures come from), [`cloth`] (colours and patterns), [`recombine`] (a new person), [`degrade`] (the camera),
//! [`generator`].

pub mod atlas;
pub mod cloth;
pub mod degrade;
pub mod figure;
pub mod footage;
pub mod generator;
pub mod grid;
pub mod recombine;
