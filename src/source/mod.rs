//! Where frames come from: video files, folders of pictures, MOTChallenge sequences, cameras.

#[cfg(feature = "video")]
pub mod camera;
#[cfg(feature = "video")]
pub mod camera_clock;
#[cfg(feature = "video")]
mod container;
#[cfg(feature = "video")]
mod diagnosis;
pub mod image_folder;
pub mod link;
#[cfg(feature = "video")]
pub mod playback;
#[cfg(feature = "video")]
mod seek;
#[cfg(feature = "video")]
mod slowness;
#[expect(
    clippy::module_inception,
    reason = "the trait is this module's central thing"
)]
pub mod source;
pub mod timeline;
#[cfg(feature = "video")]
pub mod video;

pub use link::Link;
pub use source::{
    Source, SourceError, SourceInfo, SourceOptions, is_camera, open, path_of, sequence_video,
};
