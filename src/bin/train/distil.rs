//! `twintrack-train distil`: trains a small network to reproduce a large one's embeddings.

use std::path::{Path, PathBuf};

use crate::outputs;
use anyhow::{Context as _, Result, bail};
use clap::Args;
use twintrack::infer::Runtime;
use twintrack::infer::paths::find_model;
use twintrack::train::config::TrainConfig;
use twintrack::train::dataset::Dataset;
use twintrack::train::distil::batches::TeacherBatches;
use twintrack::train::distil::store::{RowShape, Store};
use twintrack::train::distil::teacher::Teacher;
use twintrack::train::error::TrainError;
use twintrack::train::probe::figure::Figure;
use twintrack::train::probe::generator::{Generator, VERSION};
use twintrack::train::probe::recombine::FigureSources;
use twintrack::train::readers::DataSpec;
use twintrack::train::run::TrainingData;
use twintrack::train::validation::split;

use super::{TrainingArgs, train};

/// Distil: train an embedder on pictures without labels to reproduce the embeddings that another
/// network, the teacher, computes for them (Hinton et al. 2015).
#[derive(Debug, Args)]
pub struct DistilArgs {
    /// ONNX file of the teacher, an embedder: a path (./large.onnx), the name of a file in a
    /// `models` folder, or the name of an installed network (`twintrack models list`).
    #[arg(long, value_name = "FILE")]
    teacher: PathBuf,
    /// Pictures of people, from which the probes are made, KIND:WHERE. KIND is pictures, figures,
    /// or any kind that --data accepts; docs/guide/train.md describes WHERE for each.
    #[arg(long, value_name = "KIND:WHERE", required = true, num_args = 1..)]
    probes: Vec<DataSpec>,
    /// Labelled data to train on in addition to the probes, KIND:WHERE.
    #[arg(long, value_name = "KIND:WHERE", num_args = 1..)]
    data: Vec<DataSpec>,
    /// Labelled data, KIND:WHERE. The checkpoint with the best mAP on these and on held-out people
    /// of --data is exported; if neither option is given, the checkpoint with the highest cosine to
    /// the teacher on held-out probes.
    #[arg(long, value_name = "KIND:WHERE", num_args = 1..)]
    validate: Vec<DataSpec>,
    #[command(flatten)]
    training: TrainingArgs,
}

/// Runs the command; returns the text to print.
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
    let batches = batches(args, &config)?;
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
        TrainingData {
            train: labelled,
            held,
            teacher_batches: Some(batches),
        },
        origin,
    )
}

/// Opens the teacher and the store of its outputs, and starts to fill it.
fn batches(args: &DistilArgs, config: &TrainConfig) -> Result<TeacherBatches> {
    let (height, width) = config.size();
    let size = (width, height);
    let mut stock = FigureSources {
        figures: Vec::new(),
        scenes: Vec::new(),
        size,
    };
    for spec in &args.probes {
        let footage = spec.footage(size, config.seed)?;
        eprintln!(
            "{spec}: {} pictures of people, {} scenes for backgrounds",
            footage.figures.len(),
            footage.scenes.len()
        );
        if footage.figures.is_empty() {
            bail!("{spec}: it has no people");
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
    let rows = RowShape {
        picture: size,
        dimension: teacher.dimension(),
        map: teacher.map_size(),
    };
    let map = rows.map.map_or("no feature map".to_string(), |[c, h, w]| {
        format!("a feature map of {c}x{h}x{w}")
    });
    eprintln!(
        "teacher {}: embeddings of dimension {}, {map}",
        args.teacher.display(),
        rows.dimension
    );
    let key = store_key(&find_model(&args.teacher)?, args, config, &stock)?;
    let dir = args.probe_store(key);
    let store = Store::open(&dir, rows)?;
    eprintln!(
        "{}: the teacher's output of {} pictures is stored already",
        dir.display(),
        store.count()
    );
    let generator = Generator::new(stock, config.seed, config.distil.recombined);
    Ok(TeacherBatches::begin(
        store,
        generator,
        teacher,
        &config.distil,
        config.design(),
        config.seed,
    ))
}

impl DistilArgs {
    /// Folder of the probe store. Its name contains `key`, so that other pictures or another
    /// teacher get a folder of their own and stored outputs are kept.
    fn probe_store(&self, key: u64) -> PathBuf {
        self.training.work.join(format!("probes-{key:016x}"))
    }
}

/// Hash (FNV-1a) of everything on which the teacher's outputs depend: its file, the pictures from
/// which the probes are made, the generator's version, and settings.
fn store_key(
    teacher: &Path,
    args: &DistilArgs,
    config: &TrainConfig,
    stock: &FigureSources,
) -> Result<u64> {
    let teacher =
        std::fs::read(teacher).with_context(|| format!("cannot read {}", teacher.display()))?;
    let counts: Vec<usize> = stock.figures.iter().map(Vec::len).collect();
    let figures = stock.figures.iter().flatten().flat_map(Figure::pixels);
    let scenes = stock.scenes.iter().flat_map(|scene| scene.data.iter());
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
        .chain(figures)
        .chain(scenes)
        .fold(0xcbf2_9ce4_8422_2325, fnv))
}
