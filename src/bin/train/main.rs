//! The program `twintrack-train`: its command line, and the commands `run` and `convert`.

mod bench;
mod calibrate;
mod device;
mod distil;
mod evaluate;
mod head;
#[path = "../../app/message.rs"]
mod message;
mod mirror;
#[path = "../../app/outputs.rs"]
mod outputs;
mod process;
#[path = "../../app/settings.rs"]
mod settings;
#[path = "../../app/telemetry.rs"]
mod telemetry;
mod walks;

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use burn::tensor::backend::AutodiffBackend;
use clap::{Args, Parser, Subcommand};
use twintrack::embed::Embedder;
use twintrack::infer::paths::{find_model, in_working_folder};
use twintrack::train::calibrate::{EvaluatedSet, fit, report};
use twintrack::train::config::TrainConfig;
use twintrack::train::convert::Precision;
use twintrack::train::dataset::{Crop, Dataset};
use twintrack::train::embed::{embed, labels};
use twintrack::train::error::TrainError;
use twintrack::train::export::{ExportMetadata, export};
use twintrack::train::kernels::backend::Kernels;
use twintrack::train::readers::DataSpec;
use twintrack::train::retrieval::{distances, embeddings, retrieval};
use twintrack::train::run::{self, TrainingData};
use twintrack::train::validation::split;

use device::{OnDevice, TrainDevice};
use evaluate::open;

/// Default output: a path with a slash, so that it is not interpreted as the name of an installed
/// network.
const TRAINED: &str = "./trained.onnx";
/// If the distance of the equal error rate is below this, the embeddings have collapsed to one
/// point.
const COLLAPSED: f32 = 0.02;

/// Train, evaluate, calibrate and convert the networks of twintrack.
#[derive(Debug, Parser)]
#[command(name = "twintrack-train", version, about, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(RunArgs),
    Bench(bench::BenchArgs),
    Distil(distil::DistilArgs),
    Eval(evaluate::EvalArgs),
    Calibrate(calibrate::CalibrateArgs),
    Convert(ConvertArgs),
    Mirror(mirror::MirrorArgs),
    Head(head::HeadArgs),
    Walks(walks::WalksArgs),
    /// Print the training configuration with all its defaults (TOML).
    Config,
}

/// Train an embedder on labelled data, calibrate it on held-out people, and export it to ONNX.
#[derive(Debug, Args)]
struct RunArgs {
    /// Training data, KIND:WHERE. KIND is folders, market, msmt17, viper, mot, video or synthetic;
    /// docs/guide/train.md describes WHERE for each.
    #[arg(long, value_name = "KIND:WHERE", num_args = 1..)]
    data: Vec<DataSpec>,
    /// Train on a video without labels (the same as --data video:FILE[#FIRST-LAST]).
    #[arg(long, value_name = "FILE")]
    from_video: Vec<String>,
    #[command(flatten)]
    training: TrainingArgs,
}

/// Options of training that `run` and `distil` share.
#[derive(Debug, Args)]
struct TrainingArgs {
    /// Training configuration (TOML); `twintrack-train config` prints the defaults.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Train this ONNX network further instead of a new one; overrides start_from in the
    /// configuration.
    #[arg(long, value_name = "FILE")]
    start_from: Option<PathBuf>,
    /// Number of training steps; overrides the configuration.
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Seed of all random numbers; overrides the configuration.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Write the network (ONNX) to this file; use it with `twintrack track --embedder
    /// ./trained.onnx`.
    #[arg(short, long, value_name = "FILE", default_value = TRAINED)]
    output: PathBuf,
    /// Folder for checkpoints and learning curves; created if missing.
    #[arg(long, value_name = "DIR", default_value = "out/train")]
    work: PathBuf,
    /// Resume from the last checkpoint in --work.
    #[arg(long)]
    resume: bool,
    /// For training on all people, which leaves none to calibrate on: copy the calibration from
    /// this network (ONNX), which must have been trained in the same way, but with held-out people.
    #[arg(long, value_name = "FILE")]
    calibrate_with: Option<PathBuf>,
    /// Device to train on: cpu; cuda if the program was built with --features train-cuda;
    /// torch-cuda or torch-cpu if it was built with --features train-torch.
    #[arg(long, value_enum, default_value_t = TrainDevice::Cpu)]
    device: TrainDevice,
    /// Licence of the weights, for the file's metadata.
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "as the training data allow"
    )]
    licence: String,
}

/// Convert an exported network to float16 or int8, and report the change in mAP.
#[derive(Debug, Args)]
struct ConvertArgs {
    /// The float32 network, written by `twintrack-train run`. An ONNX file: a path, or the name of
    /// a file in a `models` folder.
    #[arg(long, value_name = "FILE", default_value = TRAINED)]
    model: PathBuf,
    /// Number format: fp16 or int8.
    #[arg(long, value_name = "FORMAT", value_parser = parse_precision)]
    precision: Precision,
    /// Labelled data, KIND:WHERE as for training. The ranges of activations are measured on its
    /// crops (int8), and without --test mAP is evaluated on it.
    #[arg(long, value_name = "KIND:WHERE", required = true, num_args = 1..)]
    data: Vec<DataSpec>,
    /// Labelled data, KIND:WHERE, to evaluate mAP on instead of on --data.
    #[arg(long, value_name = "KIND:WHERE", num_args = 1..)]
    test: Vec<DataSpec>,
    /// Write the converted network (ONNX) to this file.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

fn parse_precision(s: &str) -> Result<Precision, String> {
    match s {
        "fp16" => Ok(Precision::Fp16),
        "int8" => Ok(Precision::Int8),
        _ => Err("use fp16 or int8".into()),
    }
}

fn main() -> ExitCode {
    process::prepare();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::WARN)
        .with_writer(std::io::stderr)
        .with_target(false)
        .init();
    let done = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Bench(args) => bench::bench(&args),
        Command::Distil(args) => distil::distil(&args),
        Command::Eval(args) => evaluate::eval(&args),
        Command::Calibrate(args) => calibrate::run(&args),
        Command::Convert(args) => convert(&args),
        Command::Mirror(args) => mirror::run(&args),
        Command::Head(args) => head::head(&args),
        Command::Walks(args) => walks::walks(&args),
        Command::Config => toml::to_string(&TrainConfig::default()).map_err(Into::into),
    };
    match done {
        Ok(text) => {
            use std::io::Write as _;
            if !text.is_empty() {
                // A closed pipe is not an error.
                let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
            }
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("error: {}", message::message(&e));
            ExitCode::FAILURE
        }
    }
}

fn read_config(path: Option<&Path>) -> Result<TrainConfig> {
    let Some(path) = path else {
        return Ok(TrainConfig::default());
    };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    toml::from_str(&text)
        .with_context(|| format!("invalid training configuration {}", path.display()))
}

impl TrainingArgs {
    /// The configuration with the overrides of the command line.
    fn config(&self) -> Result<TrainConfig> {
        let mut config = read_config(self.config.as_deref())?;
        config.steps = self.steps.unwrap_or(config.steps);
        config.seed = self.seed.unwrap_or(config.seed);
        config.start_from = self
            .start_from
            .clone()
            .or(config.start_from)
            .map(|p| find_model(&p))
            .transpose()?;
        config.fill_start_pixels()?;
        config.validate()?;
        Ok(config)
    }
}

fn run(args: &RunArgs) -> Result<String> {
    let config = args.training.config()?;
    outputs::prepare([&args.training.output], args.training.start_from.as_slice())?;
    let videos = args.from_video.iter().map(|v| {
        format!("video:{v}")
            .parse::<DataSpec>()
            .map_err(anyhow::Error::msg)
    });
    let specs: Vec<DataSpec> = args
        .data
        .iter()
        .cloned()
        .map(Ok)
        .chain(videos)
        .collect::<Result<_>>()?;
    if specs.is_empty() {
        bail!(
            "no training data: give --data KIND:WHERE or --from-video FILE; --data \
             synthetic:1000 needs no files"
        );
    }
    let sets = specs
        .iter()
        .map(|s| s.read(config.seed))
        .collect::<Result<Vec<Dataset>, TrainError>>()?;
    for s in &sets {
        eprintln!(
            "{}: {} pictures of {} people",
            s.name,
            s.crops.len(),
            s.identities
        );
    }
    let training_data = sets
        .iter()
        .map(|s| s.name.as_str())
        .collect::<Vec<_>>()
        .join(", ");
    let (labelled, held) = split(sets, &config);
    train(
        &args.training,
        &config,
        TrainingData {
            train: labelled,
            held,
            teacher_batches: None,
        },
        training_data,
    )
}

/// Trains, calibrates and exports; returns the text to print.
fn train(
    args: &TrainingArgs,
    config: &TrainConfig,
    data: TrainingData,
    training_data: String,
) -> Result<String> {
    args.device.run(Training {
        args,
        config,
        data,
        training_data,
    })?
}

/// The work of `run` and `distil`, for any backend.
struct Training<'a> {
    args: &'a TrainingArgs,
    config: &'a TrainConfig,
    data: TrainingData,
    /// Names of the data, for the file's metadata.
    training_data: String,
}

impl OnDevice for Training<'_> {
    type Output = Result<String>;

    fn run<B: AutodiffBackend<InnerBackend: Kernels> + Kernels>(
        self,
        device: &B::Device,
    ) -> Result<String> {
        let Training {
            args,
            config,
            data,
            training_data,
        } = self;
        train_on::<B>(args, config, data, training_data, device)
    }
}

/// Trains, calibrates and exports with the backend `B` on `device`.
fn train_on<B: AutodiffBackend<InnerBackend: Kernels> + Kernels>(
    args: &TrainingArgs,
    config: &TrainConfig,
    data: TrainingData,
    training_data: String,
    device: &B::Device,
) -> Result<String> {
    let held = data.held.clone();
    let trained = run::train::<B>(config, data, &args.work, args.resume, device, |line| {
        eprintln!("{line}")
    })?;
    let mut evaluated = Vec::new();
    for set in &held {
        let e = embed(
            &trained.tower,
            &set.crops.iter().collect::<Vec<_>>(),
            device,
        );
        evaluated.extend(EvaluatedSet::of(set, e.view()));
    }
    let fitted = fit(&evaluated, &[]);
    if let Some(fitted) = &fitted {
        eprintln!(
            "held-out people:\n{}",
            report(&evaluated, &[], fitted).trim_end()
        );
    }
    let (calibration, strangers) = match &args.calibrate_with {
        Some(file) => {
            let other = open(file)?;
            (Some(other.calibrated()?), other.strangers())
        }
        None => fitted.map_or((None, None), |f| (Some(f.calibration), f.strangers)),
    };
    if calibration.is_none() {
        eprintln!(
            "the network is not calibrated: no data set has held-out people (8 people are needed) \
             with comparable pictures. Calibrate it with `twintrack-train calibrate` on other \
             people"
        );
    }
    if calibration.is_some_and(|c| c.threshold < COLLAPSED) {
        eprintln!(
            "warning: the embeddings have collapsed: even different held-out people are at a \
             cosine distance below {COLLAPSED}. Try --config with a lower learning_rate, or with \
             loss = \"contrastive\""
        );
    }
    let name = config.start_from.as_ref().map_or_else(
        || config.network.name().into(),
        |p| {
            p.file_stem()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        },
    );
    let about = ExportMetadata {
        name,
        training_data,
        licence: args.licence.clone(),
        calibration,
        strangers,
    };
    let difference = export(&trained.tower, &about, &args.output, device)?;
    Ok(format!(
        "{}: trained at {:.0} pictures/s; the exported network differs from the trained one by at \
         most {difference:.1e}",
        args.output.display(),
        trained.speed
    ))
}

fn convert(args: &ConvertArgs) -> Result<String> {
    outputs::prepare([&args.output], std::slice::from_ref(&args.model))?;
    let read = |specs: &[DataSpec]| {
        specs
            .iter()
            .map(|s| s.read(1))
            .collect::<Result<Vec<Dataset>, TrainError>>()
    };
    let sets = read(&args.data)?;
    let crops: Vec<Crop> = sets.iter().flat_map(|s| s.crops.iter().cloned()).collect();
    twintrack::train::convert::convert(
        &find_model(&args.model)?,
        &args.output,
        args.precision,
        &crops,
    )?;
    let tests = if args.test.is_empty() {
        sets
    } else {
        read(&args.test)?
    };
    let (mut original, mut converted) =
        (open(&args.model)?, open(&in_working_folder(&args.output))?);
    let mut out = String::new();
    for set in &tests {
        let map = |embedder: &mut Embedder| {
            let all = embeddings(embedder, &set.crops)?;
            let missing = || format!("{}: no identity has two comparable pictures", set.name);
            let r = retrieval(&distances(all.view()), &labels(&set.crops), set.protocol)
                .with_context(missing)?;
            Ok::<f64, anyhow::Error>(100.0 * r.map)
        };
        let (before, after) = (map(&mut original)?, map(&mut converted)?);
        writeln!(
            out,
            "{}: mAP {before:.1} in float32, {after:.1} converted ({:+.1})",
            set.name,
            after - before
        )?;
    }
    Ok(out)
}
