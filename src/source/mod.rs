//! Sources of frames: video files, folders of pictures, MOTChallenge sequences, cameras.

#[cfg(feature = "video")]
pub mod camera_clock;
pub mod camera_config;
#[cfg(feature = "video")]
mod container;
#[cfg(feature = "video")]
mod diagnosis;
pub mod error;
pub mod image_folder;
pub mod input;
pub mod link;
pub mod open;
pub mod playback;
pub mod reconnect;
#[cfg(feature = "video")]
mod seek;
#[expect(
    clippy::module_inception,
    reason = "the trait is this module's central thing"
)]
pub mod source;
pub mod source_config;
pub mod timeline;
#[cfg(feature = "video")]
pub mod video;

pub use camera_config::{CameraConfig, Transport};
pub use error::SourceError;
pub use image_folder::pictures_below;
pub use input::{is_stream, path_of};
pub use link::Link;
pub use open::{open, open_camera, sequence_video};
pub use source::{Source, SourceInfo, SourceOptions};
pub use source_config::{Hardware, SourceConfig};
