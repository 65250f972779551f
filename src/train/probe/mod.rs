//! Probes for distillation: pictures of people that the teacher embeds and from which the student
//! learns. They need no labels and can be synthetic: parts of real and rendered people are
//! recoloured, exchanged, put on other backgrounds, covered and degraded.
//!
//! Reading order: [`grid`] (pictures and masks), [`figure`] (a person cut out, with body parts),
//! [`footage`] and [`atlas`] (sources of figures), [`cloth`] (colours and patterns), [`recombine`]
//! (a new person), [`degrade`] (camera effects), [`generator`].

pub mod atlas;
pub mod cloth;
pub mod degrade;
pub mod figure;
pub mod footage;
pub mod generator;
pub mod grid;
pub mod recombine;
