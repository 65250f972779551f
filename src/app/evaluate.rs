//! `twintrack eval`: HOTA, CLEAR MOT and identity measures of results against ground truth.

use std::path::PathBuf;

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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Rules {
    Mot15,
    Mot16,
    Mot17,
    Mot20,
}

/// Evaluates; returns what is to be printed.
///
/// # Errors
/// When a folder holds no sequences, or a file is missing or malformed.
pub fn run(args: &EvalArgs) -> Result<String> {
    let benchmark = match args.benchmark {
        Rules::Mot15 => Benchmark::Mot15,
        Rules::Mot16 => Benchmark::Mot16,
        Rules::Mot17 => Benchmark::Mot17,
        Rules::Mot20 => Benchmark::Mot20,
    };
    let entries = std::fs::read_dir(&args.gt).with_context(|| format!("cannot read the folder {}", args.gt.display()))?;
    let mut sequences: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.join("gt/gt.txt").is_file()).collect();
    sequences.sort();
    if sequences.is_empty() {
        return Err(EvalError::Layout(format!("{} holds no sequence (a folder with gt/gt.txt and seqinfo.ini)", args.gt.display())).into());
    }
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
