//! `twintrack-train eval`: how good an embedder is, or the pixels themselves.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use twintrack::app::settings;
use twintrack::embed::{Embedder, EmbedderConfig};
use twintrack::infer::{Device, InputSize, Runtime, SessionOptions};
use twintrack::train::calibrate::calibrate;
use twintrack::train::dataset::Crop;
use twintrack::train::learner::labels;
use twintrack::train::readers::DataSpec;
use twintrack::train::retrieval::{Pairs, distances, embeddings, one_shot, pixels, retrieval};

/// So many one-shot trials for each number of ways: the standard error of a share is then at most half a percent.
const TRIALS: usize = 10_000;

/// Judge an ONNX embedder: retrieval, verification, one-shot identification.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// The ONNX file as a path (./mine.onnx), or the name of one in the `models` folders or that
    /// `twintrack models get` has downloaded; that of --config, else the shipped siamese.onnx, when
    /// not given.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The tracker's configuration (TOML), of which [embedder] counts: size and pixels of a network made elsewhere.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Judge the pixels of the pictures, brought to this size, instead of a network: the baseline that a network must beat.
    #[arg(long, value_name = "WIDTHxHEIGHT", conflicts_with_all = ["model", "config"])]
    pixels: Option<InputSize>,
    /// Who is who, KIND:WHERE as for training.
    #[arg(long, value_name = "KIND:WHERE", required = true, num_args = 1..)]
    data: Vec<DataSpec>,
    /// Identities to choose among in one-shot identification; several numbers give several columns.
    #[arg(long, value_name = "N", num_args = 1.., default_values_t = [10])]
    ways: Vec<usize>,
}

/// What is judged.
enum Judged {
    Network(Box<Embedder>),
    /// Width and height.
    Pixels(usize, usize),
}

/// Opens an embedder by its file, with all cores.
pub fn open(model: &Path) -> Result<Embedder> {
    open_as(&EmbedderConfig {
        model: model.into(),
        ..EmbedderConfig::default()
    })
}

/// Opens an embedder as its section of a configuration says.
pub fn open_as(config: &EmbedderConfig) -> Result<Embedder> {
    let options = SessionOptions {
        device: Device::Auto,
        threads: std::thread::available_parallelism().map_or(1, |n| n.get()),
    };
    Ok(Embedder::open(&Runtime::load()?, config, options)?)
}

impl EvalArgs {
    fn open(&self) -> Result<Judged> {
        match self.pixels {
            Some(InputSize::Fixed(w, h)) => return Ok(Judged::Pixels(w, h)),
            Some(InputSize::Auto) => bail!("--pixels needs a size, WIDTHxHEIGHT as 32x32"),
            None => {}
        }
        let mut config = settings::read(self.config.as_deref())?.embedder;
        config.model = self.model.clone().unwrap_or(config.model);
        Ok(Judged::Network(Box::new(open_as(&config)?)))
    }
}

impl Judged {
    /// Unit rows [n, D].
    fn embed(&mut self, crops: &[Crop]) -> Result<ndarray::Array2<f32>> {
        match self {
            Judged::Network(embedder) => Ok(embeddings(embedder, crops)?),
            Judged::Pixels(w, h) => Ok(pixels(crops, (*w, *h))),
        }
    }
}

/// Runs the command; returns what to print.
pub fn eval(args: &EvalArgs) -> Result<String> {
    if let Some(few) = args.ways.iter().find(|w| **w < 2) {
        bail!("--ways {few}: one-shot identification chooses among at least 2 identities");
    }
    let mut judged = args.open()?;
    let mut out = String::from(
        "data                                 queries   mAP  rank-1 rank-5 rank-10    EER  TAR@1%  TAR@0.1%",
    );
    args.ways
        .iter()
        .try_for_each(|w| write!(out, " {:>8}", format!("{w}-way")))?;
    out.push('\n');
    for spec in &args.data {
        let set = spec.read(1)?;
        let all = judged.embed(&set.crops)?;
        let (d, l) = (distances(all.view()), labels(&set.crops));
        let r = retrieval(&d, &l, set.protocol).with_context(|| {
            format!(
                "{}: nobody can be found again: no identity has two pictures that may be compared",
                set.name
            )
        })?;
        let pairs = Pairs::of(&d, &l, set.protocol, |a, b| set.different(a, b));
        let (eer, limit) = pairs
            .equal_error()
            .with_context(|| format!("{}: there are no pairs of two people", set.name))?;
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
            "\n  one-shot: {TRIALS} trials over {} identities; equal errors at cosine distance {limit:.3}",
            set.identities
        )?;
        if let Judged::Network(embedder) = &judged {
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
