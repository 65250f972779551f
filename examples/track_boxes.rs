//! Tracks boxes from a MOTChallenge detection file. Needs no network, no video and no feature.
//!
//! ```text
//! cargo run --release --no-default-features --example track_boxes -- det.txt 25 > tracks.txt
//! ```
//!
//! Arguments: the file, and its frames per second. Writes MOTChallenge result lines.

#![allow(clippy::print_stdout, reason = "the output of a program")]

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use twintrack::prelude::*;
use twintrack::{mot_files, mot_format};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(file), Some(rate)) = (args.next(), args.next()) else {
        return Err("usage: track_boxes DETECTIONS FRAMES_PER_SECOND".into());
    };
    let interval = Seconds(1.0 / rate.parse::<f64>()?);

    let mut frames = BTreeMap::<u64, Vec<Detection>>::new();
    for row in mot_files::read_rows(Path::new(&file))? {
        frames.entry(row.frame).or_default().push(Detection {
            bbox: row.ltwh.map(|v| v as f32).into(),
            confidence: row.confidence as f32,
        });
    }

    let mut tracker = Tracker::new(TrackerConfig::default());
    let last = frames.keys().next_back().copied().unwrap_or_default();
    let mut lines = String::new();
    for number in 1..=last {
        // A frame without detections also updates the tracker, because time passes.
        let detections = frames.remove(&number).unwrap_or_default();
        let update = tracker.update(&detections, &Embeddings::none(), interval)?;
        for track in update.tracks {
            if track.state == TrackState::Confirmed {
                mot_format::write_row(
                    &mut lines,
                    number,
                    track.id as i64,
                    track.bbox.into(),
                    track.confidence,
                );
            }
        }
    }
    print!("{lines}");
    Ok(())
}
