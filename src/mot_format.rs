//! MOTChallenge files: `seqinfo.ini`, detections, ground truth, results (Milan et al. 2016, arXiv 1603.00831, section 4).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// What can be wrong with a MOTChallenge file.
#[derive(Debug, Error)]
pub enum MotError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line does not have the form it should.
    #[error("{}, line {line}: {problem} (a line reads: frame,id,left,top,width,height,confidence,...)", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// Nobody says what a sequence without `seqinfo.ini` is like.
    #[error("{} has no seqinfo.ini; give {missing}", path.display())]
    Undescribed {
        /// The sequence's folder.
        path: PathBuf,
        /// What is to be given.
        missing: &'static str,
    },
    /// `seqinfo.ini` lacks something.
    #[error("{}: {key} is missing or not a number above zero; the [Sequence] section must give frameRate, seqLength, imWidth and imHeight", path.display())]
    SequenceInfo {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
}

/// What a sequence is like: its `seqinfo.ini`, or what can be known without (see [`SequenceInfo::open`]).
#[derive(Debug, Clone, PartialEq)]
pub struct SequenceInfo {
    /// Name of the sequence; the folder's when the file gives none.
    pub name: String,
    /// Folder of the pictures inside the sequence's folder, `img1` by default.
    pub image_dir: String,
    /// Ending of the pictures, `.jpg` by default.
    pub image_ext: String,
    /// A video beside the folder that holds the pictures instead (key `video`, an addition of twintrack).
    pub video: Option<PathBuf>,
    /// Frames per second; 0 where unknown.
    pub frame_rate: f64,
    /// Number of frames.
    pub length: u64,
    /// Width of a frame, pixels; 0 where unknown.
    pub width: u32,
    /// Height of a frame, pixels; 0 where unknown.
    pub height: u32,
}

/// What the caller knows of a sequence that has no `seqinfo.ini`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known {
    /// Frames per second.
    pub frame_rate: Option<f64>,
    /// Width and height of a frame, pixels.
    pub size: Option<(u32, u32)>,
}

impl SequenceInfo {
    /// The sequence in the folder `dir`: what its `seqinfo.ini` says; without one, as CVAT exports sequences, what `known`
    /// and the last frame of `gt/gt.txt` and `det/det.txt` say. `None` when the folder has none of these files.
    ///
    /// # Errors
    /// When one of the files is wrong.
    pub fn open(dir: &Path, known: Known) -> Result<Option<Self>, MotError> {
        if dir.join("seqinfo.ini").is_file() {
            return Self::read(dir).map(Some);
        }
        let files: Vec<PathBuf> = ["gt/gt.txt", "det/det.txt"]
            .iter()
            .map(|f| dir.join(f))
            .filter(|f| f.is_file())
            .collect();
        if files.is_empty() {
            return Ok(None);
        }
        let rows: Vec<Vec<MotRow>> = files
            .iter()
            .map(|f| read_rows(f))
            .collect::<Result<_, _>>()?;
        let (width, height) = known.size.unwrap_or_default();
        Ok(Some(SequenceInfo {
            name: dir
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default(),
            image_dir: "img1".into(),
            image_ext: ".jpg".into(),
            video: None,
            frame_rate: known.frame_rate.unwrap_or_default(),
            length: rows
                .iter()
                .flatten()
                .map(|r| r.frame)
                .max()
                .unwrap_or_default(),
            width,
            height,
        }))
    }

    /// Reads `seqinfo.ini` of the sequence folder `dir`.
    ///
    /// # Errors
    /// When the file is missing or lacks frame rate, length or size.
    pub fn read(dir: &Path) -> Result<Self, MotError> {
        let path = dir.join("seqinfo.ini");
        let text = read(&path)?;
        let values: BTreeMap<&str, &str> = text
            .lines()
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
            name: text_of(
                "name",
                dir.file_name()
                    .map(|n| n.to_string_lossy().into_owned())
                    .unwrap_or_default(),
            ),
            image_dir: text_of("imDir", "img1".into()),
            image_ext: text_of("imExt", ".jpg".into()),
            video: values.get("video").map(PathBuf::from),
            frame_rate: number(&values, &path, "frameRate")?,
            length: number(&values, &path, "seqLength")?,
            width: number(&values, &path, "imWidth")?,
            height: number(&values, &path, "imHeight")?,
        })
    }
}

/// One line of a MOTChallenge file: detection, ground truth or result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MotRow {
    /// Frame number, from 1.
    pub frame: u64,
    /// Identity; -1 in detections and where the file leaves it out.
    pub id: i64,
    /// Left, top, width, height; pixels.
    pub ltwh: [f64; 4],
    /// Confidence of a detection or result; in ground truth 0 marks a box to be ignored.
    pub confidence: f64,
    /// Class of a ground-truth box (1 is a pedestrian); 1 where the file gives none.
    pub class: i64,
    /// Share of a ground-truth box that is seen, in [0, 1]; 1 where the file gives none.
    pub visibility: f64,
}

/// Reads all lines of a detection, ground-truth or result file.
///
/// # Errors
/// When the file cannot be read, or a line has fewer than six numbers.
pub fn read_rows(path: &Path) -> Result<Vec<MotRow>, MotError> {
    rows_of(&read(path)?, path)
}

/// The lines of the text of a file; `path` is for messages.
///
/// # Errors
/// When a line has fewer than six numbers.
pub fn rows_of(text: &str, path: &Path) -> Result<Vec<MotRow>, MotError> {
    let lines = text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty());
    lines
        .map(|(i, l)| {
            parse(l).map_err(|problem| MotError::Line {
                path: path.to_path_buf(),
                line: i + 1,
                problem,
            })
        })
        .collect()
}

/// The file's text, without the byte-order mark that spreadsheets put at its head.
fn read(path: &Path) -> Result<String, MotError> {
    let text = fs::read_to_string(path).map_err(|source| MotError::Read {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(text
        .strip_prefix('\u{feff}')
        .map(str::to_string)
        .unwrap_or(text))
}

/// One line, its fields separated by commas or, where it has none, by white space. An empty field
/// between commas is absent; a number that is not finite is refused.
fn parse(line: &str) -> Result<MotRow, String> {
    let fields: Vec<&str> = if line.contains(',') {
        line.split(',').map(str::trim).collect()
    } else {
        line.split_whitespace().collect()
    };
    if fields.len() < 6 {
        return Err(format!(
            "{} values where at least 6 are needed",
            fields.len()
        ));
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
        return Err(format!("frame {frame} is not a whole number from 1 on"));
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

/// Appends one line (with its newline) to `out`: a result, or with id -1 a detection.
pub fn write_row(out: &mut String, frame: u64, id: i64, ltwh: [f32; 4], confidence: f32) {
    let [l, t, w, h] = ltwh;
    writeln!(
        out,
        "{frame},{id},{l:.2},{t:.2},{w:.2},{h:.2},{confidence:.4},-1,-1,-1"
    )
    .expect("writing to a string cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_row_reads_back() {
        let mut s = String::new();
        write_row(&mut s, 3, 7, [1.5, 2.25, 30.0, 60.0], 0.5);
        let row = parse(s.trim()).expect("our own line");
        assert_eq!(
            (row.frame, row.id, row.ltwh, row.confidence),
            (3, 7, [1.5, 2.25, 30.0, 60.0], 0.5)
        );
    }

    #[test]
    fn ground_truth_has_a_class() {
        let row = parse("1,2,912,484,97,109,0,7,1").expect("a line of MOT17's ground truth");
        assert_eq!((row.confidence, row.class), (0.0, 7));
    }

    #[test]
    fn a_bad_line_says_what_is_wrong() {
        assert!(parse("1,2,3").unwrap_err().contains("at least 6"));
        assert!(parse("1,2,a,4,5,6").unwrap_err().contains("'a'"));
        assert!(parse("0,2,3,4,5,6").unwrap_err().contains("frame 0"));
        for number in ["nan", "NaN", "inf", "-inf", "infinity", "1e999"] {
            let line = format!("1,2,3,{number},5,6,0.5");
            assert!(parse(&line).unwrap_err().contains(number), "{line}");
        }
    }

    #[test]
    fn an_empty_field_is_absent_and_moves_no_other() {
        let row = parse("1,,10,20,30,60,,1,0.5").expect("id and confidence are left out");
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
    fn a_byte_order_mark_is_no_part_of_the_first_number() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(
            file.path(),
            "\u{feff}1,-1,2,3,4,5,0.5\r\n2,-1,2,3,4,5,0.5\r\n",
        )
        .expect("written");
        let frames: Vec<u64> = read_rows(file.path())
            .expect("readable")
            .iter()
            .map(|r| r.frame)
            .collect();
        assert_eq!(frames, [1, 2]);
    }
}
