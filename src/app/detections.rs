//! Reads detections from a MOTChallenge file, for `track --detections` and `tune`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};

use twintrack::detection::Detection;
use twintrack::geometry::BBox;
use twintrack::mot_files;

/// Reads detections by frame number. Confidences are divided by `scale` and then clamped to [0, 1];
/// if all are -1 (MOTChallenge's value for unknown), all become 1.
///
/// # Errors
/// When the file cannot be read, or a line is not a detection.
pub fn read(path: &Path, scale: f64) -> Result<BTreeMap<u64, Vec<Detection>>> {
    let rows = mot_files::read_rows(path)?;
    let unknown = !rows.is_empty() && rows.iter().all(|r| r.confidence == -1.0);
    if unknown {
        tracing::info!(file = %path.display(), "all confidences are -1 (unknown); using 1");
    }
    let mut by_frame: BTreeMap<u64, Vec<Detection>> = BTreeMap::new();
    let (mut clamped, mut highest) = (0, 0.0f64);
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
        clamped += usize::from(!(0.0..=1.0).contains(&confidence));
        highest = highest.max(confidence);
        by_frame.entry(row.frame).or_default().push(Detection {
            bbox,
            confidence: confidence.clamp(0.0, 1.0) as f32,
        });
    }
    if clamped > 0 {
        let percent = if (2.0..=100.0).contains(&highest) {
            "; if they are percentages, use --confidence-scale 100"
        } else {
            ""
        };
        tracing::warn!(
            file = %path.display(), clamped, highest,
            "confidences outside [0, 1] were clamped{percent}"
        );
    }
    Ok(by_frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn confidences(text: &str, scale: f64) -> Vec<f32> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("written");
        read(file.path(), scale)
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
}
