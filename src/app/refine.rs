//! `twintrack refine`: offline linking and gap filling of trajectories written earlier.

use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::app::{outputs, settings};
use crate::config::Config;
use crate::refine::{Recording, frame_of};
use crate::sink::jsonl::JsonLines;
use crate::sink::mot::{MotContent, MotText};
use crate::sink::{FrameResult, Sink, SinkError};
use crate::source::{Source, SourceError};

/// Link tracks over a whole recording and fill their gaps.
#[derive(Debug, Args)]
pub struct RefineArgs {
    /// Trajectories of `twintrack track` (JSON lines); `-` is standard input. Embeddings
    /// (`track --embeddings`) improve linking, and are kept in the output.
    input: PathBuf,
    /// Configuration (TOML), of which [offline], [tracker.motion], [tracker.scenery] and [output]
    /// are used.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the refined trajectories (JSON lines) to this file; `-` is standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Also write a MOTChallenge result file.
    #[arg(long, value_name = "FILE")]
    mot: Option<PathBuf>,
    /// Print no summary.
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command.
///
/// # Errors
/// When the input is not a file of events, or an output cannot be written.
pub fn run(args: &RefineArgs) -> Result<()> {
    let config = settings::read(args.config.as_deref())?;
    let from_stdin = args.input == Path::new(STDIN);
    let inputs: Vec<PathBuf> = args
        .config
        .iter()
        .cloned()
        .chain((!from_stdin).then(|| args.input.clone()))
        .collect();
    outputs::prepare(std::iter::once(&args.output).chain(&args.mot), &inputs)?;
    let recordings = match from_stdin {
        true => Recording::read_lines(std::io::stdin().lock(), Path::new("standard input"))?,
        false => {
            let path = &args.input;
            let file = std::fs::File::open(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            Recording::read_lines(BufReader::new(file), path)?
        }
    };
    if args.mot.is_some() && recordings.len() > 1 {
        bail!(
            "{} has {} recordings (runs or cameras), but a MOTChallenge file holds only one; \
             remove --mot",
            args.input.display(),
            recordings.len()
        );
    }
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(JsonLines::create(
        &args.output,
        false,
        config.output.ended,
    )?)];
    if let Some(path) = &args.mot {
        sinks.push(Box::new(MotText::create(
            path,
            MotContent::Tracks,
            &config.output,
        )?));
    }
    if recordings.is_empty() && !args.quiet {
        eprintln!("  nothing to refine          the input has no events");
    }
    for recording in &recordings {
        let refined = recording.refine(&config.offline, &config.tracker);
        if !args.quiet {
            eprintln!("{}", summary(recording, &refined));
        }
        deliver(&refined, &mut sinks, None, &|| false)?;
    }
    sinks.iter_mut().try_for_each(|s| s.finish())?;
    if !args.quiet {
        eprint!(
            "{}",
            outputs::written(&[
                ("trajectories", Some(&args.output)),
                ("MOTChallenge", args.mot.as_ref())
            ])
        );
    }
    Ok(())
}

/// The path that stands for standard input.
const STDIN: &str = "-";

/// Refines a recording; removes the embeddings unless they are to be written.
pub fn refined(recording: &Recording, config: &Config) -> Recording {
    let mut refined = recording.refine(&config.offline, &config.tracker);
    if !config.output.embeddings {
        refined.ended.iter_mut().for_each(|e| e.embedding = None);
    }
    refined
}

/// A summary line of what refining changed.
pub fn summary(before: &Recording, after: &Recording) -> String {
    let boxes = |r: &Recording| r.frames.iter().map(|f| f.tracks.len()).sum::<usize>();
    let (tracks, people) = (before.ended.len(), after.ended.len());
    format!(
        "  refined                     {tracks} tracks to {people} trajectories, \
         {} boxes to {} boxes",
        boxes(before),
        boxes(after)
    )
}

/// Writes a recording to the sinks: every frame, followed by the ends of the tracks that were last
/// detected in it. `pictures` delivers the images for sinks that draw. Checks `stop` before every
/// frame, and returns early when it is true.
///
/// # Errors
/// When a sink or the source fails.
pub fn deliver(
    recording: &Recording,
    sinks: &mut [Box<dyn Sink>],
    mut pictures: Option<Box<dyn Source>>,
    stop: &dyn Fn() -> bool,
) -> Result<(), DeliverError> {
    let mut ended = recording.ended.iter().peekable();
    for event in recording.frames.iter().take_while(|_| !stop()) {
        let mut frame = frame_of(event);
        if let Some(source) = &mut pictures {
            while let Some(next) = source.next_frame()? {
                if next.number == event.frame {
                    frame = next;
                    break;
                }
            }
        }
        let finished = FrameResult {
            frame,
            detections: Vec::new(),
            event: event.clone(),
        };
        for sink in sinks.iter_mut() {
            sink.frame(&finished)?;
        }
        while let Some(e) = ended.next_if(|e| e.last <= event.pts) {
            sinks.iter_mut().try_for_each(|s| s.ended(e))?;
        }
    }
    Ok(())
}

/// Errors of [`deliver`].
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// A sink failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The source of the images failed.
    #[error(transparent)]
    Source(#[from] SourceError),
}
