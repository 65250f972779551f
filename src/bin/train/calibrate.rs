//! `twintrack-train calibrate`: what the distances of any ONNX embedder mean, written into a copy of its file.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use twintrack::app::{outputs, settings};
use twintrack::embed::{Embedder, EmbedderConfig};
use twintrack::infer::InputSize;
use twintrack::infer::paths::with_folder;
use twintrack::onnx::metadata::with_metadata;
use twintrack::track::similarity::{Calibration, StrangerTable};
use twintrack::train::calibrate::{Fitted, Judged, fit, report};
use twintrack::train::graph::write::format_entries;
use twintrack::train::readers::DataSpec;
use twintrack::train::retrieval::embeddings;

use super::judge::open_as;

/// Measure what the distances of an ONNX embedder mean, on people it has not learnt from, and write it into a copy of its file.
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// The ONNX file as a path (./mine.onnx), or the name of one in the `models` folders or that
    /// `twintrack models get` has downloaded; that of --config, else the shipped siamese.onnx, when
    /// not given.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The tracker's configuration (TOML), of which [embedder] counts: size and pixels of a network made elsewhere. They are written too.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Who is who, KIND:WHERE as for training; several sets, unlike what the network has learnt from. Of a video only people seen in
    /// one frame count as strangers.
    #[arg(long, value_name = "KIND:WHERE", required = true, num_args = 1..)]
    data: Vec<DataSpec>,
    /// More sets for the table of how often strangers are alike, of which the worst counts at each distance; the similarity is not
    /// fitted to them.
    #[arg(long, value_name = "KIND:WHERE", num_args = 1..)]
    strangers: Vec<DataSpec>,
    /// Only judge the calibration on these, to see how far it carries; nothing is fitted to them.
    #[arg(long, value_name = "KIND:WHERE", num_args = 1..)]
    test: Vec<DataSpec>,
    /// The copy to write. Without it nothing is written.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Seed of what is drawn.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs the command; returns what to print.
pub fn run(args: &CalibrateArgs) -> Result<String> {
    let mut config = settings::read(args.config.as_deref())?.embedder;
    config.model = args.model.clone().unwrap_or(config.model);
    let mut embedder = open_as(&config)?;
    let original = embedder.model().path().to_path_buf();
    let same = |output: &PathBuf| {
        output
            .canonicalize()
            .ok()
            .zip(original.canonicalize().ok())
            .is_some_and(|(a, b)| a == b)
    };
    if args.output.as_ref().is_some_and(same) {
        bail!(
            "cannot write to {}: it is the network itself; give the copy another name",
            original.display()
        );
    }
    outputs::prepare(&args.output, &[])?;
    let mut judge = |spec: &DataSpec| {
        let set = spec.read(args.seed)?;
        eprintln!(
            "{}: {} pictures of {} people",
            set.name,
            set.crops.len(),
            set.identities
        );
        let judged = Judged::of(&set, embeddings(&mut embedder, &set.crops)?.view());
        judged.with_context(|| {
            format!(
                "{}: it needs pictures of one person and of two that may be compared",
                set.name
            )
        })
    };
    let sets = args
        .data
        .iter()
        .map(&mut judge)
        .collect::<Result<Vec<Judged>>>()?;
    let strangers = args
        .strangers
        .iter()
        .map(&mut judge)
        .collect::<Result<Vec<Judged>>>()?;
    let tests = args
        .test
        .iter()
        .map(&mut judge)
        .collect::<Result<Vec<Judged>>>()?;
    let fitted = fit(&sets, &strangers).context("there are no pairs to calibrate on")?;
    let names: Vec<String> = sets
        .iter()
        .chain(&strangers)
        .map(|s| s.name.clone())
        .collect();
    let others: Vec<Judged> = strangers.into_iter().chain(tests).collect();
    let mut out = report(&sets, &others, &fitted);
    if let Some(output) = &args.output {
        let entries = entries(&embedder, &config, &fitted, &names.join(", "));
        let file = std::fs::read(&original)
            .with_context(|| format!("cannot read {}", original.display()))?;
        let copy = with_metadata(&file, &entries)
            .map_err(|e| anyhow::anyhow!("cannot calibrate {}: {e}", original.display()))?;
        write(output, &copy)?;
        let written = open_as(&EmbedderConfig {
            model: with_folder(output),
            calibration: None,
            strangers: None,
            ..config
        })?;
        if written.calibration() != Some(fitted.calibration)
            || written.strangers() != fitted.strangers
        {
            bail!(
                "{} does not say what was written into it. This is a bug, please report it",
                output.display()
            );
        }
        out += &format!("written: {}\n", output.display());
    }
    Ok(out)
}

/// The metadata to write: the calibration, and what a file made elsewhere does not say of itself.
fn entries(
    embedder: &Embedder,
    config: &EmbedderConfig,
    fitted: &Fitted,
    sets: &str,
) -> Vec<(String, String)> {
    let metadata = embedder.model().metadata();
    let mut entries = vec![(Calibration::KEY.to_string(), fitted.calibration.entry())];
    // A table of an earlier calibration does not stay behind.
    entries.push((
        StrangerTable::KEY.to_string(),
        fitted
            .strangers
            .as_ref()
            .map_or_else(String::new, StrangerTable::to_string),
    ));
    entries.push(("calibrated_on".into(), sets.into()));
    entries.extend(
        metadata
            .get("kind")
            .is_none()
            .then(|| ("kind".into(), "embedder".into())),
    );
    entries.extend(
        metadata
            .get("name")
            .is_none()
            .then(|| ("name".into(), embedder.name())),
    );
    entries.extend(config.pixels.iter().flat_map(format_entries));
    if let InputSize::Fixed(w, h) = config.size {
        entries.push(("size".into(), format!("{w}x{h}")));
    }
    entries
}

/// Writes the whole file or nothing.
fn write(output: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let mut part = output.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, output));
    if written.is_err() {
        // What remains of it is of no use to anybody.
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(|| format!("cannot write {}", output.display()))
}
