//! `twintrack-train distil`: a small network learns from a large one.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use twintrack::app::outputs;
use twintrack::infer::Runtime;
use twintrack::infer::paths::find_model;
use twintrack::train::config::TrainConfig;
use twintrack::train::dataset::{Dataset, TrainError};
use twintrack::train::distil::lessons::Lessons;
use twintrack::train::distil::store::{Rows, Store};
use twintrack::train::distil::teacher::Teacher;
use twintrack::train::learner::{Material, split};
use twintrack::train::probe::generator::{Generator, VERSION};
use twintrack::train::probe::recombine::Stock;
use twintrack::train::readers::DataSpec;

use super::{Training, train};

/// Learn from another embedder, the teacher (any ONNX file), on pictures of people nobody has labelled (Hinton et al. 2015).
#[derive(Debug, Args)]
pub struct DistilArgs {
    /// The teacher, an ONNX embedder; a bare name is looked for in the `models` folders and among those downloaded.
    #[arg(long, value_name = "FILE")]
    teacher: PathBuf,
    /// Whom to show it, KIND:WHERE: video, mot, pictures, figures, synthetic and all kinds of --data (docs/training.md).
    #[arg(long, value_name = "KIND:WHERE", required = true, num_args = 1..)]
    probes: Vec<DataSpec>,
    /// Labelled people to learn from beside the teacher.
    #[arg(long, value_name = "KIND:WHERE", num_args = 1..)]
    data: Vec<DataSpec>,
    /// Labelled people who decide which network is kept; without them its cosine to the teacher on probes held out does.
    #[arg(long, value_name = "KIND:WHERE", num_args = 1..)]
    validate: Vec<DataSpec>,
    #[command(flatten)]
    training: Training,
}

/// Runs the command; returns what to print.
pub fn distil(args: &DistilArgs) -> Result<String> {
    let config = args.training.config()?;
    outputs::prepare([&args.training.output], std::slice::from_ref(&args.teacher))?;
    let read = |specs: &[DataSpec]| {
        specs
            .iter()
            .map(|s| s.read(config.seed))
            .collect::<Result<Vec<Dataset>, TrainError>>()
    };
    let (labelled, mut held) = split(read(&args.data)?, &config);
    held.extend(read(&args.validate)?);
    let lessons = lessons(args, &config)?;
    let names = |specs: &[DataSpec]| {
        specs
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    let teacher = args
        .teacher
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let mut origin = format!("distilled from {teacher} on {}", names(&args.probes));
    if !args.data.is_empty() {
        origin.push_str(&format!("; labelled: {}", names(&args.data)));
    }
    train(
        &args.training,
        &config,
        Material {
            train: labelled,
            held,
            lessons: Some(lessons),
        },
        origin,
    )
}

/// Opens the teacher and the store of its judgements, and begins to fill it.
fn lessons(args: &DistilArgs, config: &TrainConfig) -> Result<Lessons> {
    let (height, width) = config.size();
    let size = (width, height);
    let mut stock = Stock {
        figures: Vec::new(),
        scenes: Vec::new(),
        size,
    };
    for spec in &args.probes {
        let footage = spec.footage(size, config.seed)?;
        eprintln!(
            "{spec}: {} people, {} scenes to stand before",
            footage.figures.len(),
            footage.scenes.len()
        );
        if footage.figures.is_empty() {
            bail!("{spec}: nobody is seen in it");
        }
        stock.figures.push(footage.figures);
        stock.scenes.extend(footage.scenes);
    }
    let work = &args.training.work;
    std::fs::create_dir_all(work).with_context(|| format!("cannot write {}", work.display()))?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    let teacher = Teacher::open(
        &Runtime::load()?,
        &args.teacher,
        &config.distil,
        work,
        threads,
    )?;
    let rows = Rows {
        picture: size,
        dimension: teacher.dimension(),
        map: teacher.map_size(),
    };
    let map = rows.map.map_or("no map".to_string(), |[c, h, w]| {
        format!("a map of {c}x{h}x{w}")
    });
    eprintln!(
        "teacher {}: embeddings of length {}, {map}",
        args.teacher.display(),
        rows.dimension
    );
    let key = store_key(&find_model(&args.teacher)?, args, config, &stock)?;
    let dir = args.probe_store(key);
    let store = Store::open(&dir, rows)?;
    eprintln!("{}: {} pictures judged", dir.display(), store.count());
    let generator = Generator::new(stock, config.seed, config.distil.recombined);
    Ok(Lessons::begin(
        store,
        generator,
        teacher,
        &config.distil,
        config.design(),
        config.seed,
    ))
}

impl DistilArgs {
    /// Judgements of other pictures or of another teacher lie in other folders, so that none is thrown away.
    fn probe_store(&self, key: u64) -> PathBuf {
        self.training.work.join(format!("probes-{key:016x}"))
    }
}

/// What the judged pictures depend on, as one number (FNV-1a).
fn store_key(
    teacher: &Path,
    args: &DistilArgs,
    config: &TrainConfig,
    stock: &Stock,
) -> Result<u64> {
    let teacher =
        std::fs::read(teacher).with_context(|| format!("cannot read {}", teacher.display()))?;
    let counts: Vec<usize> = stock
        .figures
        .iter()
        .map(Vec::len)
        .chain([stock.scenes.len()])
        .collect();
    let settings = format!(
        "{:?} {:?} {:?} {counts:?} {} {} {} {:?} {:?}",
        VERSION,
        args.probes
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>(),
        stock.size,
        config.seed,
        config.distil.recombined,
        config.distil.map > 0.0,
        config.distil.teacher_size,
        config.distil.teacher_pixels
    );
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    Ok(teacher
        .iter()
        .chain(settings.as_bytes())
        .fold(0xcbf2_9ce4_8422_2325, fnv))
}
