//! Frames of which it is known who is who, for the association head: from ground truth, from the tracker's own tracks, or
//! simulated.

use std::collections::BTreeMap;
use std::path::Path;

use crate::config::Config;
use crate::detection::{Detection, Embeddings};
use crate::embed::Embedder;
use crate::geometry::BBox;
use crate::infer::Runtime;
use crate::mot_format::{self, MotRow, SequenceInfo};
use crate::refine::Recording;
use crate::time::Seconds;
use crate::track::TrackState;
use crate::track::assignment::{Assignment, Candidate};
use crate::train::association::{Labelled, Who};
use crate::train::dataset::TrainError;
use crate::train::simulate::{self, Looks};
use crate::train::{from_video, retrieval, synthetic};
use crate::trajectory::EventBuilder;

/// A detection is a ground-truth box's when they overlap by so much.
const SAME_BOX: f32 = 0.5;
/// Length of a simulated scene, seconds.
const SCENE: f32 = 20.0;
/// Drawn people whose looks the simulated ones wear.
const DRAWN: usize = 150;

/// Simulated scenes; every third has no embeddings, as when tracking by motion only.
///
/// # Errors
/// When the embedder cannot be opened or run.
pub fn simulated(
    count: usize,
    config: &Config,
    seed: u64,
) -> Result<Vec<Vec<Labelled>>, TrainError> {
    let session = config.session();
    let mut embedder = Embedder::open(&Runtime::load()?, &config.embedder, session)?;
    let drawn = synthetic::dataset(DRAWN, 8, seed.wrapping_add(77))?;
    let mut looks: Looks = vec![Vec::new(); drawn.identities];
    let embeddings = retrieval::embeddings(&mut embedder, &drawn.crops)?;
    drawn
        .crops
        .iter()
        .zip(embeddings.rows())
        .for_each(|(c, e)| looks[c.identity].push(e.to_vec()));
    let none = Looks::new();
    let scene = |i: usize| {
        simulate::scene(
            SCENE,
            if i % 3 == 2 { &none } else { &looks },
            seed.wrapping_mul(1_000_003) ^ i as u64,
        )
    };
    Ok((0..count).map(scene).collect())
}

/// A MOTChallenge sequence, its public detections (`det/det.txt`) known by its ground truth; no embeddings.
///
/// # Errors
/// When a file is missing or wrong.
pub fn sequence(dir: &Path, frames: (u64, u64)) -> Result<Vec<Labelled>, TrainError> {
    let info = SequenceInfo::read(dir)?;
    let by_frame = |rows: Vec<MotRow>| {
        let mut by: BTreeMap<u64, Vec<MotRow>> = BTreeMap::new();
        rows.into_iter()
            .for_each(|r| by.entry(r.frame).or_default().push(r));
        by
    };
    let truth = by_frame(mot_format::read_rows(&dir.join("gt/gt.txt"))?);
    let found = by_frame(mot_format::read_rows(&dir.join("det/det.txt"))?);
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
        let boxes: Vec<(BBox, Who)> = truth
            .iter()
            .map(|r| {
                (
                    bbox(r),
                    if r.class == 1 && r.confidence > 0.0 {
                        Who::Person(r.id as u64)
                    } else {
                        Who::Unknown
                    },
                )
            })
            .collect();
        let who = known_by(&detections, &boxes, Who::Nobody);
        Labelled {
            elapsed,
            detections,
            embeddings: Embeddings::none(),
            who,
        }
    };
    Ok((frames.0..=frames.1.min(info.length)).map(frame).collect())
}

/// A video without labels: its own tracks, linked over the whole of it, say who is who; the rest is not known.
///
/// # Errors
/// When the video cannot be read or a model cannot be opened.
pub fn video(
    input: &str,
    frames: (u64, u64),
    config: &Config,
) -> Result<Vec<Labelled>, TrainError> {
    let mut events = EventBuilder::new(uuid::Uuid::nil(), input.into(), Some("own".into()));
    let mut recording = Recording::default();
    let mut seen = Vec::new();
    let mut tracker = from_video::follow(input, frames, config, config.tracker(true), |s| {
        recording
            .frames
            .push(events.frame(s.frame, &s.update.tracks));
        recording
            .ended
            .extend(s.update.ended.iter().map(|e| events.ended(e.clone())));
        seen.push(Labelled {
            elapsed: s.elapsed,
            detections: s.detections.to_vec(),
            embeddings: s.embeddings.clone(),
            who: Vec::new(),
        });
    })?;
    recording
        .ended
        .extend(tracker.finish().into_iter().map(|e| events.ended(e)));
    let refined = recording.refine(&config.offline, &config.tracker);
    for (frame, event) in seen.iter_mut().zip(&refined.frames) {
        let confirmed = event
            .tracks
            .iter()
            .filter(|t| t.state == TrackState::Confirmed);
        let boxes: Vec<(BBox, Who)> = confirmed
            .map(|t| (BBox::from(t.bbox.map(|v| v as f32)), Who::Person(t.id)))
            .collect();
        frame.who = known_by(&frame.detections, &boxes, Who::Unknown);
    }
    Ok(seen)
}

/// Whom each detection shows: the best one-to-one pairs with boxes of known people; `otherwise` for the rest.
fn known_by(detections: &[Detection], boxes: &[(BBox, Who)], otherwise: Who) -> Vec<Who> {
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
    let mut who = vec![otherwise; detections.len()];
    for (row, column) in
        Assignment::default().solve(detections.len(), boxes.len(), &candidates, 1.0)
    {
        who[row] = boxes[column].1;
    }
    who
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detection_is_the_person_it_overlaps_most_and_a_ghost_is_nobody() {
        let at = |x: f32| BBox::new(x, 0.0, 40.0, 100.0);
        let detections: Vec<Detection> = [0.0, 12.0, 300.0]
            .map(|x| Detection {
                bbox: at(x),
                confidence: 0.9,
            })
            .to_vec();
        let boxes = [(at(10.0), Who::Person(1)), (at(2.0), Who::Person(2))];
        assert_eq!(
            known_by(&detections, &boxes, Who::Nobody),
            [Who::Person(2), Who::Person(1), Who::Nobody]
        );
        assert_eq!(known_by(&detections, &[], Who::Unknown), [Who::Unknown; 3]);
    }
}
