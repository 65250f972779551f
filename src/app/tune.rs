//! `twintrack tune`: searches for the tracker's settings that are best on sequences with ground
//! truth.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::app::sequences::{self, Truth};
use crate::app::{detections, options, outputs, settings, show};
use twintrack::config::Config;
use twintrack::detect::Detector;
use twintrack::detection::{Detection, Embeddings};
use twintrack::embed::Embedder;
use twintrack::eval::report::{Counts, Scores, combine, table};
use twintrack::eval::tune::{self, Parameter, Trial};
use twintrack::eval::{Sequence, score};
use twintrack::frame::Frame;
use twintrack::infer::Runtime;
use twintrack::mot_format::{Known, MotError, MotRow};
use twintrack::refine::RecordedEvents;
use twintrack::source::{self, SourceOptions};
use twintrack::time::Seconds;
use twintrack::track::similarity::StrangerTable;
use twintrack::track::{TrackState, Tracker};
use twintrack::trajectory::{EventBuilder, FrameEvent};

/// Search for the tracker's settings that are best on sequences with ground truth.
#[derive(Debug, Args)]
pub struct TuneArgs {
    /// Folder of sequences, each with seqinfo.ini, gt/gt.txt, and det/det.txt or pictures (img1) in
    /// which people are detected; or one such sequence.
    #[arg(long, value_name = "DIR")]
    gt: PathBuf,
    /// Configuration (TOML) from which the search starts; without it, the search starts from the
    /// defaults.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the best configuration (TOML) to this file.
    #[arg(short, long, value_name = "FILE", default_value = "tuned.toml")]
    output: PathBuf,
    /// Number of configurations to try.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 300,
        value_parser = clap::value_parser!(u32).range(1..1_000_000)
    )]
    trials: u32,
    /// Seed of the search; the same seed tries the same configurations.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Numeric settings to vary instead of the default selection, each with its range, as
    /// KEY=LOW..HIGH (tracker.cost.size=0.2..1).
    #[arg(long, value_name = "KEY=LOW..HIGH", value_parser = parse_vary, num_args = 1..)]
    vary: Vec<(String, f64, f64)>,
    /// Tune offline tracking of recordings (`track --offline`).
    #[arg(long)]
    offline: bool,
    /// Run without an embedder, even if there are pictures: associate detections with tracks by
    /// motion only.
    #[arg(long)]
    no_embed: bool,
    /// Benchmark whose rules apply: which classes are evaluated, and which are distractors.
    #[arg(long, value_enum, default_value_t = options::Rules::Mot17)]
    benchmark: options::Rules,
    /// Frames per second of sequences without seqinfo.ini (such as CVAT's exports).
    #[arg(long, value_name = "FPS", value_parser = options::parse_rate)]
    frame_rate: Option<f64>,
    /// Frame size in pixels of sequences with neither seqinfo.ini nor pictures.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = parse_size)]
    frame_size: Option<(u32, u32)>,
    /// Divide the confidences in det/det.txt by this (100 for percentages).
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = options::parse_scale)]
    confidence_scale: f64,
}

fn parse_size(s: &str) -> Result<(u32, u32), String> {
    let sides = s
        .split_once('x')
        .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides.ok_or_else(|| format!("'{s}' is not a size; write WIDTHxHEIGHT, such as 1920x1080"))
}

fn parse_vary(s: &str) -> Result<(String, f64, f64), String> {
    let parts = s
        .split_once('=')
        .and_then(|(key, range)| range.split_once("..").map(|(low, high)| (key, low, high)));
    let (key, low, high) = parts.ok_or("write KEY=LOW..HIGH, such as tracker.cost.size=0.2..1")?;
    match (low.parse(), high.parse()) {
        (Ok(low), Ok(high)) if low < high => Ok((key.to_string(), low, high)),
        _ => Err(format!(
            "'{low}..{high}' is not a range: write two numbers, the lower first"
        )),
    }
}

/// Settings that are varied by default, with their ranges. They have the most influence on identity
/// switches.
const DEFAULT_PARAMETERS: &[(&str, f64, f64)] = &[
    ("tracker.cost.position", 0.0, 0.5),
    ("tracker.cost.size", 0.2, 1.2),
    ("tracker.cost.absence", 0.0, 0.15),
    ("tracker.cost.buffer", 0.1, 0.5),
    ("tracker.cost.second_buffer", 0.3, 0.9),
    ("tracker.cost.limit", 0.7, 1.1),
    ("tracker.motion.measurement_noise", 0.02, 0.1),
    ("tracker.motion.position_noise", 0.02, 0.3),
    ("tracker.motion.velocity_noise", 0.3, 1.5),
    ("tracker.motion.velocity_memory", 0.6, 3.0),
    ("tracker.motion.size_memory", 0.2, 1.5),
    ("tracker.keep_lost", 0.5, 5.0),
];
/// Settings that are also varied if there are embeddings.
const APPEARANCE_PARAMETERS: &[(&str, f64, f64)] = &[
    ("tracker.cost.appearance", 0.0, 3.0),
    ("tracker.cost.appearance_scale", 0.2, 1.6),
    ("tracker.appearance.memory", 0.5, 0.98),
];
/// Settings that are also varied with `--offline`.
const OFFLINE_PARAMETERS: &[(&str, f64, f64)] = &[
    ("offline.max_gap", 0.5, 10.0),
    ("offline.new_track", 0.0, 8.0),
    ("offline.min_share", 0.0, 0.7),
    ("offline.fill.max_gap", 0.5, 5.0),
    ("offline.fill.smoothing", 0.0, 0.2),
];

/// A sequence with the networks' outputs for every frame, so that a trial runs the tracker only.
struct PreparedSequence {
    name: String,
    /// Number of frames.
    length: u64,
    truth: Vec<MotRow>,
    frames: Vec<(Frame, Vec<Detection>, Embeddings)>,
    /// The embedder's false-accept rates.
    strangers: Option<StrangerTable>,
}

/// Runs the command; returns the text to print.
///
/// # Errors
/// When a sequence lacks a required file, a key is unknown, or the output cannot be written.
pub fn run(args: &TuneArgs) -> Result<String> {
    let mut config = settings::read(args.config.as_deref())?;
    config.embedder.enabled &= !args.no_embed;
    outputs::prepare([&args.output], args.config.as_slice())?;
    let sequences = prepare_all(args, &config)?;
    let has_embeddings = sequences
        .iter()
        .any(|s| s.frames.iter().any(|(_, _, e)| !e.is_empty()));
    let parameters = parameters(args, &config, has_embeddings)?;
    let evaluate = |values: &Vec<f64>| {
        let config = with_values(&config, &parameters, values).ok()?;
        sequences
            .iter()
            .map(|s| track_and_score(s, &config, args))
            .collect::<Result<Vec<Counts>>>()
            .ok()
    };
    let threads = config.threads();
    let mut reported = 0;
    let report_progress = |done: &[Trial]| {
        if done.len() >= reported + 48 {
            reported = done.len();
            eprintln!(
                "{reported} of {} tried, best mean of HOTA and IDF1 {:.2}",
                args.trials,
                tune::best(done, |_| true).score(|_| true)
            );
        }
    };
    let trials = tune::search(
        &parameters,
        args.trials as usize,
        args.seed,
        |round| on_threads(round, threads, &evaluate),
        report_progress,
    );
    if trials.is_empty() {
        // The search ends at once if the starting configuration fails. The evaluation is repeated
        // to get the error.
        for s in &sequences {
            track_and_score(s, &config, args).with_context(|| format!("sequence {}", s.name))?;
        }
        bail!("the starting configuration cannot be evaluated");
    }
    let best = tune::best(&trials, |_| true);
    let text = toml::to_string(&with_values(&config, &parameters, &best.values)?)?;
    std::fs::write(&args.output, text)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    Ok(report(args, &parameters, &sequences, &trials, best))
}

/// Applies `work` to every item, on several threads; the results are in the order of the items.
fn on_threads<A: Sync, B: Send>(
    items: &[A],
    threads: usize,
    work: &(impl Fn(&A) -> B + Sync),
) -> Vec<B> {
    let share = items.len().div_ceil(threads.max(1)).max(1);
    std::thread::scope(|scope| {
        let running: Vec<_> = items
            .chunks(share)
            .map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<B>>()))
            .collect();
        running
            .into_iter()
            .flat_map(|t| {
                t.join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

/// The settings to vary, with their ranges and the values of the starting configuration.
fn parameters(args: &TuneArgs, config: &Config, has_embeddings: bool) -> Result<Vec<Parameter>> {
    let default = DEFAULT_PARAMETERS
        .iter()
        .chain(APPEARANCE_PARAMETERS.iter().filter(|_| has_embeddings))
        .chain(OFFLINE_PARAMETERS.iter().filter(|_| args.offline));
    let ranges: Vec<(String, f64, f64)> = if args.vary.is_empty() {
        default.map(|&(k, l, h)| (k.to_string(), l, h)).collect()
    } else {
        args.vary.clone()
    };
    let table = toml::Value::try_from(config)?;
    let start = |key: &str| {
        let value = key.split('.').try_fold(&table, |t, part| t.get(part));
        value
            .and_then(|v| v.as_float().or_else(|| v.as_integer().map(|i| i as f64)))
            .with_context(|| {
                format!(
                    "the configuration has no numeric key '{key}' to vary; \
                     docs/reference/configuration.md lists all keys"
                )
            })
    };
    ranges
        .into_iter()
        .map(|(key, low, high)| {
            Ok(Parameter {
                start: start(&key)?,
                key,
                low,
                high,
            })
        })
        .collect()
}

/// The configuration with the parameters set to these values.
fn with_values(config: &Config, parameters: &[Parameter], values: &[f64]) -> Result<Config> {
    let mut table = toml::Value::try_from(config)?;
    for (p, &value) in parameters.iter().zip(values) {
        let slot = p
            .key
            .split('.')
            .try_fold(&mut table, |t, part| t.get_mut(part))
            .with_context(|| format!("the configuration has no key '{}'", p.key))?;
        // Four decimals are precise enough for every parameter, and the file is easier to read.
        let rounded = (value * 1e4).round() / 1e4;
        *slot = if slot.is_integer() {
            toml::Value::Integer(value.round() as i64)
        } else {
            toml::Value::Float(rounded)
        };
    }
    let head = config.tracker.head.clone();
    let mut config: Config = table.try_into()?;
    config.tracker.head = head;
    config.validate()?;
    Ok(config)
}

fn prepare_all(args: &TuneArgs, config: &Config) -> Result<Vec<PreparedSequence>> {
    let mut networks: (Option<Detector>, Option<Embedder>) = (None, None);
    sequences::find(&args.gt)?
        .iter()
        .map(|dir| {
            prepare(dir, args, config, &mut networks)
                .with_context(|| format!("sequence {}", dir.display()))
        })
        .collect()
}

/// Reads a sequence, and runs the detector if it has no detections and the embedder if it has
/// pictures. The networks are opened when first needed.
fn prepare(
    dir: &Path,
    args: &TuneArgs,
    config: &Config,
    networks: &mut (Option<Detector>, Option<Embedder>),
) -> Result<PreparedSequence> {
    let known = Known {
        frame_rate: args.frame_rate,
        size: args.frame_size,
    };
    let Truth {
        name,
        info,
        rows: truth,
    } = sequences::read(dir, known, args.benchmark.into())?;
    if info.frame_rate <= 0.0 {
        return Err(MotError::Undescribed {
            path: dir.to_path_buf(),
            missing: "--frame-rate",
        }
        .into());
    }
    let file = dir.join("det/det.txt");
    let mut given = if file.is_file() {
        let size = (info.width, info.height);
        Some(detections::read(&file, args.confidence_scale, size)?)
    } else {
        None
    };
    let options = SourceOptions::default()
        .with_pixels_optional(given.is_some())
        .with_frame_rate(args.frame_rate)
        .with_frame_size(args.frame_size);
    let mut source = source::open(&dir.to_string_lossy(), &options)?;
    if !source.info().has_pixels && info.width == 0 {
        return Err(MotError::Undescribed {
            path: dir.to_path_buf(),
            missing: "--frame-size",
        }
        .into());
    }
    let session = config.session();
    let mut frames = Vec::new();
    while let Some(mut frame) = source.next_frame()? {
        let detections = match (&mut given, &frame.image) {
            (Some(by_frame), _) => by_frame.remove(&frame.number).unwrap_or_default(),
            (None, None) => {
                bail!("it has neither det/det.txt nor pictures (img1); add one of them")
            }
            (None, Some(image)) => {
                if networks.0.is_none() {
                    networks.0 = Some(Detector::open(
                        &Runtime::load()?,
                        &config.detector(),
                        session,
                    )?);
                    networks.0.iter().for_each(show::detector);
                }
                let detector = networks.0.as_mut().expect("opened above");
                detector.detect_image(image)?
            }
        };
        let embeddings = match &frame.image {
            Some(image) if config.embedder.enabled => {
                if networks.1.is_none() {
                    networks.1 = Some(Embedder::open(
                        &Runtime::load()?,
                        &config.embedder,
                        session,
                    )?);
                    networks.1.iter().for_each(show::embedder);
                }
                networks
                    .1
                    .as_mut()
                    .expect("opened above")
                    .embed(image, &detections)?
            }
            _ => Embeddings::none(),
        };
        frame.image = None;
        frames.push((frame, detections, embeddings));
    }
    let unused = given
        .iter()
        .flat_map(|g| g.values())
        .map(Vec::len)
        .sum::<usize>();
    detections::warn_of_unused(&file, unused as u64, frames.len() as u64);
    let strangers = networks.1.as_ref().and_then(Embedder::strangers);
    Ok(PreparedSequence {
        name,
        length: info.length,
        truth,
        frames,
        strangers,
    })
}

/// Tracks a sequence and counts matches and errors against the ground truth.
fn track_and_score(s: &PreparedSequence, config: &Config, args: &TuneArgs) -> Result<Counts> {
    let mut tracker =
        Tracker::new(config.tracker(args.offline)).with_strangers(s.strangers.clone());
    let mut events = EventBuilder::new(
        uuid::Uuid::nil(),
        s.name.as_str().into(),
        args.offline.then(|| "embedder".into()),
    );
    let mut recording = RecordedEvents::default();
    let mut last: Option<Seconds> = None;
    for (frame, detections, embeddings) in &s.frames {
        let elapsed = last.map_or(Seconds::ZERO, |l| frame.pts - l);
        last = Some(frame.pts);
        let mut update = tracker.update(detections, embeddings, elapsed)?;
        update.tracks.retain(|t| {
            config.output.coasts(t.unseen.0) && (!args.offline || t.state == TrackState::Confirmed)
        });
        recording.frames.push(events.frame(frame, &update.tracks));
        recording.ended.extend(events.ended(update.ended));
    }
    if args.offline {
        recording.ended.extend(events.ended(tracker.finish()));
        recording = recording.refine(&config.offline, &config.tracker);
    }
    let rows: Vec<MotRow> = recording.frames.iter().flat_map(rows).collect();
    Ok(score(&Sequence::align(
        &s.name,
        s.length,
        &s.truth,
        &rows,
        args.benchmark.into(),
    )?))
}

fn rows(event: &FrameEvent) -> impl Iterator<Item = MotRow> + '_ {
    event.tracks.iter().map(|t| MotRow {
        frame: event.frame,
        id: t.id as i64,
        ltwh: t.bbox,
        confidence: t.confidence,
        class: 1,
        visibility: 1.0,
    })
}

fn report(
    args: &TuneArgs,
    parameters: &[Parameter],
    sequences: &[PreparedSequence],
    trials: &[Trial],
    best: &Trial,
) -> String {
    use std::fmt::Write as _;
    let line = |t: &Trial, name: &str| -> Scores { combine(&t.counts).scores(name) };
    let mut lines: Vec<Scores> = sequences
        .iter()
        .zip(&best.counts)
        .map(|(s, c)| c.scores(&s.name))
        .collect();
    lines.extend([line(&trials[0], "start"), line(best, "best")]);
    let mut out = table(&lines);
    let mut add = |text: String| writeln!(out, "{text}").expect("writing to a String cannot fail");
    add(String::new());
    for ((p, from), to) in parameters.iter().zip(&trials[0].values).zip(&best.values) {
        add(format!("{:40} {from:8.4} -> {to:8.4}", p.key));
    }
    let held = tune::held_out(trials);
    if held.is_empty() {
        add("\nOverfitting cannot be estimated with a single sequence; use more sequences.".into());
    } else {
        let heading = "\nHeld-out sequences: the configuration that is best on all others, \
                       evaluated on the held-out one (mean of HOTA and IDF1)";
        add(heading.into());
        for h in &held {
            add(format!(
                "{:40} {:8.2} -> {:8.2} ({:+.2})",
                sequences[h.sequence].name,
                h.start,
                h.chosen,
                h.chosen - h.start
            ));
        }
        let gain = held.iter().map(|h| h.chosen - h.start).sum::<f64>() / held.len() as f64;
        let tuned = best.score(|_| true) - trials[0].score(|_| true);
        add(format!(
            "gain on the tuned sequences {tuned:+.2}, mean gain on held-out sequences {gain:+.2}; \
             the second is the one to expect on other recordings"
        ));
    }
    add(format!("\nwritten to {}", args.output.display()));
    out.trim_end().to_string()
}
