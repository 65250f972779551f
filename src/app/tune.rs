//! `twintrack tune`: search for the tracker's settings that suit these cameras, against ground truth.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::app::sequences::{self, Truth};
use crate::app::{detections, evaluate, options, outputs, settings, show};
use crate::config::Config;
use crate::detect::Detector;
use crate::detection::{Detection, Embeddings};
use crate::embed::Embedder;
use crate::eval::report::{Counts, Scores, combine, table};
use crate::eval::tune::{self, Parameter, Trial};
use crate::eval::{Sequence, score};
use crate::frame::Frame;
use crate::infer::Runtime;
use crate::mot_format::{Known, MotError, MotRow};
use crate::refine::Recording;
use crate::source::{self, SourceOptions};
use crate::time::Seconds;
use crate::track::similarity::StrangerTable;
use crate::track::{TrackState, Tracker};
use crate::trajectory::{EventBuilder, FrameEvent};

/// Search for the settings that suit these cameras, against ground truth.
#[derive(Debug, Args)]
pub struct TuneArgs {
    /// Folder of sequences, each with seqinfo.ini, gt/gt.txt and det/det.txt, or pictures to detect people in; or one such
    /// sequence.
    #[arg(long, value_name = "DIR")]
    gt: PathBuf,
    /// Configuration to start from (TOML).
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The best configuration found (TOML).
    #[arg(short, long, value_name = "FILE", default_value = "tuned.toml")]
    output: PathBuf,
    /// How many configurations to try.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..1_000_000))]
    trials: u32,
    /// Seed of the search; the same seed tries the same configurations.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Numbers to search for instead of the usual ones, each KEY=LOW..HIGH (as in tracker.cost.size=0.2..1).
    #[arg(long, value_name = "KEY=LOW..HIGH", value_parser = parse_vary, num_args = 1..)]
    vary: Vec<(String, f64, f64)>,
    /// Tune tracking of recordings (`track --offline`).
    #[arg(long)]
    offline: bool,
    /// Tell people apart by motion only, even where there are pictures.
    #[arg(long)]
    no_embed: bool,
    /// Whose rules: which classes are distractors.
    #[arg(long, value_enum, default_value_t = evaluate::Rules::Mot17)]
    benchmark: evaluate::Rules,
    /// Frames a second of sequences without seqinfo.ini, as CVAT exports them.
    #[arg(long, value_name = "FPS", value_parser = options::parse_rate)]
    frame_rate: Option<f64>,
    /// Frame size of sequences with neither seqinfo.ini nor pictures.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = parse_size)]
    frame_size: Option<(u32, u32)>,
    /// The confidences in det/det.txt are divided by it (100 for percent).
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = options::parse_scale)]
    confidence_scale: f64,
}

fn parse_size(s: &str) -> Result<(u32, u32), String> {
    let sides = s
        .split_once('x')
        .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    sides.ok_or_else(|| format!("'{s}' is no size; write WIDTHxHEIGHT, as 1920x1080"))
}

fn parse_vary(s: &str) -> Result<(String, f64, f64), String> {
    let parts = s
        .split_once('=')
        .and_then(|(key, range)| range.split_once("..").map(|(low, high)| (key, low, high)));
    let (key, low, high) = parts.ok_or("write KEY=LOW..HIGH, as in tracker.cost.size=0.2..1")?;
    match (low.parse(), high.parse()) {
        (Ok(low), Ok(high)) if low < high => Ok((key.to_string(), low, high)),
        _ => Err(format!(
            "'{low}..{high}' is not a range of two numbers, the lower first"
        )),
    }
}

/// What is searched for when nothing is named: the numbers that decide identities, with the ranges that make sense.
const USUAL: &[(&str, f64, f64)] = &[
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
const USUAL_WITH_LOOKS: &[(&str, f64, f64)] = &[
    ("tracker.cost.appearance", 0.0, 3.0),
    ("tracker.cost.appearance_scale", 0.2, 1.6),
    ("tracker.appearance.memory", 0.5, 0.98),
];
const USUAL_OFFLINE: &[(&str, f64, f64)] = &[
    ("offline.max_gap", 0.5, 10.0),
    ("offline.new_track", 0.0, 8.0),
    ("offline.min_share", 0.0, 0.7),
    ("offline.fill.max_gap", 0.5, 5.0),
    ("offline.fill.smoothing", 0.0, 0.2),
];

/// A sequence with what the networks say of every frame, so that trials only track.
struct Observed {
    name: String,
    length: u64,
    truth: Vec<MotRow>,
    frames: Vec<(Frame, Vec<Detection>, Embeddings)>,
    /// How often strangers are alike to the embedder that was used.
    strangers: Option<StrangerTable>,
}

/// Runs the command; returns what is to be printed.
///
/// # Errors
/// When a folder lacks what is needed, a key is unknown, or the output cannot be written.
pub fn run(args: &TuneArgs) -> Result<String> {
    let mut config = settings::read(args.config.as_deref())?;
    config.embedder.enabled &= !args.no_embed;
    outputs::prepare([&args.output], args.config.as_slice())?;
    let sequences = observe_all(args, &config)?;
    let looks = sequences
        .iter()
        .any(|s| s.frames.iter().any(|(_, _, e)| !e.is_empty()));
    let parameters = parameters(args, &config, looks)?;
    let evaluate = |values: &Vec<f64>| {
        let config = with(&config, &parameters, values).ok()?;
        sequences
            .iter()
            .map(|s| judge(s, &config, args))
            .collect::<Result<Vec<Counts>>>()
            .ok()
    };
    let threads = config.threads();
    let mut shown = 0;
    let told = |done: &[Trial]| {
        if done.len() >= shown + 48 {
            shown = done.len();
            eprintln!(
                "{shown} of {} tried, HOTA and IDF1 on average {:.2}",
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
        told,
    );
    if trials.is_empty() {
        bail!(
            "the starting configuration cannot be used; is every value of --vary's keys in its range?"
        );
    }
    let best = tune::best(&trials, |_| true);
    let text = toml::to_string(&with(&config, &parameters, &best.values)?)?;
    std::fs::write(&args.output, text)
        .with_context(|| format!("cannot write {}", args.output.display()))?;
    Ok(report(args, &parameters, &sequences, &trials, best))
}

/// Works on every item, on several threads; the answers are in the order of the items.
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

fn parameters(args: &TuneArgs, config: &Config, looks: bool) -> Result<Vec<Parameter>> {
    let usual = USUAL
        .iter()
        .chain(USUAL_WITH_LOOKS.iter().filter(|_| looks))
        .chain(USUAL_OFFLINE.iter().filter(|_| args.offline));
    let ranges: Vec<(String, f64, f64)> = if args.vary.is_empty() {
        usual.map(|&(k, l, h)| (k.to_string(), l, h)).collect()
    } else {
        args.vary.clone()
    };
    let table = toml::Value::try_from(config)?;
    let start = |key: &str| {
        let value = key.split('.').try_fold(&table, |t, part| t.get(part));
        value
            .and_then(|v| v.as_float().or_else(|| v.as_integer().map(|i| i as f64)))
            .with_context(|| format!("the configuration has no number '{key}' to vary; docs/configuration.md lists all"))
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

/// The configuration with these values in it.
fn with(config: &Config, parameters: &[Parameter], values: &[f64]) -> Result<Config> {
    let mut table = toml::Value::try_from(config)?;
    for (p, &value) in parameters.iter().zip(values) {
        let slot = p
            .key
            .split('.')
            .try_fold(&mut table, |t, part| t.get_mut(part))
            .with_context(|| format!("no key {}", p.key))?;
        // Four digits: more than any of these numbers carries, and readable.
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

fn observe_all(args: &TuneArgs, config: &Config) -> Result<Vec<Observed>> {
    let mut networks: (Option<Detector>, Option<Embedder>) = (None, None);
    sequences::find(&args.gt)?
        .iter()
        .map(|dir| {
            observe(dir, args, config, &mut networks)
                .with_context(|| format!("sequence {}", dir.display()))
        })
        .collect()
}

/// Reads a sequence and runs the networks over it, as far as they are needed and there are pictures.
fn observe(
    dir: &Path,
    args: &TuneArgs,
    config: &Config,
    networks: &mut (Option<Detector>, Option<Embedder>),
) -> Result<Observed> {
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
    let given = dir.join("det/det.txt");
    let mut given = if given.is_file() {
        Some(detections::read(&given, args.confidence_scale)?)
    } else {
        None
    };
    let options = SourceOptions {
        pixels_optional: given.is_some(),
        frame_rate: args.frame_rate,
        frame_size: args.frame_size,
        ..SourceOptions::default()
    };
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
            (None, None) => bail!("it has neither det/det.txt nor pictures"),
            (None, Some(image)) => {
                if networks.0.is_none() {
                    networks.0 = Some(Detector::open(
                        &Runtime::load()?,
                        &config.detector,
                        session,
                    )?);
                    networks.0.iter().for_each(show::detector);
                }
                let detector = networks.0.as_mut().expect("opened just now");
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
                    .expect("opened just now")
                    .embed(image, &detections)?
            }
            _ => Embeddings::none(),
        };
        frame.image = None;
        frames.push((frame, detections, embeddings));
    }
    let strangers = networks.1.as_ref().and_then(Embedder::strangers);
    Ok(Observed {
        name,
        length: info.length,
        truth,
        frames,
        strangers,
    })
}

/// Tracks a sequence and counts.
fn judge(s: &Observed, config: &Config, args: &TuneArgs) -> Result<Counts> {
    let mut tracker =
        Tracker::new(config.tracker(args.offline)).with_strangers(s.strangers.clone());
    let mut events = EventBuilder::new(
        uuid::Uuid::nil(),
        s.name.as_str().into(),
        args.offline.then(|| "embedder".into()),
    );
    let mut recording = Recording::default();
    let mut last: Option<Seconds> = None;
    for (frame, detections, embeddings) in &s.frames {
        let elapsed = last.map_or(Seconds::ZERO, |l| frame.pts - l);
        last = Some(frame.pts);
        let mut update = tracker.update(detections, embeddings, elapsed)?;
        update.tracks.retain(|t| {
            config.output.coasts(t.unseen.0) && (!args.offline || t.state == TrackState::Confirmed)
        });
        recording.frames.push(events.frame(frame, &update.tracks));
        recording
            .ended
            .extend(update.ended.into_iter().map(|t| events.ended(t)));
    }
    if args.offline {
        recording
            .ended
            .extend(tracker.finish().into_iter().map(|t| events.ended(t)));
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
    sequences: &[Observed],
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
    let mut add = |text: String| writeln!(out, "{text}").expect("writing to a string cannot fail");
    add(String::new());
    for ((p, from), to) in parameters.iter().zip(&trials[0].values).zip(&best.values) {
        add(format!("{:40} {from:8.4} -> {to:8.4}", p.key));
    }
    let held = tune::held_out(trials);
    if held.is_empty() {
        add("\nOne sequence alone cannot tell how much of the gain is luck; give more.".into());
    } else {
        add("\nHow much is luck: the best of the other sequences, judged on the one left out (mean of HOTA and IDF1)".into());
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
        let seen = best.score(|_| true) - trials[0].score(|_| true);
        add(format!(
            "gain on the sequences tuned on {seen:+.2}, on those left out {gain:+.2} on average: expect the latter elsewhere"
        ));
    }
    add(format!("\nwritten to {}", args.output.display()));
    out.trim_end().to_string()
}
