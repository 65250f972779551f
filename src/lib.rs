//! **twintrack** follows people through video: frames flow in, trajectories flow out.
//!
//! ```text
//! source ──Frame──▶ detect ──Detections──▶ embed ──Embeddings──▶ track ──TrackUpdate──▶ sink
//! (file, RTSP,      (ONNX)                 (crops, ONNX          (per camera,           (JSON lines, MOT,
//!  pictures)                               Siamese network)      pure CPU)              annotated video)
//! ```
//!
//! A twin network is a Siamese network: one tower of shared weights that maps a person's crop to the unit sphere, where
//! the same person's views lie close together.
//!
//! # Where to read
//! 1. [`pipeline::pipeline`]: the six stages and how they are joined.
//! 2. [`track::tracker`]: the room where identities are decided; its `update` reads predict, match, update, create, delete.
//!    [`track::cost`] is what it decides by, a function a term.
//! 3. [`detect`] and [`embed`]: the two networks, on top of [`infer`].
//! 4. [`source`] and [`sink`]: the ways in and out; [`trajectory`] is the event that leaves.
//! 5. [`eval`]: how good it all is (HOTA, CLEAR MOT, identity).
//! 6. [`config`]: every number that can be turned; [`app`]: the commands.
//! 7. `models` (feature `models`): networks that others have trained, by name.
//! 8. `train` (feature `train`): the second program, which trains the embedder.
//!
//! A room uses those on floors below it only; `tests/layering.rs` keeps it so.

pub mod address;
pub mod app;
#[cfg(feature = "video")]
pub mod camera_flow;
pub mod config;
pub mod detect;
pub mod detection;
pub mod embed;
pub mod eval;
pub mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod gallery;
pub mod geometry;
pub mod infer;
#[cfg(feature = "models")]
pub mod models;
pub mod mot_format;
pub mod onnx;
pub mod pipeline;
pub mod range;
pub mod refine;
pub mod secret;
#[cfg(feature = "serve")]
pub mod serve;
pub mod sink;
pub mod source;
pub mod time;
pub mod track;
#[cfg(feature = "train")]
pub mod train;
pub mod trajectory;
