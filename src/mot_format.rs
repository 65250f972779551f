//! The format of MOTChallenge files: `seqinfo.ini`, detections, ground truth and results (Milan et
//! al. 2016, arXiv 1603.00831, section 4). [`crate::mot_files`] reads them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Errors of reading MOTChallenge files.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum MotError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A line is malformed.
    #[error(
        "{}, line {line}: {problem} \
         (the format is: frame,id,left,top,width,height,confidence,...)",
        path.display()
    )]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// Description of the fault.
        problem: String,
    },
    /// A sequence has no `seqinfo.ini`, and the caller did not give a required property.
    #[error("{} has no seqinfo.ini; add one, or set {missing}", path.display())]
    Undescribed {
        /// The sequence's folder.
        path: PathBuf,
        /// The option to set.
        missing: &'static str,
    },
    /// `seqinfo.ini` lacks a key, or its value is invalid.
    #[error(
        "{}: {key} is missing or not a number above zero; the [Sequence] section must have \
         frameRate, seqLength, imWidth and imHeight",
        path.display()
    )]
    SequenceInfo {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
}

/// Properties of a sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceInfo {
    /// Name of the sequence; by default the name of its folder.
    pub name: String,
    /// Folder of the images inside the sequence's folder, `img1` by default.
    pub image_dir: String,
    /// Extension of the images, `.jpg` by default.
    pub image_ext: String,
    /// A video that is read instead of images, relative to the sequence's folder (key `video`,
    /// which only twintrack uses).
    pub video: Option<PathBuf>,
    /// Frames per second; 0 if unknown.
    pub frame_rate: f64,
    /// Number of frames.
    pub length: u64,
    /// Width of a frame in pixels; 0 if unknown.
    pub width: u32,
    /// Height of a frame in pixels; 0 if unknown.
    pub height: u32,
}

/// Properties given by the caller for a sequence without `seqinfo.ini`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// Frames per second.
    pub frame_rate: Option<f64>,
    /// Width and height of a frame in pixels.
    pub size: Option<(u32, u32)>,
}

impl SequenceInfo {
    /// The properties of a sequence without `seqinfo.ini`, as in CVAT's exports: those in `known`,
    /// and the last frame of `rows` as the length.
    pub fn undescribed(name: String, known: Known, rows: &[MotRow]) -> Self {
        let (width, height) = known.size.unwrap_or_default();
        SequenceInfo {
            name,
            image_dir: "img1".into(),
            image_ext: ".jpg".into(),
            video: None,
            frame_rate: known.frame_rate.unwrap_or_default(),
            length: rows.iter().map(|r| r.frame).max().unwrap_or_default(),
            width,
            height,
        }
    }

    /// Parses the text of a `seqinfo.ini`. `path` names it in messages; its folder is the default
    /// name of the sequence.
    ///
    /// # Errors
    /// When frame rate, length or size is missing or not a number above zero.
    pub fn parse(text: &str, path: &Path) -> Result<Self, MotError> {
        let values: BTreeMap<&str, &str> = lines(text)
            .filter_map(|l| l.split_once('='))
            .map(|(k, v)| (k.trim(), v.trim()))
            .collect();
        fn number<T: std::str::FromStr + PartialOrd + Default>(
            values: &BTreeMap<&str, &str>,
            path: &Path,
            key: &'static str,
        ) -> Result<T, MotError> {
            let value = values
                .get(key)
                .and_then(|v| v.parse().ok())
                .filter(|v| *v > T::default());
            value.ok_or_else(|| MotError::SequenceInfo {
                path: path.to_path_buf(),
                key,
            })
        }
        let text_of =
            |key: &str, default: String| values.get(key).map_or(default, |v| (*v).to_string());
        Ok(SequenceInfo {
            name: text_of("name", path.parent().map(folder_name).unwrap_or_default()),
            image_dir: text_of("imDir", "img1".into()),
            image_ext: text_of("imExt", ".jpg".into()),
            video: values.get("video").map(PathBuf::from),
            frame_rate: number(&values, path, "frameRate")?,
            length: number(&values, path, "seqLength")?,
            width: number(&values, path, "imWidth")?,
            height: number(&values, path, "imHeight")?,
        })
    }
}

/// One line of a MOTChallenge file: detection, ground truth or result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MotRow {
    /// Frame number, from 1.
    pub frame: u64,
    /// Identity; -1 in a detection, or if the field is absent.
    pub id: i64,
    /// Left, top, width, height; pixels.
    pub ltwh: [f64; 4],
    /// Confidence of a detection or result; in ground truth, 0 marks a box to ignore. 1 if absent.
    pub confidence: f64,
    /// Class of a ground-truth box (1: pedestrian); 1 if absent.
    pub class: i64,
    /// Visible share of a ground-truth box, in [0, 1]; 1 if absent.
    pub visibility: f64,
}

/// Parses the text of a file; `path` names it in messages.
///
/// # Errors
/// When a line is malformed.
pub fn parse_rows(text: &str, path: &Path) -> Result<Vec<MotRow>, MotError> {
    lines(text)
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty())
        .map(|(i, l)| {
            parse(l).map_err(|problem| MotError::Line {
                path: path.to_path_buf(),
                line: i + 1,
                problem,
            })
        })
        .collect()
}

/// The lines of the text, which end in LF, CR LF or CR, without the byte-order mark that
/// spreadsheet programs write.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    text.lines().flat_map(|line| line.split('\r'))
}

/// The name of a sequence's folder.
pub(crate) fn folder_name(dir: &Path) -> String {
    dir.file_name()
        .map(|n| n.to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// Parses a line. Fields are separated by commas or, if there are none, by white space. An empty
/// field between commas counts as absent; numbers that are not finite are rejected.
fn parse(line: &str) -> Result<MotRow, String> {
    let fields: Vec<&str> = if line.contains(',') {
        line.split(',').map(str::trim).collect()
    } else {
        line.split_whitespace().collect()
    };
    if fields.len() < 6 {
        return Err(format!("{} values instead of at least 6", fields.len()));
    }
    let given = |i: usize| fields.get(i).copied().filter(|f| !f.is_empty());
    let parsed = |text: &str| match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        _ => Err(format!("'{text}' is not a number")),
    };
    let number = |i: usize| {
        given(i).map_or_else(
            || Err(format!("value {} of the line is empty", i + 1)),
            parsed,
        )
    };
    let or = |i: usize, default: f64| given(i).map_or(Ok(default), parsed);
    let frame = number(0)?;
    if frame < 1.0 || frame.fract() != 0.0 {
        return Err(format!("frame {frame} is not an integer from 1"));
    }
    Ok(MotRow {
        frame: frame as u64,
        id: or(1, -1.0)? as i64,
        ltwh: [number(2)?, number(3)?, number(4)?, number(5)?],
        confidence: or(6, 1.0)?,
        class: or(7, 1.0)? as i64,
        visibility: or(8, 1.0)?,
    })
}

/// Appends a line to `out`: a result, or with id -1 a detection.
pub fn write_row(out: &mut String, frame: u64, id: i64, ltwh: [f32; 4], confidence: f32) {
    let [l, t, w, h] = ltwh;
    writeln!(
        out,
        "{frame},{id},{l:.2},{t:.2},{w:.2},{h:.2},{confidence:.4},-1,-1,-1"
    )
    .expect("writing to a String cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_row_is_parsed_to_the_same_values() {
        let mut s = String::new();
        write_row(&mut s, 3, 7, [1.5, 2.25, 30.0, 60.0], 0.5);
        let row = parse(s.trim()).expect("a written line");
        assert_eq!(
            (row.frame, row.id, row.ltwh, row.confidence),
            (3, 7, [1.5, 2.25, 30.0, 60.0], 0.5)
        );
    }

    #[test]
    fn the_class_of_ground_truth_is_parsed() {
        let row = parse("1,2,912,484,97,109,0,7,1").expect("a line of MOT17's ground truth");
        assert_eq!((row.confidence, row.class), (0.0, 7));
    }

    #[test]
    fn errors_say_what_is_malformed() {
        assert!(parse("1,2,3").unwrap_err().contains("at least 6"));
        assert!(parse("1,2,a,4,5,6").unwrap_err().contains("'a'"));
        assert!(parse("0,2,3,4,5,6").unwrap_err().contains("frame 0"));
        for number in ["nan", "NaN", "inf", "-inf", "infinity", "1e999"] {
            let line = format!("1,2,3,{number},5,6,0.5");
            assert!(parse(&line).unwrap_err().contains(number), "{line}");
        }
    }

    #[test]
    fn an_empty_field_counts_as_absent() {
        let row = parse("1,,10,20,30,60,,1,0.5").expect("id and confidence are absent");
        assert_eq!(
            (row.id, row.ltwh, row.confidence),
            (-1, [10.0, 20.0, 30.0, 60.0], 1.0)
        );
        assert_eq!((row.class, row.visibility), (1, 0.5));
        assert!(parse("1,2,10,,30,60,1").unwrap_err().contains("value 4"));
        let row =
            parse(" 1, 2 ,\t10, 20, 30, 60,").expect("spaces beside commas, a comma at the end");
        assert_eq!((row.id, row.confidence), (2, 1.0));
        assert_eq!(parse("1 2  10 20\t30 60").expect("no commas").ltwh[3], 60.0);
    }

    #[test]
    fn a_byte_order_mark_is_ignored() {
        let text = "\u{feff}1,-1,2,3,4,5,0.5\r\n2,-1,2,3,4,5,0.5\r\n";
        let frames: Vec<u64> = parse_rows(text, Path::new("det.txt"))
            .expect("rows")
            .iter()
            .map(|r| r.frame)
            .collect();
        assert_eq!(frames, [1, 2]);
    }

    #[test]
    fn lines_may_end_in_cr_alone() {
        let rows = |text: &str| parse_rows(text, Path::new("det.txt"));
        let line = "1,-1,2,3,4,5,0.5,-1,-1,-1";
        for end in ["\n", "\r\n", "\r"] {
            let text = [line, line, line].join(end) + end;
            assert_eq!(rows(&text).expect("rows").len(), 3, "{end:?}");
            let e = rows(&(text + "x")).expect_err("no row").to_string();
            assert!(e.contains("line 4"), "{end:?}: {e}");
        }
    }
}
