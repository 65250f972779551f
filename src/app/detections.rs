//! Reads detections from a MOTChallenge file, for `track --detections` and `tune`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};

use crate::app::networks;
use twintrack::config::Config;
use twintrack::detection::Detection;
use twintrack::embed::Embedder;
use twintrack::geometry::BBox;
use twintrack::mot_files;
use twintrack::mot_format::MotRow;
use twintrack::pipeline::{BatchConfig, DetectionSource};
use twintrack::source::SourceInfo;

/// Number of frames of a recording whose crops are embedded in one batch on a GPU if detections are
/// given.
const GIVEN_TOGETHER: usize = 8;

/// Returns the source of the detections of one input (the file `given`, else the detector) and the
/// number of frames in a batch: one for a camera, the fastest number for a recording. The file's
/// confidences are divided by `scale`.
///
/// # Errors
/// If the file of detections or the detector cannot be used.
pub fn source(
    given: Option<&Path>,
    scale: f64,
    config: &Config,
    info: &SourceInfo,
    embedder: Option<&Embedder>,
) -> Result<(DetectionSource, BatchConfig)> {
    if let Some(path) = given {
        let given = read(path, scale, (info.width, info.height))?;
        let on_gpu = embedder.is_some_and(|e| e.model().provider().is_gpu());
        let frames = if on_gpu && !info.live {
            GIVEN_TOGETHER
        } else {
            1
        };
        return Ok((DetectionSource::Given(given), networks::together(frames)));
    }
    let mut detector = networks::detector(config)?;
    let batch = networks::batch(&mut detector, info)?;
    Ok((DetectionSource::Network(Box::new(detector)), batch))
}

/// Reads detections by frame number. Confidences are divided by `scale` and then clamped to [0, 1];
/// if all are -1 (MOTChallenge's value for unknown), all become 1. Warns of implausible values.
/// `size`: width and height of a frame in pixels; 0 if unknown.
///
/// # Errors
/// When the file cannot be read, or a line is not a detection.
pub fn read(path: &Path, scale: f64, size: (u32, u32)) -> Result<BTreeMap<u64, Vec<Detection>>> {
    let rows = mot_files::read_rows(path)?;
    let unknown = !rows.is_empty() && rows.iter().all(|r| r.confidence == -1.0);
    if unknown {
        tracing::info!(file = %path.display(), "all confidences are -1 (unknown); using 1");
    }
    for doubt in doubts(&rows, scale, size) {
        tracing::warn!(file = %path.display(), "{doubt}");
    }
    let mut by_frame: BTreeMap<u64, Vec<Detection>> = BTreeMap::new();
    for row in rows {
        let bbox = BBox::from(row.ltwh.map(|v| v as f32));
        if !bbox.is_valid() {
            bail!(
                "{}: frame {} has an invalid box: left, top, width, height = {:?}",
                path.display(),
                row.frame,
                row.ltwh
            );
        }
        let confidence = if unknown { 1.0 } else { row.confidence / scale };
        by_frame.entry(row.frame).or_default().push(Detection {
            bbox,
            confidence: confidence.clamp(0.0, 1.0) as f32,
        });
    }
    Ok(by_frame)
}

/// Warns that `unused` detections of the file have frame numbers that are not among the `frames`
/// frames read.
pub fn warn_of_unused(path: &Path, unused: u64, frames: u64) {
    if unused > 0 {
        tracing::warn!(
            file = %path.display(), detections = unused, frames,
            "detections belong to frames that were not read; do their numbers begin at 1, and do \
             they belong to this input?"
        );
    }
}

/// The highest class of MOTChallenge's ground truth.
const LAST_CLASS: i64 = 13;

/// Reasons to doubt that the rows are detections in pixels with confidences in [0, 1].
fn doubts(rows: &[MotRow], scale: f64, size: (u32, u32)) -> Vec<String> {
    let mut doubts = Vec::new();
    let confidences = || rows.iter().map(|r| r.confidence / scale);
    let highest = confidences().fold(f64::NEG_INFINITY, f64::max);
    let known = rows.iter().any(|r| r.confidence != -1.0);
    let clamped = confidences().filter(|c| !(0.0..=1.0).contains(c)).count();
    if known && clamped > 0 {
        let percent = if (2.0..=100.0).contains(&highest) {
            "; if they are percentages, use --confidence-scale 100"
        } else {
            ""
        };
        doubts.push(format!(
            "{clamped} of {} confidences are outside [0, 1] and are clamped (the highest is \
             {highest}){percent}",
            rows.len()
        ));
    }
    // "0,87" is parsed as the confidence 0 and the class 87.
    let commas = rows
        .iter()
        .any(|r| r.confidence == 0.0 && r.class > LAST_CLASS);
    if commas || (!rows.is_empty() && highest == 0.0) {
        let all = if highest == 0.0 { "all" } else { "some" };
        doubts.push(format!(
            "{all} confidences are 0, and such detections are not tracked; if the file has decimal \
             commas (0,87), write decimal points (0.87)"
        ));
    }
    // Left, top, right, bottom.
    let sides = |r: &MotRow| {
        let [l, t, w, h] = r.ltwh;
        [l, t, l + w, t + h]
    };
    let is_fraction = |r: &MotRow| sides(r).iter().all(|v| (-0.5..=1.5).contains(v));
    if !rows.is_empty() && rows.iter().all(is_fraction) {
        doubts.push(
            "all boxes are within 0 to 1: they seem to be fractions of the frame; multiply them by \
             its width and height, because boxes are in pixels"
                .into(),
        );
    } else if let (width @ 1.., height @ 1..) = size {
        let is_outside = |r: &&MotRow| {
            let [l, t, right, bottom] = sides(r);
            right <= 0.0 || bottom <= 0.0 || l >= f64::from(width) || t >= f64::from(height)
        };
        let outside = rows.iter().filter(is_outside).count();
        // A few boxes outside are common, because trackers follow people out of the picture.
        if 10 * outside > rows.len() {
            doubts.push(format!(
                "{outside} of {} boxes are outside the frames of {width}x{height} pixels; do the \
                 detections belong to this input?",
                rows.len()
            ));
        }
    }
    doubts
}

#[cfg(test)]
mod tests {
    use super::*;
    use twintrack::mot_format::parse_rows;

    fn confidences(text: &str, scale: f64) -> Vec<f32> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        read(file.path(), scale, (0, 0))
            .expect("detections")
            .into_values()
            .flatten()
            .map(|d| d.confidence)
            .collect()
    }

    #[test]
    fn unknown_confidences_become_one_and_percentages_are_scaled() {
        let unknown = "1,-1,10,10,30,60,-1,-1,-1,-1\n2,-1,10,10,30,60,-1,-1,-1,-1\n";
        assert_eq!(confidences(unknown, 1.0), [1.0, 1.0]);
        let percent = "1,-1,10,10,30,60,87\n2,-1,10,10,30,60,25\n";
        assert_eq!(confidences(percent, 100.0), [0.87, 0.25]);
        assert_eq!(confidences(percent, 1.0), [1.0, 1.0]);
        let some = "1,-1,10,10,30,60,-1\n2,-1,10,10,30,60,0.5\n";
        assert_eq!(
            confidences(some, 1.0),
            [0.0, 0.5],
            "-1 among others is a low score"
        );
        assert_eq!(confidences("1,-1,10,10,30,60\n", 1.0), [1.0], "absent");
    }

    fn doubts_of(text: &str) -> String {
        let rows = parse_rows(text, Path::new("det.txt")).expect("rows");
        doubts(&rows, 1.0, (768, 576)).join("; ")
    }

    #[test]
    fn values_that_cannot_be_meant_are_doubted() {
        for (text, part) in [
            ("1,-1,10,10,30,60,87\n", "1 of 1 confidences"),
            ("1,-1,10,10,30,60,87\n", "--confidence-scale 100"),
            (
                "1,-1,10,10,30,60,0\n1,-1,90,10,30,60,0\n",
                "all confidences are 0",
            ),
            (
                "1,-1,10,10,30,60,0,9\n1,-1,90,10,30,60,0,87\n",
                "decimal commas",
            ),
            (
                "1,-1,10,10,30,60,0,87\n1,-1,90,10,30,60,1,0\n",
                "some confidences are 0",
            ),
            ("1,-1,0.1,0.1,0.05,0.2,0.9\n", "fractions of the frame"),
            (
                "1,-1,800,10,30,60,0.9\n1,-1,10,10,30,60,0.9\n",
                "1 of 2 boxes are outside",
            ),
        ] {
            let got = doubts_of(text);
            assert!(got.contains(part), "{text:?}: {got:?} instead of {part:?}");
        }
        for text in [
            "",
            "1,-1,10,10,30,60,-1,-1,-1,-1\n",
            "1,-1,-10,-10,30,60,0.9\n1,-1,760,10,30,60,0\n",
            "1,1,10,10,30,60,1,1,1\n1,2,90,10,30,60,0,7,1\n",
        ] {
            assert_eq!(doubts_of(text), "", "{text:?}");
        }
    }
}
