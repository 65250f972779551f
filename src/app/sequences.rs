//! Sequences with ground truth on disk, for `eval` and `tune`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use twintrack::eval::{Benchmark, EvalError};
use twintrack::mot_files;
use twintrack::mot_format::{Known, MotRow, SequenceInfo};

/// A sequence's ground truth.
pub struct Truth {
    /// Name of the sequence and of its folder.
    pub name: String,
    /// Frame rate, number of frames, and frame size.
    pub info: SequenceInfo,
    /// Rows of `gt/gt.txt`.
    pub rows: Vec<MotRow>,
}

/// The folders with ground truth, sorted by name: `dir`, or its sub-folders.
///
/// # Errors
/// When `dir` cannot be read or has no ground truth.
pub fn find(dir: &Path) -> Result<Vec<PathBuf>> {
    let has_truth = |p: &Path| p.join("gt/gt.txt").is_file();
    if has_truth(dir) {
        return Ok(vec![dir.to_path_buf()]);
    }
    let entries = std::fs::read_dir(dir)
        .with_context(|| format!("cannot read the folder {}", dir.display()))?;
    let mut sequences: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| has_truth(p))
        .collect();
    sequences.sort();
    if sequences.is_empty() {
        return Err(EvalError::Layout(format!(
            "{} has no sequence (a folder with gt/gt.txt and seqinfo.ini)",
            dir.display()
        ))
        .into());
    }
    Ok(sequences)
}

/// Reads the ground truth of the sequence in `dir`. `known`: properties of a sequence without
/// `seqinfo.ini`.
///
/// # Errors
/// When a file is missing or malformed, or no row is evaluated by the rules of `benchmark`.
pub fn read(dir: &Path, known: Known, benchmark: Benchmark) -> Result<Truth> {
    let rows = mot_files::read_rows(&dir.join("gt/gt.txt"))?;
    let info = mot_files::find_sequence(dir, known)?
        .with_context(|| format!("{} is not a sequence", dir.display()))?;
    let name = dir
        .canonicalize()
        .ok()
        .and_then(|d| Some(d.file_name()?.to_string_lossy().into_owned()))
        .unwrap_or_else(|| info.name.clone());
    benchmark.check(&name, &rows)?;
    let truth = Truth { name, info, rows };
    truth.warn_beyond("ground truth", &truth.rows);
    Ok(truth)
}

impl Truth {
    /// Warns of rows whose frame number exceeds the sequence's number of frames; they are not
    /// evaluated. `what` names the rows.
    pub fn warn_beyond(&self, what: &str, rows: &[MotRow]) {
        let (length, beyond) = (
            self.info.length,
            rows.iter().filter(|r| r.frame > self.info.length).count(),
        );
        if beyond > 0 {
            tracing::warn!(
                sequence = %self.name, rows = beyond, length,
                "{what}: rows beyond the sequence's length are ignored; check seqLength in \
                 seqinfo.ini"
            );
        }
    }
}
