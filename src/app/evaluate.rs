//! `twintrack eval`: HOTA, CLEAR MOT and identity measures of results against ground truth.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::app::options::Rules;
use crate::app::sequences;
use twintrack::eval::report::table;
use twintrack::eval::{EvalError, Scores, Sequence, combine, score};
use twintrack::mot_files;
use twintrack::mot_format::Known;

/// Evaluate results against ground truth: HOTA, MOTA, IDF1 and related metrics.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Folder of sequences, each with gt/gt.txt and seqinfo.ini; or one such sequence.
    #[arg(long, value_name = "DIR")]
    gt: PathBuf,
    /// Folder of results in MOTChallenge format, named <sequence>.txt; or, for one sequence, its
    /// result file. Sequences without a result are reported and left out.
    #[arg(long, value_name = "PATH")]
    results: PathBuf,
    /// Benchmark whose rules apply: which classes are evaluated, and which are distractors.
    #[arg(long, value_enum, default_value_t = Rules::Mot17)]
    benchmark: Rules,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the command; returns the text to print.
///
/// # Errors
/// When a folder has no sequences or results, or a file is missing or malformed.
pub fn run(args: &EvalArgs) -> Result<String> {
    let mut counts = Vec::new();
    let mut rows: Vec<Scores> = Vec::new();
    for (dir, result) in pairs(args)? {
        let truth = sequences::read(&dir, Known::default(), args.benchmark.into())?;
        let reported = mot_files::read_rows(&result)?;
        truth.warn_beyond("results", &reported);
        if reported.is_empty() {
            tracing::warn!(sequence = %truth.name, file = %result.display(), "the results have no rows");
        }
        let s = Sequence::align(
            &truth.name,
            truth.info.length,
            &truth.rows,
            &reported,
            args.benchmark.into(),
        )?;
        counts.push(score(&s));
        rows.push(counts[counts.len() - 1].scores(&s.name));
    }
    rows.push(combine(&counts).scores("COMBINED"));
    Ok(if args.json {
        serde_json::to_string_pretty(&rows)?
    } else {
        table(&rows).trim_end().to_string()
    })
}

/// Pairs of a sequence's folder and its result file. Warns of sequences without a result.
fn pairs(args: &EvalArgs) -> Result<Vec<(PathBuf, PathBuf)>> {
    let dirs = sequences::find(&args.gt)?;
    if let ([dir], true) = (dirs.as_slice(), args.results.is_file()) {
        return Ok(vec![(dir.clone(), args.results.clone())]);
    }
    let result = |dir: PathBuf| {
        let dir = dir.canonicalize().unwrap_or(dir);
        let name = dir
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let file = args.results.join(format!("{name}.txt"));
        (dir, file)
    };
    let (found, missing): (Vec<_>, Vec<_>) = dirs
        .into_iter()
        .map(result)
        .partition(|(_, file)| file.is_file());
    let names: Vec<String> = missing
        .iter()
        .map(|(_, file)| file.display().to_string())
        .collect();
    if found.is_empty() {
        return Err(EvalError::Layout(format!(
            "no sequence has a result: {} not found",
            names.join(", ")
        ))
        .into());
    }
    if !missing.is_empty() {
        tracing::warn!(
            sequences = missing.len(),
            "left out sequences without a result: {}",
            names.join(", ")
        );
    }
    Ok(found)
}
