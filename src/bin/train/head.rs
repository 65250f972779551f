//! `twintrack-train head`: trains an association head.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use twintrack::track::head::AssociationHead;
use twintrack::train::association;
use twintrack::train::error::TrainError;
use twintrack::train::readers::DataSpec;

use crate::{outputs, settings};

/// Train an association head: decision trees that estimate from appearance, position, size and time
/// whether a track and a detection are the same person.
#[derive(Debug, Args)]
pub struct HeadArgs {
    /// Labelled frames: video:FILE, mot:DIR (with det/det.txt), synthetic:SCENES.
    #[arg(long, value_name = "KIND:WHERE", required = true, num_args = 1..)]
    data: Vec<DataSpec>,
    /// Labelled frames to evaluate on instead of a fifth of the pairs of --data, KIND:WHERE.
    #[arg(long, value_name = "KIND:WHERE", num_args = 1..)]
    test: Vec<DataSpec>,
    /// Configuration (TOML) of the tracker that will use the head, of which the motion model, the
    /// detector and the embedder are used.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Number of trees.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 60,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    trees: u16,
    /// Seed of random numbers.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write the head (JSON) to this file, for tracker.head_file.
    #[arg(
        short,
        long,
        value_name = "FILE",
        default_value = "association_head.json"
    )]
    output: PathBuf,
}

/// Runs the command; returns the text to print.
pub fn head(args: &HeadArgs) -> Result<String> {
    outputs::prepare([&args.output], args.config.as_slice())?;
    let config = settings::read(args.config.as_deref())?;
    let collect = |specs: &[DataSpec], seed: u64| {
        let mut pairs = association::TrainingPairs::default();
        for spec in specs {
            spec.scenes(&config, seed)?
                .iter()
                .for_each(|scene| pairs.collect(scene, &config.tracker));
        }
        Ok::<_, TrainError>(pairs)
    };
    let all = collect(&args.data, args.seed)?;
    let (rest, held) = if args.test.is_empty() {
        all.hold_out(5)
    } else {
        (all, collect(&args.test, args.seed.wrapping_add(1))?)
    };
    let count =
        |p: &association::TrainingPairs| (p.same.len(), p.same.iter().filter(|s| **s).count());
    let ((n, same), (held_n, held_same)) = (count(&rest), count(&held));
    eprintln!(
        "training on {n} pairs, {same} of the same person; evaluating on {held_n}, {held_same} of \
         the same person"
    );
    let table = rest.train(usize::from(args.trees), args.seed)?;
    let head = AssociationHead::new(&table)?;
    let evaluated = association::evaluate(
        &held.features.iter().map(|f| head.of(f)).collect::<Vec<_>>(),
        &held.same,
    );
    let (loss, area) = evaluated.context(
        "cannot evaluate the head: the pairs for evaluation are all of the same person, or all of \
         different people; use more data",
    )?;
    std::fs::write(&args.output, serde_json::to_string(&table)?)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    let nodes: usize = table.trees.iter().map(Vec::len).sum();
    Ok(format!(
        "{}: {} trees, {nodes} nodes; log loss {loss:.4}, area under the ROC curve {area:.5}",
        args.output.display(),
        table.trees.len()
    ))
}
