//! A scaled copy of the input, for measurements at another frame size.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use opencv::core::{Mat, MatTraitConst as _, MatTraitConstManual as _, Size};
use opencv::imgproc;
use tokio_util::sync::CancellationToken;

use twintrack::frame::{Frame, Image};
use twintrack::sink::overlay::Overlay;
use twintrack::sink::{FrameResult, Sink as _};
use twintrack::source::{self, SourceOptions};
use twintrack::time::Seconds;
use twintrack::trajectory::{EventBuilder, RunId};

/// Frame rate of the copy in frames per second.
const FRAME_RATE: f64 = 25.0;

/// Writes the first `frames` frames of `input`, stretched to `size` (width, height), into a video
/// in the folder `dir`: H.264, or MPEG-4 if FFmpeg has no encoder of H.264. Returns its path, or
/// `None` when `stop` is cancelled.
///
/// # Errors
/// When the input cannot be read, or no codec can be used.
pub fn write(
    input: &str,
    frames: usize,
    size: (u32, u32),
    dir: &Path,
    stop: &CancellationToken,
) -> Result<Option<PathBuf>> {
    let path = dir.join("scaled.mp4");
    let mut source = source::open(input, &SourceOptions::default())?;
    let mut video = Overlay::create(&path, FRAME_RATE)?;
    let mut events = EventBuilder::new(RunId::now_v7(), "scaled".into(), None);
    for number in 1..=frames as u64 {
        if stop.is_cancelled() {
            return Ok(None);
        }
        let Some(frame) = source.next_frame()? else {
            break;
        };
        let image = frame.image.context("the input has no pixels")?;
        let frame = Frame {
            number,
            pts: Seconds((number - 1) as f64 / FRAME_RATE),
            width: size.0,
            height: size.1,
            image: Some(stretched(&image, size).context("cannot scale a frame")?),
            ..frame
        };
        let event = events.frame(&frame, &[]);
        video.frame(&FrameResult {
            frame,
            detections: Vec::new(),
            event: event.into(),
            people: Vec::new(),
            scene: None,
        })?;
    }
    video.finish()?;
    Ok(Some(path))
}

/// The image, stretched to `size` (width, height).
fn stretched(image: &Image, size: (u32, u32)) -> opencv::Result<Image> {
    let rows: Vec<u8> = (0..image.height as usize)
        .flat_map(|y| image.row(y).iter().copied())
        .collect();
    let mat = Mat::from_slice(&rows)?;
    let mat = mat.reshape(3, image.height as i32)?;
    let mut scaled = Mat::default();
    let to = Size::new(size.0 as i32, size.1 as i32);
    imgproc::resize(&mat, &mut scaled, to, 0.0, 0.0, imgproc::INTER_LINEAR)?;
    let bytes: Arc<[u8]> = scaled.data_bytes()?.into();
    Ok(Image::packed(size.0, size.1, bytes))
}
