//! **twintrack** tracks people in video: it reads frames and produces trajectories.
//!
//! ```text
//! source ──Frame──▶ detect ──Detections──▶ embed ──Embeddings──▶ track ──TrackUpdate──▶ sink
//! (file, RTSP,      (ONNX)                 (crops, ONNX          (per camera,           (JSON lines, MOT,
//!  pictures)                               Siamese network)      pure CPU)              annotated video)
//! ```
//!
//! A Siamese network is one tower of shared weights that maps a person's crop to the unit sphere,
//! where crops of the same person lie close together (Koch et al. 2015; Leal-Taixé et al. 2016).
//!
//! # As a library
//!
//! Without features the crate has its pure part only: geometry, the tracker, evaluation,
//! MOTChallenge files, events and offline linking. This part uses no threads and no native
//! libraries:
//!
//! ```
//! use twintrack::prelude::*;
//!
//! let config = TrackerConfig::default().with_birth(0.7).with_keep_lost(5.0);
//! let mut tracker = Tracker::new(config);
//! for frame in 0..20 {
//!     let left = 100.0 + 4.0 * frame as f32;
//!     let bbox = BBox::new(left, 50.0, 40.0, 100.0);
//!     let detection = Detection { bbox, confidence: 0.9 };
//!     let update = tracker.update(&[detection], &Embeddings::none(), Seconds(0.04))?;
//!     for track in &update.tracks {
//!         println!("{} at {:?}", track.id, track.bbox);
//!     }
//! }
//! # assert_eq!(tracker.confirmed(), 1);
//! # Ok::<(), twintrack::track::TrackError>(())
//! ```
//!
//! | feature | adds |
//! |---|---|
//! | `infer` | detector and embedder by ONNX Runtime: [`detect`], [`embed`] |
//! | `pipeline` | sources, sinks and the stages between them: [`pipeline`], [`source`], [`sink`] |
//! | `video` | decoding and encoding of video by OpenCV |
//! | `history` | tracks, events and embeddings in a database: [`store`] |
//! | `serve` | live cameras, web server, MQTT, NATS, webhook: [`serve`] |
//! | `models` | the catalogue of networks: [`models`] |
//! | `train` | training of the Siamese network: `train` |
//! | `cli` | the program `twintrack` |
//!
//! Link a program that decodes video with `-Wl,--export-dynamic-symbol=avcodec_receive_frame` and
//! `-Wl,--export-dynamic-symbol=avcodec_open2`, as `build.rs` does: frames are then converted
//! without OpenCV's copies, a change of the frame size within a stream is noticed, and
//! `source.threads` takes effect.
//!
//! Programs in `examples/`: `track_boxes` (pure), `track_video` (a callback per event),
//! `compare_pictures` (embed and compare).
//!
//! # Where to read
//! 1. [`pipeline::run`]: the stages and how they are connected.
//! 2. [`track::tracker`]: assigns ids; its `update` performs the steps predict, match, update,
//!    create, delete. [`track::cost`] is the cost that it minimises, one function per term.
//! 3. [`detect`] and [`embed`]: the two networks, which run by [`infer`].
//! 4. [`source`] and [`sink`]: inputs and outputs; [`trajectory`] holds the events.
//! 5. [`eval`]: HOTA, CLEAR MOT and identity measures.
//! 6. [`config`]: every setting.
//! 7. `train`: the second program, which trains the embedder.
//!
//! A module uses modules of lower layers only; `tests/layering.rs` enforces it. ARCHITECTURE.md has
//! the layers and the decisions behind them.

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "pipeline")]
pub mod address;
pub mod analytics;
mod auto_or;
#[cfg(feature = "video")]
pub mod camera_flow;
#[cfg(feature = "pipeline")]
pub mod clock;
#[cfg(feature = "pipeline")]
pub mod config;
#[cfg(feature = "infer")]
pub mod detect;
pub mod detection;
#[cfg(feature = "infer")]
pub mod embed;
pub mod eval;
#[cfg(feature = "serve")]
pub mod fleet;
pub mod frame;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
#[cfg(feature = "pipeline")]
pub mod gallery;
pub mod geometry;
#[cfg(feature = "infer")]
pub mod infer;
#[cfg(feature = "models")]
pub mod models;
pub mod mot_files;
pub mod mot_format;
pub mod multi_camera;
#[cfg(feature = "infer")]
pub mod onnx;
#[cfg(feature = "pipeline")]
pub mod pipeline;
pub mod prelude;
pub mod range;
pub mod refine;
#[cfg(feature = "pipeline")]
pub mod secret;
#[cfg(feature = "serve")]
pub mod serve;
#[cfg(feature = "pipeline")]
pub mod sink;
#[cfg(feature = "pipeline")]
pub mod source;
#[cfg(feature = "history")]
pub mod store;
pub(crate) mod text_file;
pub mod time;
pub mod track;
#[cfg(feature = "train")]
pub mod train;
pub mod trajectory;
