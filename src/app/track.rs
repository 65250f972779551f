//! `twintrack track INPUT`: tracks the people in one input and writes trajectories.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

use crate::app::linking::Pictures;
use crate::app::scenes::Scenes;
use crate::app::signals::Signals;
use crate::app::{detections, identities, linking, networks, show};
use twintrack::address;
use twintrack::analytics::Scene;
use twintrack::config::Config;
use twintrack::pipeline::{Cameras, Input, Inputs, Pipeline, StageTimes, Summary};
use twintrack::refine::RecordedEvents;
use twintrack::sink::Sink;
use twintrack::sink::counts::Counts;
use twintrack::sink::jsonl::JsonLines;
use twintrack::sink::mot::{MotContent, MotText};
use twintrack::sink::onvif::OnvifMetadata;
use twintrack::sink::privacy::{Blur, PeopleRecorder};
use twintrack::sink::recorder::Recorder;
use twintrack::source::{self, Link, SourceInfo, SourceOptions};

mod args;

pub use args::TrackArgs;
use args::{check_outputs, configure, outputs_of, source_options};

/// Runs the command. The exit code is 130 after SIGINT (Ctrl-C). After SIGTERM it is 143, or 0 if
/// the work was finished or the input is live: a signal is the usual end of such a run.
///
/// # Errors
/// The failure that ended the run, or the one that [`check_frames`] or [`conclude`] found after it.
pub fn run(args: TrackArgs) -> Result<ExitCode> {
    let config = configure(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the async runtime")?;
    runtime.block_on(track(&args, config))
}

async fn track(args: &TrackArgs, config: Config) -> Result<ExitCode> {
    check_outputs(args)?;
    let options = source_options(args, &config);
    let input = Input::open(&args.input, options.clone())?;
    let info = input.info().clone();
    let scenes = Scenes::read(args.config.as_deref(), &config)?;
    scenes.warn_of_unused(&info.camera);
    let input = input.with_scene(scenes.during(&info.camera, args.offline));
    if args.offline && info.live {
        bail!(
            "--offline needs a recording, because a camera has no end: record the camera to a \
             file first, or leave out --offline"
        );
    }
    let mut embedder = networks::embedder(&config)?;
    let (detections, batch) = {
        let given = args.detections.as_deref();
        detections::source(
            given,
            args.confidence_scale,
            &config,
            &info,
            embedder.as_ref(),
        )?
    };
    show::models(&detections, embedder.as_ref());
    let identities = identities::registry(
        args.gallery.as_deref(),
        false,
        &config,
        &mut embedder,
        args.quiet,
    )?;
    let (times, cameras) = (Arc::new(StageTimes::default()), Cameras::default());
    let signals = Signals::listen();
    let recorder = Recorder::default();
    let outputs = Outputs::create(args, &config, &info, &recorder)?;
    let shapes = scenes.config(&info.camera);
    outputs
        .counts
        .declare(&info.camera, shapes.zones.keys(), shapes.lines.keys());
    let mut pipeline = Pipeline {
        embed_policy: networks::embed_policy(&config, embedder.as_ref()),
        cadence: networks::cadence(&config, &detections),
        embedder,
        tracker: config.tracker(args.offline),
        embeddings: config.output.embeddings || args.offline,
        identities,
        sinks: outputs.during,
        output: config.output.clone(),
        blur: config.privacy.blur,
        counting: config.counting.clone(),
        batch,
        observer: times.clone(),
        cameras: cameras.clone(),
        stop: signals.stop(),
        ..Pipeline::new(Inputs::One(input), detections)
    };
    if let Some(run) = args.run_id {
        pipeline.run = run;
    }
    let display = (!args.quiet).then(|| tokio::spawn(show::progress(cameras, info.frames)));
    let result = pipeline.run().await;
    if let Some(d) = display {
        d.abort();
        let _ = d.await; // aborted on purpose
    }
    let summary = result?;
    check_frames(&summary, &address::masked(&args.input), args.start)?;
    if !args.quiet {
        eprintln!("{}", show::summary(&summary, &times.busy()));
    }
    let mut finished = info.live || !summary.interrupted;
    if args.offline {
        let events = recorder.take();
        let scene = scenes.scene(&info.camera)?;
        finished &= link_and_write(
            args,
            &config,
            options,
            &events,
            scene,
            outputs.after,
            &signals,
        )?;
    }
    if !args.quiet {
        eprint!("{}", show::counts(&outputs.counts, false));
    }
    warn_of_unused_detections(args, &summary, &info);
    conclude(args, summary)?;
    Ok(signals.code(finished).unwrap_or(ExitCode::SUCCESS))
}

/// Checks that at least one frame of `input` was tracked, unless the run was stopped or the end of
/// the input is missing. `start`: value of --start, in seconds.
///
/// # Errors
/// If none was, with the reason: the networks failed, no frame could be decoded, or there is none.
fn check_frames(summary: &Summary, input: &str, start: f64) -> Result<()> {
    match *summary {
        Summary { frames: 1.., .. }
        | Summary {
            interrupted: true, ..
        }
        | Summary { cut: Some(_), .. } => Ok(()),
        Summary {
            failed: failed @ 1..,
            ..
        } => bail!(
            "no frame of {input} was tracked: a network failed on {failed} frames; the reasons are \
             logged above"
        ),
        Summary {
            damaged: damaged @ 1..,
            ..
        } => bail!(
            "no frame of {input} could be decoded or read ({damaged} frames are damaged); is the \
             file complete?"
        ),
        _ => bail!(
            "{input} has no frame between {start} s and the end of the part to track; check \
             --start and --duration"
        ),
    }
}

/// Warns of detections whose frames the input does not have. If only a part of the input was read,
/// warns only if no detection belongs to that part.
fn warn_of_unused_detections(args: &TrackArgs, summary: &Summary, info: &SourceInfo) {
    let is_part = args.start > 0.0 || args.duration.is_some();
    let is_whole = !info.live && !summary.interrupted && summary.cut.is_none();
    if let Some(path) = &args.detections
        && is_whole
        && (!is_part || summary.detections == 0)
    {
        detections::warn_of_unused(path, summary.unused, summary.frames);
    }
}

/// Lists the files written, and decides whether the run counts as a success.
///
/// # Errors
/// If the input's end is missing, or frames were damaged under `--strict`.
fn conclude(args: &TrackArgs, summary: Summary) -> Result<()> {
    if !args.quiet {
        eprint!("{}", show::written(&outputs_of(args)));
    }
    if let Some(cut) = summary.cut {
        return Err(cut.into());
    }
    if args.strict && summary.damaged > 0 {
        bail!(
            "{} frames of {} could not be decoded or read, which is an error with --strict; \
             trajectories of the other frames were written",
            summary.damaged,
            address::masked(&args.input)
        );
    }
    Ok(())
}

/// The sinks of a run.
struct Outputs {
    /// Sinks that receive events while the input is read.
    during: Vec<Box<dyn Sink>>,
    /// Sinks that receive the linked tracks after the end of the input.
    after: AfterLinking,
    /// The numbers of people in zones and over lines.
    counts: Counts,
}

impl Outputs {
    /// Creates the files. With `--offline`, only `recorder` receives the events while the input is
    /// read; the files are written after linking.
    ///
    /// # Errors
    /// If a file cannot be created.
    fn create(
        args: &TrackArgs,
        config: &Config,
        info: &SourceInfo,
        recorder: &Recorder,
    ) -> Result<Self> {
        let mut outputs = Outputs {
            during: sinks(args, config, info)?,
            after: AfterLinking::default(),
            counts: Counts::default(),
        };
        outputs.during.push(Box::new(outputs.counts.clone()));
        if args.offline {
            let recorder: Vec<Box<dyn Sink>> = vec![Box::new(recorder.clone())];
            outputs.after.sinks = std::mem::replace(&mut outputs.during, recorder);
            if args.video.is_some() && config.privacy.blur != Blur::None {
                outputs.during.push(Box::new(outputs.after.people.clone()));
            }
        }
        if let Some(path) = &args.save_detections {
            let detections = MotText::create(path, MotContent::Detections, &config.output)?;
            outputs.during.push(Box::new(detections));
        }
        Ok(outputs)
    }
}

/// The sinks that receive linked tracks.
#[derive(Default)]
struct AfterLinking {
    sinks: Vec<Box<dyn Sink>>,
    /// Whom the pictures may show, if they are to be hidden.
    people: PeopleRecorder,
}

/// Links the tracks of a finished run and writes the outputs. Returns `false` if a signal stopped
/// it.
fn link_and_write(
    args: &TrackArgs,
    config: &Config,
    options: SourceOptions,
    events: &RecordedEvents,
    mut scene: Scene,
    AfterLinking { mut sinks, people }: AfterLinking,
    signals: &Signals,
) -> Result<bool> {
    tracing::info!(tracks = events.ended.len(), "linking tracks");
    // Linking has no partial result: a signal ends the program at once.
    signals.begin_abrupt_phase();
    let size = events.frames.first().map(|f| (f.width, f.height));
    let shapes = size.map(|s| scene.shapes(s)).unwrap_or_default();
    let refined = linking::refined(events, config, scene);
    let stop = signals.begin_graceful_phase();
    // The first pass's [`Link`] may hold a stop request, so the second pass gets a new one.
    let second_pass = options.with_link(Link::default());
    let pictures = if args.video.is_some() {
        Some(source::open(&args.input, &second_pass)?)
    } else {
        None
    };
    let pictures = pictures.map(|source| Pictures {
        source,
        people,
        blur: config.privacy.blur,
    });
    linking::deliver(&refined, &mut sinks, pictures, shapes, &|| {
        stop.is_cancelled()
    })?;
    sinks.iter_mut().try_for_each(|s| s.finish())?;
    if !args.quiet {
        eprintln!("{}", linking::summary(events, &refined));
    }
    Ok(!stop.is_cancelled())
}

fn sinks(args: &TrackArgs, config: &Config, info: &SourceInfo) -> Result<Vec<Box<dyn Sink>>> {
    let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
    sinks.push(Box::new(JsonLines::create(
        &args.output,
        info.live,
        config.output.ended,
    )?));
    if let Some(path) = &args.mot {
        sinks.push(Box::new(MotText::create(
            path,
            MotContent::Tracks,
            &config.output,
        )?));
    }
    if let Some(path) = &args.onvif {
        sinks.push(Box::new(OnvifMetadata::create(path, info.live)?));
    }
    if let Some(path) = &args.video {
        sinks.push(annotated(path, info)?);
    }
    Ok(sinks)
}

#[cfg(feature = "video")]
fn annotated(path: &Path, info: &SourceInfo) -> Result<Box<dyn Sink>> {
    Ok(Box::new(twintrack::sink::overlay::Overlay::create(
        path,
        info.frame_rate,
    )?))
}

#[cfg(not(feature = "video"))]
fn annotated(path: &Path, _: &SourceInfo) -> Result<Box<dyn Sink>> {
    bail!(
        "cannot write the video {}: this program was built without the feature `video`; rebuild it \
         with --features video, or leave out --video",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: if a network had failed on all frames, --start and --duration were blamed.
    #[test]
    fn an_error_about_no_frame_names_the_cause() {
        let error = |summary: Summary| {
            check_frames(&summary, "a.mp4", 2.0).map_or_else(|e| e.to_string(), |()| String::new())
        };
        let with = |failed, damaged| Summary {
            failed,
            damaged,
            ..Summary::default()
        };
        assert!(error(with(3, 1)).contains("network failed on 3 frames"));
        assert!(error(with(0, 2)).contains("2 frames are damaged"));
        assert!(error(with(0, 0)).contains("no frame between 2 s"));
        let stopped = Summary {
            interrupted: true,
            ..Summary::default()
        };
        let tracked = Summary {
            frames: 1,
            ..with(3, 1)
        };
        assert_eq!((error(stopped), error(tracked)), Default::default());
    }
}
