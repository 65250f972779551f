//! `twintrack-train calibrate`: calibrates the distances of an ONNX embedder and writes the result
//! into a copy of its file.

use std::path::PathBuf;

use crate::{outputs, settings};
use anyhow::{Context as _, Result, bail};
use clap::Args;
use twintrack::embed::{Embedder, EmbedderConfig};
use twintrack::infer::InputSize;
use twintrack::infer::paths::in_working_folder;
use twintrack::onnx::metadata::with_metadata;
use twintrack::track::similarity::{Calibration, StrangerTable};
use twintrack::train::calibrate::{EvaluatedSet, FittedCalibration, fit, report};
use twintrack::train::graph::write::pixel_format_entries;
use twintrack::train::readers::DataSpec;
use twintrack::train::retrieval::embeddings;

use super::evaluate::open_as;

/// Calibrate the distances of an ONNX embedder on people it was not trained on, and write the
/// result into a copy of its file.
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// ONNX file of the embedder: a path (./mine.onnx), the name of a file in a `models` folder, or
    /// the name of an installed network (`twintrack models list`); by default the network in
    /// --config, else the shipped siamese.onnx.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The tracker's configuration (TOML), of which [embedder] is used: input size and pixel format
    /// of a third-party network. These settings are written into the copy too.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Labelled data, KIND:WHERE as for training; preferably several sets, with people on whom the
    /// network was not trained. In a video, two people count as strangers only if they appear
    /// together in at least one frame; their other pictures are then compared too.
    #[arg(long, value_name = "KIND:WHERE", required = true, num_args = 1..)]
    data: Vec<DataSpec>,
    /// More sets for the false-accept rates: at each distance, the highest rate of all sets is
    /// used. The similarity is not fitted to these sets.
    #[arg(long, value_name = "KIND:WHERE", num_args = 1..)]
    strangers: Vec<DataSpec>,
    /// Sets on which the calibration is only evaluated, not fitted: they show how well it
    /// generalises to other people.
    #[arg(long, value_name = "KIND:WHERE", num_args = 1..)]
    test: Vec<DataSpec>,
    /// Write the calibrated copy of the network to this file; without this option, the result is
    /// only printed.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Seed of random numbers.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

/// Runs the command; returns the text to print.
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
    let mut evaluate = |spec: &DataSpec| {
        let set = spec.read(args.seed)?;
        eprintln!(
            "{}: {} pictures of {} people",
            set.name,
            set.crops.len(),
            set.identities
        );
        let evaluated = EvaluatedSet::of(&set, embeddings(&mut embedder, &set.crops)?.view());
        evaluated.with_context(|| {
            format!(
                "{}: it has no two pictures of one person, or of two people, that may be compared \
                 (docs/guide/train.md says which may)",
                set.name
            )
        })
    };
    let sets = args
        .data
        .iter()
        .map(&mut evaluate)
        .collect::<Result<Vec<EvaluatedSet>>>()?;
    let strangers = args
        .strangers
        .iter()
        .map(&mut evaluate)
        .collect::<Result<Vec<EvaluatedSet>>>()?;
    let tests = args
        .test
        .iter()
        .map(&mut evaluate)
        .collect::<Result<Vec<EvaluatedSet>>>()?;
    let fitted = fit(&sets, &strangers).context("there are no pairs to calibrate on")?;
    let names: Vec<String> = sets
        .iter()
        .chain(&strangers)
        .map(|s| s.name.clone())
        .collect();
    let others: Vec<EvaluatedSet> = strangers.into_iter().chain(tests).collect();
    let mut out = report(&sets, &others, &fitted);
    if let Some(output) = &args.output {
        let entries = entries(&embedder, &config, &fitted, &names.join(", "));
        let file = std::fs::read(&original)
            .with_context(|| format!("cannot read {}", original.display()))?;
        let copy = with_metadata(&file, &entries)
            .map_err(|e| anyhow::anyhow!("cannot calibrate {}: {e}", original.display()))?;
        write(output, &copy)?;
        let written = open_as(
            &config
                .with_model(in_working_folder(output))
                .with_calibration(None)
                .with_strangers(None),
        )?;
        if written.calibration() != Some(fitted.calibration)
            || written.strangers() != fitted.strangers
        {
            bail!(
                "{} does not contain what was written into it. This is a bug, please report it",
                output.display()
            );
        }
        out += &format!("written: {}\n", output.display());
    }
    Ok(out)
}

/// The metadata to write: the calibration, and entries that a third-party file lacks.
fn entries(
    embedder: &Embedder,
    config: &EmbedderConfig,
    fitted: &FittedCalibration,
    sets: &str,
) -> Vec<(String, String)> {
    let metadata = embedder.model().metadata();
    let mut entries = vec![(Calibration::KEY.to_string(), fitted.calibration.entry())];
    // An empty entry removes the table of an earlier calibration.
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
    entries.extend(config.pixels.iter().flat_map(pixel_format_entries));
    if let InputSize::Fixed(w, h) = config.size {
        entries.push(("size".into(), format!("{w}x{h}")));
    }
    entries
}

/// Writes a temporary file and renames it, so that `output` is complete or absent.
fn write(output: &std::path::Path, bytes: &[u8]) -> Result<()> {
    let mut part = output.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = std::fs::write(&part, bytes).and_then(|()| std::fs::rename(&part, output));
    if written.is_err() {
        // An error of deleting the temporary file is ignored, because the original error is
        // reported.
        let _ = std::fs::remove_file(&part);
    }
    written.with_context(|| format!("cannot write {}", output.display()))
}
