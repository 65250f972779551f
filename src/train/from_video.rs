//! Data sets from videos without labels, by the tracker's own confident tracks. The pictures of a
//! track are one person; tracks that occur in the same frame are different people. Other pairs of
//! tracks may be one person and are not compared.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::Config;
use crate::detect::{Detector, DetectorConfig, Precision};
use crate::detection::{Detection, Embeddings};
use crate::embed::Embedder;
use crate::frame::{Frame, Image};
use crate::geometry::BBox;
use crate::infer::Runtime;
use crate::source::{self, SourceOptions};
use crate::time::Seconds;
use crate::track::{TrackOutput, TrackState, TrackUpdate, Tracker, TrackerConfig};
use crate::train::dataset::{Crop, Dataset, Protocol, cut};
use crate::train::error::TrainError;
use crate::train::probe::footage::BoxesByFrame;
use crate::train::visibility::{CROP_INTERVAL, is_visible};

/// Detections below this confidence give no crop.
const MIN_CONFIDENCE: f32 = 0.5;
/// Tracks with fewer crops are dropped.
const MIN_CROPS: usize = 6;

/// A frame with the tracker's result.
pub struct TrackedFrame<'a> {
    /// The frame.
    pub frame: &'a Frame,
    /// The frame's pixels.
    pub image: &'a Image,
    /// Time since the previous frame.
    pub elapsed: Seconds,
    /// The detections.
    pub detections: &'a [Detection],
    /// The detections' embeddings.
    pub embeddings: &'a Embeddings,
    /// The tracker's result.
    pub update: &'a TrackUpdate,
}

/// Runs detector, embedder and tracker on the frames `frames` (first and last, counted from 1) of a
/// video, and calls `show` with each result. Returns the tracker in its state after the last frame.
///
/// # Errors
/// Fails when the video cannot be read, a model cannot be opened or run, or the tracker rejects a
/// frame.
pub fn track_video(
    input: &str,
    frames: (u64, u64),
    config: &Config,
    tracker: TrackerConfig,
    mut show: impl FnMut(&TrackedFrame<'_>),
) -> Result<Tracker, TrainError> {
    let runtime = Runtime::load()?;
    let session = config.session();
    // `auto` would select the faster format by a measurement, on which training data must not
    // depend.
    let precision = if config.detector.precision == Precision::Auto {
        Precision::Fp32
    } else {
        config.detector.precision
    };
    let mut detector = Detector::open(
        &runtime,
        &DetectorConfig {
            precision,
            ..config.detector.clone()
        },
        session,
    )?;
    let mut embedder = Embedder::open(&runtime, &config.embedder, session)?;
    let mut tracker = Tracker::new(tracker).with_strangers(embedder.strangers());
    let mut source = source::open(input, &SourceOptions::default())?;
    let mut last: Option<Seconds> = None;
    while let Some(frame) = source.next_frame()? {
        if frame.number > frames.1 {
            break;
        }
        let Some(image) = frame.image.as_ref().filter(|_| frame.number >= frames.0) else {
            continue;
        };
        let detections = detector.detect_image(image)?;
        let embeddings = embedder.embed(image, &detections)?;
        let elapsed = last.map_or(Seconds::ZERO, |l| frame.pts - l);
        last = Some(frame.pts);
        let update = tracker
            .update(&detections, &embeddings, elapsed)
            .map_err(|e| TrainError::Data {
                name: input.into(),
                problem: e.to_string(),
            })?;
        show(&TrackedFrame {
            frame: &frame,
            image,
            elapsed,
            detections: &detections,
            embeddings: &embeddings,
            update: &update,
        });
    }
    Ok(tracker)
}

/// Boxes of people in a video by frame, as tracked with the default configuration, for the frames
/// `frames` (first and last, from 1).
///
/// # Errors
/// Fails when the video cannot be read or a model cannot be opened.
pub fn boxes(input: &str, frames: (u64, u64)) -> Result<BoxesByFrame, TrainError> {
    let config = Config::default();
    let mut people = BoxesByFrame::new();
    track_video(
        input,
        frames,
        &config,
        config.tracker(false),
        |TrackedFrame { frame, update, .. }| {
            let sure = |t: &&TrackOutput| {
                t.state == TrackState::Confirmed
                    && t.unseen == Seconds::ZERO
                    && t.confidence >= MIN_CONFIDENCE
            };
            let seen: Vec<BBox> = update.tracks.iter().filter(sure).map(|t| t.bbox).collect();
            let clear = (0..seen.len())
                .filter(|&i| is_visible(&seen, i))
                .map(|i| seen[i])
                .collect();
            people.insert(frame.number, clear);
        },
    )?;
    Ok(people)
}

/// Makes a data set of a video's tracks with the default configuration, for the frames `frames`
/// (first and last, from 1).
///
/// # Errors
/// Fails when the video cannot be read, a model cannot be opened, or no track is long enough.
pub fn read(input: &str, frames: (u64, u64)) -> Result<Dataset, TrainError> {
    let config = Config::default();
    let mut crops: BTreeMap<u64, Vec<Crop>> = BTreeMap::new();
    let mut together = BTreeSet::new();
    track_video(
        input,
        frames,
        &config,
        config.tracker(false),
        |TrackedFrame {
             frame,
             image,
             update,
             ..
         }| {
            let seen: Vec<_> = update
                .tracks
                .iter()
                .filter(|t| t.state == TrackState::Confirmed && t.unseen == Seconds::ZERO)
                .collect();
            for (i, a) in seen.iter().enumerate() {
                together.extend(
                    seen[i + 1..]
                        .iter()
                        .map(|b| (a.id.min(b.id), a.id.max(b.id))),
                );
            }
            if !(frame.number - frames.0).is_multiple_of(CROP_INTERVAL) {
                return;
            }
            let boxes: Vec<BBox> = seen.iter().map(|t| t.bbox).collect();
            let (width, height) = (image.width as f32, image.height as f32);
            let within = |b: &BBox| {
                b.left >= 0.0 && b.top >= 0.0 && b.right() <= width && b.bottom() <= height
            };
            for (i, t) in seen.iter().enumerate().filter(|(i, t)| {
                t.confidence >= MIN_CONFIDENCE && within(&t.bbox) && is_visible(&boxes, *i)
            }) {
                crops
                    .entry(t.id)
                    .or_default()
                    .extend(cut(image, &boxes[i], 0, frame.number));
            }
        },
    )?;
    crops.retain(|_, c| c.len() >= MIN_CROPS);
    let ids: Vec<u64> = crops.keys().copied().collect();
    let number = |id: u64| ids.binary_search(&id).ok();
    let apart = together
        .into_iter()
        .filter_map(|(a, b)| Some((number(a)?, number(b)?)))
        .collect();
    let crops = crops
        .into_iter()
        .flat_map(|(id, c)| c.into_iter().map(move |c| (id, c)))
        .collect();
    let mut data = Dataset::of(input, crops, Protocol::Apart(50))?;
    data.apart = Some(apart);
    Ok(data)
}
