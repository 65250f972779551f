//! `twintrack refine`: links tracks and fills gaps in events written earlier.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use serde::de::IgnoredAny;

use crate::app::scenes::Scenes;
use crate::app::{linking, outputs, settings, show};
use twintrack::analytics::SceneView;
use twintrack::refine::RecordedEvents;
use twintrack::sink::Sink;
use twintrack::sink::counts::Counts;
use twintrack::sink::jsonl::JsonLines;
use twintrack::sink::mot::{MotContent, MotText};

/// Link tracks over a whole recording and fill their gaps.
#[derive(Debug, Args)]
pub struct RefineArgs {
    /// Events that `twintrack track` or `serve` wrote (JSON lines); `-` is standard input.
    /// Embeddings (`track --embeddings`) improve linking, and are kept in the output.
    input: PathBuf,
    /// Configuration (TOML), of which [offline], [tracker.motion], [tracker.scenery], [output],
    /// [counting] and the zones and lines are used: those of [cameras.NAME], if NAME is the camera
    /// of the events, otherwise [zones], [lines], [masks] and [ground].
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the refined events (JSON lines) to this file; `-` is standard output.
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
/// When the configuration is invalid, the input cannot be read or is not a file of events, its
/// frames are out of order, or an output cannot be written or is also an input or another output;
/// with --mot also when the input has several recordings.
pub fn run(args: &RefineArgs) -> Result<()> {
    let config = settings::read(args.config.as_deref())?;
    let scenes = Scenes::read(args.config.as_deref(), &config)?;
    let from_stdin = args.input == Path::new(STDIN);
    let inputs: Vec<PathBuf> = args
        .config
        .iter()
        .cloned()
        .chain((!from_stdin).then(|| args.input.clone()))
        .collect();
    outputs::prepare(std::iter::once(&args.output).chain(&args.mot), &inputs)?;
    let (name, bytes) = events(&args.input)?;
    let recordings = RecordedEvents::read_lines(bytes.as_slice(), &name)?;
    if !recordings.is_empty() && recordings.iter().all(|r| r.frames.is_empty()) {
        bail!(
            "{} has track_ended events but no trajectory events; refine needs both: give the whole \
             output of `twintrack track`",
            name.display()
        );
    }
    if args.mot.is_some() && recordings.len() > 1 {
        bail!(
            "{} has the events of {} recordings (one per run and camera), but a MOTChallenge file \
             holds only one; leave out --mot, or refine each recording separately",
            name.display(),
            recordings.len()
        );
    }
    let counts = Counts::default();
    let lines = JsonLines::create(&args.output, false, config.output.ended)?;
    let mut sinks: Vec<Box<dyn Sink>> = vec![Box::new(lines), Box::new(counts.clone())];
    if let Some(path) = &args.mot {
        sinks.push(Box::new(MotText::create(
            path,
            MotContent::Tracks,
            &config.output,
        )?));
    }
    if recordings.is_empty() && !args.quiet {
        eprintln!("  nothing to refine           the input has no trajectory events");
    }
    for recording in &recordings {
        let camera = recording.frames.first().map_or("", |f| &f.camera);
        let scene = scenes.scene(camera)?;
        let refined = recording.refine_and_count(&config.offline, &config.tracker, scene);
        if !args.quiet {
            eprintln!("{}", linking::summary(recording, &refined));
        }
        linking::deliver(&refined, &mut sinks, None, SceneView::default(), &|| false)?;
    }
    sinks.iter_mut().try_for_each(|s| s.finish())?;
    if !args.quiet {
        eprint!("{}", show::counts(&counts, recordings.len() > 1));
        eprint!(
            "{}",
            show::written(&[
                ("trajectories", Some(&args.output)),
                ("MOTChallenge", args.mot.as_ref())
            ])
        );
    }
    Ok(())
}

/// Reads the input's JSON lines. A byte-order mark is removed, and so is an incomplete last line,
/// which a power failure may leave. Also returns the name of the input.
///
/// # Errors
/// If the input cannot be read.
fn events(input: &Path) -> Result<(PathBuf, Vec<u8>)> {
    let (mut bytes, mut name) = (Vec::new(), input.to_path_buf());
    if input == Path::new(STDIN) {
        name = "standard input".into();
        std::io::stdin().lock().read_to_end(&mut bytes)?;
    } else {
        bytes = std::fs::read(input).with_context(|| format!("cannot read {}", input.display()))?;
    }
    if bytes.starts_with(MARK) {
        bytes.drain(..MARK.len());
    }
    let whole = bytes.iter().rposition(|b| *b == b'\n').map_or(0, |i| i + 1);
    let last = &bytes[whole..];
    let is_text = whole > 0 && std::str::from_utf8(&bytes[..whole]).is_ok();
    if is_text && !last.is_empty() && serde_json::from_slice::<IgnoredAny>(last).is_err() {
        tracing::warn!(
            file = %name.display(), bytes = last.len(),
            "the last line is incomplete and is left out; the lines before it are used"
        );
        bytes.truncate(whole);
    }
    Ok((name, bytes))
}

/// The byte-order mark of UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// The path that means standard input.
const STDIN: &str = "-";
