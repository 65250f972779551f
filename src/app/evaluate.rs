//! `twintrack eval`: HOTA, CLEAR MOT and identity measures of results against ground truth.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};

use crate::eval::report::table;
use crate::eval::{Benchmark, EvalError, Scores, Sequence, combine, score};

/// Judge results by ground truth: HOTA, MOTA, IDF1 and their company.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Folder of sequences, each with gt/gt.txt and seqinfo.ini.
    #[arg(long, value_name = "DIR")]
    gt: PathBuf,
    /// Folder of results, a file <sequence>.txt each (MOTChallenge format).
    #[arg(long, value_name = "DIR")]
    results: PathBuf,
    /// Whose rules: which classes are distractors.
    #[arg(long, value_enum, default_value_t = Rules::Mot17)]
    benchmark: Rules,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Whose rules apply.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Rules {
    /// 2D MOT 2015: no distractors.
    Mot15,
    /// MOT16.
    Mot16,
    /// MOT17.
    Mot17,
    /// MOT20: non-motorised vehicles are distractors too.
    Mot20,
}

impl From<Rules> for Benchmark {
    fn from(rules: Rules) -> Self {
        match rules {
            Rules::Mot15 => Benchmark::Mot15,
            Rules::Mot16 => Benchmark::Mot16,
            Rules::Mot17 => Benchmark::Mot17,
            Rules::Mot20 => Benchmark::Mot20,
        }
    }
}

/// The folders in `dir` that hold ground truth, by name.
///
/// # Errors
/// When it cannot be read or holds none.
pub fn sequences(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read the folder {}", dir.display()))?;
    let mut sequences: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.join("gt/gt.txt").is_file()).collect();
    sequences.sort();
    if sequences.is_empty() {
        return Err(EvalError::Layout(format!("{} holds no sequence (a folder with gt/gt.txt and seqinfo.ini)", dir.display())).into());
    }
    Ok(sequences)
}

/// Evaluates; returns what is to be printed.
///
/// # Errors
/// When a folder holds no sequences, or a file is missing or malformed.
pub fn run(args: &EvalArgs) -> Result<String> {
    let benchmark = args.benchmark.into();
    let sequences = sequences(&args.gt)?;
    let mut counts = Vec::new();
    let mut rows: Vec<Scores> = Vec::new();
    for dir in &sequences {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let s = Sequence::read(dir, &args.results.join(format!("{name}.txt")), benchmark)?;
        counts.push(score(&s));
        rows.push(counts[counts.len() - 1].scores(&s.name));
    }
    rows.push(combine(&counts).scores("COMBINED"));
    Ok(if args.json { serde_json::to_string_pretty(&rows)? } else { table(&rows).trim_end().to_string() })
}
