//! The command line of twintrack-train.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use burn::backend::{Autodiff, Flex};
use clap::{Args, Parser, Subcommand};
use ndarray::{Array2, Array4, Axis};
use twintrack::infer::tensor::write_crop;
use twintrack::infer::{Device, Model, Runtime, SessionOptions};
use twintrack::train::calibrate::calibrate;
use twintrack::train::dataset::{Dataset, TrainError};
use twintrack::train::export::{About, export};
use twintrack::train::learner::{self, TrainConfig, labels, split};
use twintrack::train::network::{HEIGHT, WIDTH};
use twintrack::train::readers::DataSpec;
use twintrack::train::retrieval::{Pairs, distances, one_shot, retrieval};

type Cpu = Autodiff<Flex>;
/// Equal errors at a cosine distance below this mean that the network maps everybody to one point.
const COLLAPSED: f32 = 0.02;

/// Train the Siamese network of twintrack, judge it, export it.
#[derive(Debug, Parser)]
#[command(name = "twintrack-train", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(RunArgs),
    Eval(EvalArgs),
    /// Print the training configuration with all its defaults (TOML).
    Config,
}

/// Train, calibrate and export.
#[derive(Debug, Args)]
struct RunArgs {
    /// What to learn from, KIND:WHERE: folders, market, msmt17, viper, mot, video, synthetic (docs/training.md).
    #[arg(long, value_name = "KIND:WHERE", num_args = 1..)]
    data: Vec<DataSpec>,
    /// Learn from a video without labels (the same as --data video:FILE[#FIRST-LAST]).
    #[arg(long, value_name = "FILE")]
    from_video: Vec<String>,
    /// Training configuration (TOML); `twintrack-train config` prints the defaults.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Steps instead of the configuration's.
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Seed instead of the configuration's.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// The network to write.
    #[arg(short, long, value_name = "FILE", default_value = "siamese.onnx")]
    output: PathBuf,
    /// Folder of checkpoints and curves.
    #[arg(long, value_name = "DIR", default_value = "out/train")]
    work: PathBuf,
    /// Go on from the last checkpoint in --work.
    #[arg(long)]
    resume: bool,
    /// Licence of the weights, for the file's metadata.
    #[arg(long, value_name = "TEXT", default_value = "as the training data allow")]
    licence: String,
}

/// Judge an ONNX embedder: retrieval, verification, one-shot identification.
#[derive(Debug, Args)]
struct EvalArgs {
    /// The ONNX file.
    #[arg(long, value_name = "FILE", default_value = "siamese.onnx")]
    model: PathBuf,
    /// Who is who, KIND:WHERE as for training.
    #[arg(long, value_name = "KIND:WHERE", required = true, num_args = 1..)]
    data: Vec<DataSpec>,
    /// People to choose among in one-shot identification.
    #[arg(long, value_name = "N", default_value_t = 10)]
    ways: usize,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_writer(std::io::stderr).with_target(false).init();
    let done = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Eval(args) => eval(&args),
        Command::Config => toml::to_string(&TrainConfig::default()).map_err(Into::into),
    };
    match done {
        Ok(text) => {
            use std::io::Write as _;
            // A reader who has gone is no error.
            let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("error: {e:#}");
            ExitCode::FAILURE
        }
    }
}

fn read_config(path: Option<&Path>) -> Result<TrainConfig> {
    let Some(path) = path else { return Ok(TrainConfig::default()) };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text).with_context(|| format!("{} is not a training configuration", path.display()))
}

fn run(args: &RunArgs) -> Result<String> {
    let mut config = read_config(args.config.as_deref())?;
    config.steps = args.steps.unwrap_or(config.steps);
    config.seed = args.seed.unwrap_or(config.seed);
    config.validate()?;
    let videos = args.from_video.iter().map(|v| format!("video:{v}").parse::<DataSpec>().map_err(anyhow::Error::msg));
    let specs: Vec<DataSpec> = args.data.iter().cloned().map(Ok).chain(videos).collect::<Result<_>>()?;
    if specs.is_empty() {
        bail!("nothing to learn from: give --data KIND:WHERE or --from-video FILE; --data synthetic:1000 needs no files");
    }
    let sets = specs.iter().map(|s| s.read(config.seed)).collect::<Result<Vec<Dataset>, TrainError>>()?;
    for s in &sets {
        eprintln!("{}: {} pictures of {} people", s.name, s.crops.len(), s.identities);
    }
    let training_data = sets.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(", ");
    let (train, held) = split(sets, config.hold_out);
    let device = Default::default();
    let trained = learner::train::<Cpu>(&config, train, &held, &args.work, args.resume, &device, |line| eprintln!("{line}"))?;
    let mut pairs = Pairs::default();
    for set in &held {
        let e = learner::embed(&trained.tower, &set.crops.iter().collect::<Vec<_>>(), &device);
        let more = Pairs::of(&distances(e.view()), &labels(&set.crops), set.protocol, |a, b| set.different(a, b));
        pairs.same.extend(more.same);
        pairs.different.extend(more.different);
    }
    let calibration = calibrate(&pairs.sorted());
    if calibration.is_none() {
        eprintln!("no data set has 20 identities, so nobody was held out and the similarity is not calibrated");
    }
    if calibration.is_some_and(|c| c.threshold < COLLAPSED) {
        eprintln!(
            "warning: even strangers held out lie closer than {COLLAPSED} together: the embeddings have collapsed. Try --config with a lower learning_rate, or loss = \"contrastive\""
        );
    }
    let about = About { name: "tiny".into(), training_data, licence: args.licence.clone(), calibration };
    let difference = export(&trained.tower, &about, &args.output, &device)?;
    Ok(format!("{}: {:.0} images/s, differs from the training framework by {difference:.1e}", args.output.display(), trained.speed))
}

fn eval(args: &EvalArgs) -> Result<String> {
    let options = SessionOptions { device: Device::Auto, threads: std::thread::available_parallelism().map_or(1, |n| n.get()) };
    let mut model = Model::open(&Runtime::load()?, &args.model, options)?;
    let format = model.metadata().pixel_format().context("the file does not say its pixel format (twintrack.color, twintrack.mean, twintrack.std)")?;
    let mut out = String::from("data                                 queries   mAP  rank-1 rank-5 rank-10    EER  TAR@1%  TAR@0.1%  one-shot\n");
    for spec in &args.data {
        let set = spec.read(1)?;
        let (h, w) = match model.dims() {
            [_, _, Some(h), Some(w)] => (h, w),
            _ => (HEIGHT, WIDTH),
        };
        let mut parts: Vec<Array2<f32>> = Vec::new();
        for part in set.crops.chunks(32) {
            let mut batch = Array4::zeros((part.len(), 3, h, w));
            for (mut to, crop) in batch.axis_iter_mut(Axis(0)).zip(part) {
                write_crop(&crop.image, &crop.person, &format, to.view_mut());
            }
            let output = model.run(batch.view())?.into_iter().next().context("the model has no output")?;
            parts.push(output.values.into_dimensionality().context("the output is not [N, D]")?);
        }
        let all = ndarray::concatenate(Axis(0), &parts.iter().map(|p| p.view()).collect::<Vec<_>>())?;
        let (d, l) = (distances(all.view()), labels(&set.crops));
        let r = retrieval(&d, &l, set.protocol)
            .with_context(|| format!("{}: nobody can be found again: no identity has two pictures that may be compared", set.name))?;
        let pairs = Pairs::of(&d, &l, set.protocol, |a, b| set.different(a, b));
        let (eer, limit) = pairs.equal_error().with_context(|| format!("{}: there are no pairs of two people", set.name))?;
        let shot = one_shot(&d, &l, set.protocol, args.ways, 2000, 1);
        let percent = |v: f64| format!("{:.1}", 100.0 * v);
        let shot = shot.map_or("too few people".into(), percent);
        let [r1, r5, r10] = r.rank.map(percent);
        let (one, tenth) = (percent(pairs.true_accepts_at(0.01)), percent(pairs.true_accepts_at(0.001)));
        writeln!(out, "{:36} {:7} {:>5} {r1:>7} {r5:>6} {r10:>7} {:>6} {one:>7} {tenth:>9} {shot:>9}", set.name, r.queries, percent(r.map), percent(eer))?;
        writeln!(out, "  equal errors at cosine distance {limit:.3}; the file's calibration: {}", model.metadata().get("calibration").unwrap_or("none"))?;
    }
    Ok(out)
}
