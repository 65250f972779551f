//! `twintrack-train eval`: evaluates an embedder, or raw pixels as a baseline.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::settings;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use twintrack::embed::{Embedder, EmbedderConfig};
use twintrack::infer::{Device, InputSize, Runtime, SessionOptions};
use twintrack::train::calibrate::calibrate;
use twintrack::train::dataset::Crop;
use twintrack::train::embed::labels;
use twintrack::train::readers::DataSpec;
use twintrack::train::retrieval::{
    PairDistances, distances, embeddings, one_shot, pixels, retrieval,
};

/// One-shot trials per number of ways; the standard error of a rate is then at most half a
/// percentage point.
const TRIALS: usize = 10_000;

/// Evaluate an ONNX embedder: retrieval (mAP, rank), verification (error rates) and one-shot
/// identification.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// ONNX file of the embedder: a path (./mine.onnx), the name of a file in a `models` folder, or
    /// the name of an installed network (`twintrack models list`); by default the network in
    /// --config, else the shipped siamese.onnx.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The tracker's configuration (TOML), of which [embedder] is used: input size and pixel format
    /// of a third-party network.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Evaluate the pixels of the pictures, resized to this size in pixels, instead of a network:
    /// the baseline that a network must exceed.
    #[arg(long, value_name = "WIDTHxHEIGHT", conflicts_with_all = ["model", "config"])]
    pixels: Option<InputSize>,
    /// Labelled data, KIND:WHERE as for training.
    #[arg(long, value_name = "KIND:WHERE", required = true, num_args = 1..)]
    data: Vec<DataSpec>,
    /// Number, at least 2, of identities to choose from in a one-shot trial; several numbers give
    /// several columns.
    #[arg(long, value_name = "N", num_args = 1.., default_values_t = [10])]
    ways: Vec<usize>,
}

/// The network or the pixels that are evaluated.
enum Subject {
    Network(Box<Embedder>),
    /// Width and height.
    Pixels(usize, usize),
}

/// Opens an embedder file, using all cores.
pub fn open(model: &Path) -> Result<Embedder> {
    open_as(&EmbedderConfig::default().with_model(model.into()))
}

/// Opens an embedder with the given configuration, using all cores.
pub fn open_as(config: &EmbedderConfig) -> Result<Embedder> {
    let options = SessionOptions::new(
        Device::Auto,
        std::thread::available_parallelism().map_or(1, |n| n.get()),
    );
    Ok(Embedder::open(&Runtime::load()?, config, options)?)
}

impl EvalArgs {
    fn open(&self) -> Result<Subject> {
        match self.pixels {
            Some(InputSize::Fixed(w, h)) => return Ok(Subject::Pixels(w, h)),
            Some(InputSize::Auto) => {
                bail!("--pixels needs a size, WIDTHxHEIGHT, for example 32x32")
            }
            None => {}
        }
        let mut config = settings::read(self.config.as_deref())?.embedder;
        config.model = self.model.clone().unwrap_or(config.model);
        Ok(Subject::Network(Box::new(open_as(&config)?)))
    }
}

impl Subject {
    /// The embeddings of crops: [n, D], unit rows.
    fn embed(&mut self, crops: &[Crop]) -> Result<ndarray::Array2<f32>> {
        match self {
            Subject::Network(embedder) => Ok(embeddings(embedder, crops)?),
            Subject::Pixels(w, h) => Ok(pixels(crops, (*w, *h))),
        }
    }
}

/// Runs the command; returns the text to print.
pub fn eval(args: &EvalArgs) -> Result<String> {
    if let Some(few) = args.ways.iter().find(|w| **w < 2) {
        bail!("--ways {few}: one-shot identification chooses among at least 2 identities");
    }
    let mut subject = args.open()?;
    let mut out = String::from(
        "data                                 queries   mAP  rank-1 rank-5 rank-10    EER  TAR@1%  \
         TAR@0.1%",
    );
    args.ways
        .iter()
        .try_for_each(|w| write!(out, " {:>8}", format!("{w}-way")))?;
    out.push('\n');
    for spec in &args.data {
        let set = spec.read(1)?;
        let all = subject.embed(&set.crops)?;
        let (d, l) = (distances(all.view()), labels(&set.crops));
        let r = retrieval(&d, &l, set.protocol).with_context(|| {
            format!(
                "{}: no identity has two pictures that may be compared",
                set.name
            )
        })?;
        let pairs = PairDistances::of(&d, &l, set.protocol, |a, b| set.different(a, b));
        let (eer, limit) = pairs
            .equal_error()
            .with_context(|| format!("{}: there are no pairs of different people", set.name))?;
        let percent = |v: f64| format!("{:.1}", 100.0 * v);
        let [r1, r5, r10] = r.rank.map(percent);
        let (one, tenth) = (
            percent(pairs.true_accepts_at(0.01)),
            percent(pairs.true_accepts_at(0.001)),
        );
        write!(
            out,
            "{:36} {:7} {:>5} {r1:>7} {r5:>6} {r10:>7} {:>6} {one:>7} {tenth:>9}",
            set.name,
            r.queries,
            percent(r.map),
            percent(eer)
        )?;
        for &ways in &args.ways {
            let shot = one_shot(&d, &l, set.protocol, ways, TRIALS, 1);
            write!(out, " {:>8}", shot.map_or("too few".into(), percent))?;
        }
        write!(
            out,
            "\n  one-shot: {TRIALS} trials over {} identities; equal error rate at cosine distance \
             {limit:.3}",
            set.identities
        )?;
        if let Subject::Network(embedder) = &subject {
            let entry = |c: Option<twintrack::track::similarity::Calibration>| {
                c.map_or_else(|| "none".into(), |c| c.entry())
            };
            let (fitted, used) = (entry(calibrate(&pairs)), entry(embedder.calibration()));
            write!(
                out,
                "; fitted calibration (slope, threshold): {fitted}; the one in use: {used}"
            )?;
        }
        out.push('\n');
    }
    Ok(out)
}
