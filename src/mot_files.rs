//! Reads MOTChallenge files; [`crate::mot_format`] parses them.

use std::path::{Path, PathBuf};

use crate::mot_format::{Known, MotError, MotRow, SequenceInfo, folder_name, parse_rows};
use crate::text_file;

/// Reads the properties of the sequence in the folder `dir` from its `seqinfo.ini`. Without that
/// file, as in CVAT's exports, rate and size are taken from `known`, and the length is the last
/// frame number in `gt/gt.txt` and `det/det.txt`. None if the folder has none of these files.
///
/// # Errors
/// When one of the files cannot be read or is malformed.
pub fn find_sequence(dir: &Path, known: Known) -> Result<Option<SequenceInfo>, MotError> {
    if dir.join("seqinfo.ini").is_file() {
        return read_sequence(dir).map(Some);
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
    Ok(Some(SequenceInfo::undescribed(
        folder_name(dir),
        known,
        &rows.concat(),
    )))
}

/// Reads the `seqinfo.ini` in `dir`.
///
/// # Errors
/// When the file cannot be read, or its frame rate, length or size is missing or not a number above
/// zero.
pub fn read_sequence(dir: &Path) -> Result<SequenceInfo, MotError> {
    let path = dir.join("seqinfo.ini");
    SequenceInfo::parse(&read(&path)?, &path)
}

/// Reads all lines of a detection, ground-truth or result file.
///
/// # Errors
/// When the file cannot be read, or a line is malformed.
pub fn read_rows(path: &Path) -> Result<Vec<MotRow>, MotError> {
    parse_rows(&read(path)?, path)
}

fn read(path: &Path) -> Result<String, MotError> {
    text_file::read(path).map_err(|source| MotError::Read {
        path: path.to_path_buf(),
        source,
    })
}
