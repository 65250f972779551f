//! The annotated video: boxes, ids, and coloured trails of the foot points.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};

use opencv::core::{
    Mat, MatTraitConst, MatTraitManual, Point, Point2i, Rect, Scalar, Size, Vector,
};
use opencv::videoio::{
    self, VideoCapture, VideoCaptureTraitConst, VideoWriter, VideoWriterTrait,
    VideoWriterTraitConst,
};
use opencv::{imgcodecs, imgproc};

use crate::analytics::SceneView;
use crate::frame::Image;
use crate::sink::sink::{FrameResult, Sink, SinkError};
use crate::track::TrackState;
use crate::trajectory::{FrameEvent, TrackEvent};

mod shapes;

/// Length in seconds of the trail drawn behind a person.
const TRAIL: f64 = 4.0;

/// Extensions of containers that support one of the codecs. Others are rejected without a trial,
/// because OpenCV prints a line to standard error for each codec that a container does not support.
const CONTAINERS: [&str; 6] = ["mp4", "m4v", "mov", "mkv", "avi", "ts"];

/// Writes an annotated video.
pub struct Overlay {
    path: PathBuf,
    frame_rate: f64,
    /// The video being written and its frame size, which is the display size of the first frame.
    writer: Option<(VideoWriter, Size)>,
    frames: u64,
    painter: Painter,
}

/// Draws tracks and their recent trails into frames.
#[derive(Debug, Clone, Default)]
pub struct Painter {
    /// Presentation times and foot points (pixels) by track id, oldest first.
    trails: HashMap<u64, VecDeque<(f64, Point2i)>>,
}

impl Overlay {
    /// Creates the file `path`; its extension selects the container (mp4, mkv, avi). A frame rate
    /// that is not between 0.1 and 1000 is replaced by 25.
    ///
    /// # Errors
    /// When the extension is not that of a supported container, or the file cannot be created.
    pub fn create(path: &Path, frame_rate: f64) -> Result<Self, SinkError> {
        let extension = path.extension().unwrap_or_default().to_string_lossy();
        if !CONTAINERS.iter().any(|c| extension.eq_ignore_ascii_case(c)) {
            return Err(SinkError::Video {
                path: path.into(),
                reason: "its name should end in .mp4, .mkv or .avi".into(),
            });
        }
        std::fs::File::create(path).map_err(|source| SinkError::Create {
            path: path.into(),
            source,
        })?;
        let frame_rate = if frame_rate > 0.1 && frame_rate < 1000.0 {
            frame_rate
        } else {
            25.0
        };
        Ok(Overlay {
            path: path.into(),
            frame_rate,
            writer: None,
            frames: 0,
            painter: Painter::default(),
        })
    }

    fn error(&self, reason: impl Into<String>) -> SinkError {
        SinkError::Video {
            path: self.path.clone(),
            reason: reason.into(),
        }
    }

    /// The absolute path, for FFmpeg, which would interpret the part of a relative path before a
    /// colon as a protocol.
    fn ffmpeg_path(&self) -> Result<String, SinkError> {
        let path = std::path::absolute(&self.path).map_err(|e| self.error(e.to_string()))?;
        path.into_os_string()
            .into_string()
            .map_err(|_| self.error("its name is not UTF-8"))
    }

    /// Opens the video with the first codec that FFmpeg can encode: H.264, which most players
    /// support, else MPEG-4 part 2, else Motion JPEG.
    fn open(&self, size: Size) -> Result<VideoWriter, SinkError> {
        let name = self.ffmpeg_path()?;
        for code in [
            ['a', 'v', 'c', '1'],
            ['m', 'p', '4', 'v'],
            ['M', 'J', 'P', 'G'],
        ] {
            let fourcc = VideoWriter::fourcc(code[0], code[1], code[2], code[3])
                .map_err(|e| self.error(e.message))?;
            let writer = VideoWriter::new_with_backend(
                &name,
                videoio::CAP_FFMPEG,
                fourcc,
                self.frame_rate,
                size,
                true,
            );
            if let Some(w) = writer.ok().filter(|w| w.is_opened().unwrap_or(false)) {
                return Ok(w);
            }
        }
        Err(self.error(
            "FFmpeg can write none of H.264, MPEG-4 and MJPEG into it; \
             its name should end in .mp4, .mkv or .avi",
        ))
    }
}

impl Painter {
    /// Extends the trails by the foot points of a frame, and removes points older than `TRAIL`.
    pub fn update(&mut self, event: &FrameEvent) {
        for t in event.tracks.iter().filter(|t| t.state != TrackState::Lost) {
            let foot = Point::new(t.foot[0] as i32, t.foot[1] as i32);
            self.trails
                .entry(t.id)
                .or_default()
                .push_back((event.pts, foot));
        }
        self.trails.retain(|_, trail| {
            while trail.front().is_some_and(|(at, _)| event.pts - at > TRAIL) {
                trail.pop_front();
            }
            !trail.is_empty()
        });
    }

    fn draw(
        &self,
        image: &Image,
        event: &FrameEvent,
        scene: Option<&SceneView>,
    ) -> Result<Mat, opencv::Error> {
        let mut mat = mat_of(image)?;
        let scale = (f64::from(image.height) / 720.0).clamp(0.6, 2.0);
        if let Some(scene) = scene {
            shapes::draw(&mut mat, scene, scale)?;
        }
        let mut ids: Vec<u64> = self.trails.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            let points: Vector<Point2i> = self.trails[&id].iter().map(|(_, p)| *p).collect();
            let lines: Vector<Vector<Point2i>> = Vector::from_iter([points]);
            imgproc::polylines(
                &mut mat,
                &lines,
                false,
                color(id),
                (2.0 * scale).round() as i32,
                imgproc::LINE_AA,
                0,
            )?;
        }
        for t in &event.tracks {
            draw_person(&mut mat, t, event.skipped, scale)?;
        }
        Ok(mat)
    }

    /// Draws the tracks of `event`, and the shapes of `scene`, into a copy of the image, and
    /// encodes the copy as JPEG, at most `width` pixels wide.
    ///
    /// # Errors
    /// Returns OpenCV's message.
    pub fn jpeg(
        &self,
        image: &Image,
        event: &FrameEvent,
        scene: Option<&SceneView>,
        width: u32,
    ) -> Result<Vec<u8>, String> {
        let drawn = self.draw(image, event, scene);
        drawn
            .and_then(|mat| encode(&mat, width))
            .map_err(|e| e.message)
    }
}

/// Encodes an image as JPEG, at most `width` pixels wide, with nothing drawn into it.
///
/// # Errors
/// Returns OpenCV's message.
pub fn plain_jpeg(image: &Image, width: u32) -> Result<Vec<u8>, String> {
    let mat = mat_of(image);
    mat.and_then(|mat| encode(&mat, width))
        .map_err(|e| e.message)
}

/// Encodes a picture as JPEG, at most `width` pixels wide.
fn encode(mat: &Mat, width: u32) -> Result<Vec<u8>, opencv::Error> {
    let size = mat.size()?;
    let width = i32::try_from(width).unwrap_or(i32::MAX).max(1);
    let mut small = Mat::default();
    let scaled = if width < size.width {
        let height = f64::from(size.height) * f64::from(width) / f64::from(size.width);
        let size = Size::new(width, height.round().max(1.0) as i32);
        imgproc::resize(mat, &mut small, size, 0.0, 0.0, imgproc::INTER_AREA)?;
        &small
    } else {
        mat
    };
    let mut bytes = Vector::new();
    let quality = Vector::from_slice(&[imgcodecs::IMWRITE_JPEG_QUALITY, 80]);
    imgcodecs::imencode(".jpg", scaled, &mut bytes, &quality)?;
    Ok(bytes.into())
}

/// `skipped`: the detector did not process the frame, so that no track is confirmed in it.
fn draw_person(
    mat: &mut Mat,
    t: &TrackEvent,
    skipped: bool,
    scale: f64,
) -> Result<(), opencv::Error> {
    let [l, top, w, h] = t.bbox.map(|v| v.round() as i32);
    let thickness = if t.state == TrackState::Confirmed || skipped {
        (2.0 * scale).round() as i32
    } else {
        1
    };
    imgproc::rectangle(
        mat,
        Rect::new(l, top, w, h),
        color(t.id),
        thickness,
        imgproc::LINE_AA,
        0,
    )?;
    let label = t
        .identity
        .as_ref()
        .map_or_else(|| t.id.to_string(), |i| format!("{} {}", t.id, i.name));
    draw_label(mat, &label, Point::new(l, top), color(t.id), scale)
}

/// Draws a text on a filled rectangle whose lower left corner is `at`; without room above `at`, the
/// rectangle is moved down to the top edge of the picture.
fn draw_label(
    mat: &mut Mat,
    label: &str,
    at: Point,
    background: Scalar,
    scale: f64,
) -> Result<(), opencv::Error> {
    let mut baseline = 0;
    let (font, size) = (imgproc::FONT_HERSHEY_SIMPLEX, 0.55 * scale);
    let text = imgproc::get_text_size(label, font, size, 1, &mut baseline)?;
    let (l, top) = (at.x, at.y.max(text.height + 6));
    imgproc::rectangle(
        mat,
        Rect::new(l, top - text.height - 6, text.width + 6, text.height + 6),
        background,
        imgproc::FILLED,
        imgproc::LINE_8,
        0,
    )?;
    imgproc::put_text(
        mat,
        label,
        Point::new(l + 3, top - 3),
        font,
        size,
        Scalar::all(0.0),
        1,
        imgproc::LINE_AA,
        false,
    )
}

/// Colour of a track: the hue advances by the golden angle per id, so that neighbouring ids differ.
fn color(id: u64) -> Scalar {
    let hue = (id as f64 * 137.507_764) % 360.0;
    let channel = |n: f64| {
        let k = (n + hue / 60.0) % 6.0;
        255.0 * (1.0 - 0.75 * k.min(4.0 - k).clamp(0.0, 1.0))
    };
    Scalar::new(channel(1.0), channel(3.0), channel(5.0), 0.0)
}

fn mat_of(image: &Image) -> Result<Mat, opencv::Error> {
    let mut mat = Mat::new_rows_cols_with_default(
        image.height as i32,
        image.width as i32,
        opencv::core::CV_8UC3,
        Scalar::all(0.0),
    )?;
    let row_bytes = 3 * image.width as usize;
    for (y, row) in mat
        .data_bytes_mut()?
        .chunks_exact_mut(row_bytes)
        .enumerate()
    {
        row.copy_from_slice(image.row(y));
    }
    Ok(mat)
}

/// Scales a frame to `size`, keeping its aspect ratio, and pads the rest with black. `shown` is the
/// frame's display size (width, height), in pixels with an aspect ratio of 1:1.
fn letterbox(mat: &Mat, shown: (u32, u32), size: Size) -> Result<Mat, opencv::Error> {
    if mat.size()? == size {
        return mat.try_clone();
    }
    let scale = (f64::from(size.width) / f64::from(shown.0))
        .min(f64::from(size.height) / f64::from(shown.1));
    // A frame with an odd size is up to two pixels smaller than the video: it is padded, not
    // enlarged.
    let scale = if scale > 1.0 && f64::from(shown.0.max(shown.1)) * (scale - 1.0) < 2.0 {
        1.0
    } else {
        scale
    };
    let side = |v: u32, limit: i32| ((f64::from(v) * scale).round() as i32).clamp(1, limit);
    let (width, height) = (side(shown.0, size.width), side(shown.1, size.height));
    let mut scaled = Mat::default();
    imgproc::resize(
        mat,
        &mut scaled,
        Size::new(width, height),
        0.0,
        0.0,
        imgproc::INTER_AREA,
    )?;
    let (left, top) = ((size.width - width) / 2, (size.height - height) / 2);
    let mut whole = Mat::default();
    let (right, bottom) = (size.width - width - left, size.height - height - top);
    opencv::core::copy_make_border(
        &scaled,
        &mut whole,
        top,
        bottom,
        left,
        right,
        opencv::core::BORDER_CONSTANT,
        Scalar::all(0.0),
    )?;
    Ok(whole)
}

impl Sink for Overlay {
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        let FrameResult { frame, event, .. } = finished;
        let image = frame
            .image
            .as_ref()
            .ok_or_else(|| self.error("the input has no images to draw on"))?;
        let shown = image.shape().shown;
        if self.writer.is_none() {
            // H.264 encoders accept even sizes only.
            let size = Size::new(
                shown.0.next_multiple_of(2) as i32,
                shown.1.next_multiple_of(2) as i32,
            );
            self.writer = Some((self.open(size)?, size));
        }
        self.painter.update(event);
        let drawn = self.painter.draw(image, event, finished.scene.as_deref());
        let Some((writer, size)) = &mut self.writer else {
            return Ok(());
        };
        let written = drawn
            .and_then(|mat| letterbox(&mat, shown, *size))
            .and_then(|mat| writer.write(&mat));
        self.frames += 1;
        written.map_err(|e| self.error(e.message))
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        let Some((mut writer, _)) = self.writer.take() else {
            return Ok(());
        };
        writer.release().map_err(|e| self.error(e.message))?;
        // OpenCV does not report write errors, so check how many frames the file contains.
        let count = VideoCapture::from_file(self.ffmpeg_path()?, videoio::CAP_FFMPEG)
            .and_then(|c| c.get(videoio::CAP_PROP_FRAME_COUNT))
            .unwrap_or(0.0);
        if count + 1.0 < self.frames as f64 {
            return Err(self.error(format!(
                "it contains {count} of {} frames; is the disk full?",
                self.frames
            )));
        }
        Ok(())
    }
}
