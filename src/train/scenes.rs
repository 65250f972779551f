//! Labelled frames for the association head: from ground truth, from the tracker's own tracks, or
//! simulated.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::Config;
use crate::detection::{Detection, Embeddings};
use crate::embed::Embedder;
use crate::geometry::BBox;
use crate::infer::Runtime;
use crate::mot_files;
use crate::mot_format::MotRow;
use crate::refine::RecordedEvents;
use crate::time::Seconds;
use crate::track::TrackState;
use crate::track::assignment::{Assignment, Candidate};
use crate::train::association::{DetectionLabel, LabelledFrame};
use crate::train::error::TrainError;
use crate::train::simulate::{self, EmbeddingBank};
use crate::train::{from_video, retrieval, synthetic};
use crate::trajectory::EventBuilder;

/// Minimum IoU of a detection and the ground-truth box that labels it.
const SAME_BOX: f32 = 0.5;
/// Length of a simulated scene in seconds.
const SCENE: f32 = 20.0;
/// Number of drawn people whose embeddings are used for the simulated people.
const DRAWN: usize = 150;

/// Simulated scenes. Every third has no embeddings, as with tracking by motion only.
///
/// # Errors
/// Fails when the embedder cannot be opened or run.
pub fn simulated(
    count: usize,
    config: &Config,
    seed: u64,
) -> Result<Vec<Vec<LabelledFrame>>, TrainError> {
    let session = config.session();
    let mut embedder = Embedder::open(&Runtime::load()?, &config.embedder, session)?;
    let drawn = synthetic::dataset(DRAWN, 8, seed.wrapping_add(77))?;
    let mut looks: EmbeddingBank = vec![Vec::new(); drawn.identities];
    let embeddings = retrieval::embeddings(&mut embedder, &drawn.crops)?;
    drawn
        .crops
        .iter()
        .zip(embeddings.rows())
        .for_each(|(c, e)| looks[c.identity].push(e.to_vec()));
    let none = EmbeddingBank::new();
    let scene = |i: usize| {
        simulate::scene(
            SCENE,
            if i % 3 == 2 { &none } else { &looks },
            seed.wrapping_mul(1_000_003) ^ i as u64,
        )
    };
    Ok((0..count).map(scene).collect())
}

/// A MOTChallenge sequence: public detections (`det/det.txt`) labelled by ground truth; no
/// embeddings.
///
/// # Errors
/// Fails when a file is missing or malformed.
pub fn sequence(dir: &Path, frames: (u64, u64)) -> Result<Vec<LabelledFrame>, TrainError> {
    let info = mot_files::read_sequence(dir)?;
    let by_frame = |rows: Vec<MotRow>| {
        let mut by: BTreeMap<u64, Vec<MotRow>> = BTreeMap::new();
        rows.into_iter()
            .for_each(|r| by.entry(r.frame).or_default().push(r));
        by
    };
    let truth = by_frame(mot_files::read_rows(&dir.join("gt/gt.txt"))?);
    let found = by_frame(mot_files::read_rows(&dir.join("det/det.txt"))?);
    let elapsed = Seconds(1.0 / info.frame_rate);
    let frame = |n: u64| {
        let of = |rows: &BTreeMap<u64, Vec<MotRow>>| rows.get(&n).cloned().unwrap_or_default();
        let bbox = |r: &MotRow| BBox::from(r.ltwh.map(|v| v as f32));
        let detections = of(&found).into_iter().map(|r| Detection {
            bbox: bbox(&r),
            confidence: r.confidence.clamp(0.0, 1.0) as f32,
        });
        let detections: Vec<Detection> = detections.filter(|d| d.bbox.is_valid()).collect();
        let truth = of(&truth);
        let boxes: Vec<(BBox, DetectionLabel)> = truth
            .iter()
            .map(|r| {
                (
                    bbox(r),
                    if r.class == 1 && r.confidence > 0.0 {
                        DetectionLabel::Person(r.id as u64)
                    } else {
                        DetectionLabel::Unknown
                    },
                )
            })
            .collect();
        let labels = known_by(&detections, &boxes, DetectionLabel::NoPerson);
        LabelledFrame {
            elapsed,
            detections,
            embeddings: Embeddings::none(),
            labels,
        }
    };
    Ok((frames.0..=frames.1.min(info.length)).map(frame).collect())
}

/// A video without labels: detections are labelled by the tracker's own tracks, linked offline; the
/// labels of other detections are unknown.
///
/// # Errors
/// Fails when the video cannot be read or a model cannot be opened.
pub fn video(
    input: &str,
    frames: (u64, u64),
    config: &Config,
) -> Result<Vec<LabelledFrame>, TrainError> {
    let mut events = EventBuilder::new(uuid::Uuid::nil(), input.into(), Some("own".into()));
    let mut recording = RecordedEvents::default();
    let mut seen = Vec::new();
    let mut tracker = from_video::track_video(input, frames, config, config.tracker(true), |s| {
        recording
            .frames
            .push(events.frame(s.frame, &s.update.tracks));
        recording.ended.extend(events.ended(s.update.ended.clone()));
        seen.push(LabelledFrame {
            elapsed: s.elapsed,
            detections: s.detections.to_vec(),
            embeddings: s.embeddings.clone(),
            labels: Vec::new(),
        });
    })?;
    recording.ended.extend(events.ended(tracker.finish()));
    let refined = recording.refine(&config.offline, &config.tracker);
    for (frame, event) in seen.iter_mut().zip(&refined.frames) {
        let confirmed = event
            .tracks
            .iter()
            .filter(|t| t.state == TrackState::Confirmed);
        let boxes: Vec<(BBox, DetectionLabel)> = confirmed
            .map(|t| {
                (
                    BBox::from(t.bbox.map(|v| v as f32)),
                    DetectionLabel::Person(t.id),
                )
            })
            .collect();
        frame.labels = known_by(&frame.detections, &boxes, DetectionLabel::Unknown);
    }
    Ok(seen)
}

/// Labels detections by the optimal one-to-one matching with labelled boxes; unmatched detections
/// get the label `otherwise`.
fn known_by(
    detections: &[Detection],
    boxes: &[(BBox, DetectionLabel)],
    otherwise: DetectionLabel,
) -> Vec<DetectionLabel> {
    let mut candidates = Vec::new();
    for (row, d) in detections.iter().enumerate() {
        for (column, (b, _)) in boxes.iter().enumerate() {
            let iou = d.bbox.iou(b);
            if iou >= SAME_BOX {
                candidates.push(Candidate {
                    row,
                    column,
                    cost: 1.0 - iou,
                });
            }
        }
    }
    let mut labels = vec![otherwise; detections.len()];
    for (row, column) in
        Assignment::default().solve(detections.len(), boxes.len(), &candidates, 1.0)
    {
        labels[row] = boxes[column].1;
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detections_get_the_label_of_the_box_they_overlap_most() {
        let at = |x: f32| BBox::new(x, 0.0, 40.0, 100.0);
        let detections: Vec<Detection> = [0.0, 12.0, 300.0]
            .map(|x| Detection {
                bbox: at(x),
                confidence: 0.9,
            })
            .to_vec();
        let boxes = [
            (at(10.0), DetectionLabel::Person(1)),
            (at(2.0), DetectionLabel::Person(2)),
        ];
        assert_eq!(
            known_by(&detections, &boxes, DetectionLabel::NoPerson),
            [
                DetectionLabel::Person(2),
                DetectionLabel::Person(1),
                DetectionLabel::NoPerson
            ]
        );
        assert_eq!(
            known_by(&detections, &[], DetectionLabel::Unknown),
            [DetectionLabel::Unknown; 3]
        );
    }
}
