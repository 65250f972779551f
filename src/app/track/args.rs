//! The arguments of `twintrack track`, and the values that follow from them alone.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use crate::app::{options, outputs, settings};
use twintrack::config::{Config, Preset};
use twintrack::detect::Precision;
use twintrack::infer::{Device, InputSize};
use twintrack::source::{self, SourceOptions};
use twintrack::time::{Seconds, Timestamp};
use twintrack::trajectory::RunId;

/// Track the people in a video, a folder of pictures, or a camera.
#[derive(Debug, Args)]
pub struct TrackArgs {
    /// A video file, a folder of pictures, a MOTChallenge sequence folder, a stream (rtsp://,
    /// http://, https://), or a local camera (/dev/video0, or its number).
    pub(super) input: String,
    /// Configuration (TOML); absent keys have their defaults.
    #[arg(short, long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    /// Write the events (trajectories and ends of tracks) as JSON lines to this file; `-` is
    /// standard output.
    #[arg(short, long, value_name = "FILE", default_value = "-")]
    pub(super) output: PathBuf,
    /// Also write a MOTChallenge result file.
    #[arg(long, value_name = "FILE")]
    pub(super) mot: Option<PathBuf>,
    /// Also write ONVIF metadata (the scene description of Profile M): XML, one document a line.
    #[arg(long, value_name = "FILE")]
    pub(super) onvif: Option<PathBuf>,
    /// Also write an annotated video: boxes, ids, coloured trails (.mp4, .mkv, .avi).
    #[arg(long, value_name = "FILE")]
    pub(super) video: Option<PathBuf>,
    /// ONNX file of the detector: a path (./mine.onnx), the name of a file in a `models` folder, or
    /// the name of an installed network (`twintrack models list`). A name is never searched for in
    /// the working folder.
    #[arg(long, value_name = "MODEL")]
    pub(super) detector: Option<PathBuf>,
    /// ONNX file of the embedder (Siamese network): a path (./mine.onnx), the name of a file in a
    /// `models` folder, or the name of an installed network (`twintrack models list`). A name is
    /// never searched for in the working folder.
    #[arg(long, value_name = "MODEL")]
    pub(super) embedder: Option<PathBuf>,
    /// Read the detections from this MOTChallenge file instead of running a detector.
    #[arg(long, value_name = "FILE", conflicts_with = "detector")]
    pub(super) detections: Option<PathBuf>,
    /// Also write the detections as a MOTChallenge file, to track again with --detections.
    #[arg(long, value_name = "FILE")]
    pub(super) save_detections: Option<PathBuf>,
    /// Run without an embedder: associate detections with tracks by motion only.
    #[arg(long, conflicts_with = "embedder")]
    pub(super) no_embed: bool,
    /// Identify the people of a gallery: a folder with one picture per person, named after the
    /// person, or with a subfolder of pictures for each person.
    #[arg(long, value_name = "DIR", conflicts_with = "no_embed")]
    pub(super) gallery: Option<PathBuf>,
    /// Add the mean embedding of each track to its `track_ended` event, for `twintrack search`.
    #[arg(long, conflicts_with = "no_embed")]
    pub(super) embeddings: bool,
    /// After the end of the recording, link its tracks and fill their gaps: fewer identity
    /// switches, but no output until then.
    #[arg(long)]
    pub(super) offline: bool,
    /// Choice between speed and accuracy: fast, balanced or accurate. It decides
    /// `detector.precision`, `detector.longest_side`, `embedder.crops`, `cadence.max_interval` and
    /// `cadence.overlap` where they are auto.
    #[arg(long, value_name = "PRESET")]
    pub(super) preset: Option<Preset>,
    /// Device on which networks run: auto, cpu, cuda, cuda:N or tensorrt.
    #[arg(long, value_name = "DEVICE")]
    pub(super) device: Option<Device>,
    /// Number format of the shipped detector: auto, fp32 or int8. int8 is faster where the
    /// processor has VNNI.
    #[arg(long, value_name = "FORMAT", value_parser = options::parse_precision)]
    pub(super) precision: Option<Precision>,
    /// Size of the detector's input in pixels: WIDTHxHEIGHT or auto. A larger one detects smaller
    /// people; the time grows with the area.
    #[arg(long, value_name = "SIZE")]
    pub(super) size: Option<InputSize>,
    /// CPU threads of each network; 0: one per core.
    #[arg(long, value_name = "N")]
    pub(super) threads: Option<usize>,
    /// Begin this many seconds into the input.
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0.0,
        value_parser = options::parse_seconds
    )]
    pub(super) start: f64,
    /// Stop this many seconds after --start.
    #[arg(long, value_name = "SECONDS", value_parser = options::parse_seconds)]
    pub(super) duration: Option<f64>,
    /// Short name of the camera in events; by default from the input: the name of the file or
    /// folder, or the host of a stream.
    #[arg(long, value_name = "NAME")]
    pub(super) camera: Option<String>,
    /// Wall-clock time of a recording's first frame (RFC 3339), so that events have `time`.
    #[arg(long, value_name = "TIME", value_parser = options::parse_time)]
    pub(super) recorded_at: Option<Timestamp>,
    /// Frames per second of a folder of pictures that does not state it; 25 by default.
    #[arg(long, value_name = "FPS", value_parser = options::parse_rate)]
    pub(super) frame_rate: Option<f64>,
    /// Exit with code 1 at the end if a frame could not be decoded or a picture could not be read.
    /// In any case such frames are dropped and counted.
    #[arg(long)]
    pub(super) strict: bool,
    /// Treat the address as a camera, which is reconnected when its stream ends.
    #[arg(long, conflicts_with = "recording")]
    pub(super) live: bool,
    /// Treat the address as a recording: no frame is dropped, and the run ends with it.
    #[arg(long)]
    pub(super) recording: bool,
    /// Divide the confidences of --detections by this (100 for percentages).
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1.0,
        value_parser = options::parse_scale,
        requires = "detections"
    )]
    pub(super) confidence_scale: f64,
    /// Id of this run in events (UUID); by default a new one.
    #[arg(long, value_name = "UUID")]
    pub(super) run_id: Option<RunId>,
    /// Print no progress and no summary.
    #[arg(short, long)]
    pub(super) quiet: bool,
}

/// The configuration: the file's settings, overridden by command-line options.
///
/// # Errors
/// If the file cannot be used, or a value is out of range.
pub(super) fn configure(args: &TrackArgs) -> Result<Config> {
    let mut c = settings::read(args.config.as_deref())?;
    fn set<T: Clone>(to: &mut T, from: &Option<T>) {
        if let Some(v) = from {
            to.clone_from(v);
        }
    }
    set(&mut c.preset, &args.preset);
    set(&mut c.device, &args.device);
    set(&mut c.threads, &args.threads);
    set(&mut c.detector.model, &args.detector);
    set(&mut c.detector.precision, &args.precision);
    set(&mut c.detector.size, &args.size);
    set(&mut c.embedder.model, &args.embedder);
    c.embedder.enabled &= !args.no_embed;
    if args.embeddings && !c.privacy.embeddings {
        bail!(
            "--embeddings: privacy.embeddings = false in the configuration forbids to write embeddings"
        );
    }
    c.output.embeddings |= args.embeddings;
    // Linking gains from every detection, and --save-detections must have the detections of every
    // frame.
    let whole = (args.offline && c.preset != Preset::Fast) || args.save_detections.is_some();
    if whole && c.cadence.max_interval.is_none() {
        c.cadence.max_interval = Some(0.0);
    }
    c.validate()?;
    Ok(c)
}

#[cfg(feature = "video")]
impl TrackArgs {
    /// The configuration file, and the transport of an input that is a stream or a local camera.
    pub fn input(&self) -> (Option<&std::path::Path>, Option<source::Transport>) {
        let transport = source::is_stream(&self.input).then_some(source::Transport::Tcp);
        (self.config.as_deref(), transport)
    }
}

/// Options for reading the input.
pub(super) fn source_options(args: &TrackArgs, config: &Config) -> SourceOptions {
    SourceOptions::default()
        .with_camera(args.camera.clone())
        .with_start(Seconds(args.start))
        .with_duration(args.duration.map(Seconds))
        .with_recorded_at(args.recorded_at)
        .with_pixels_optional(
            args.detections.is_some() && !config.embedder.enabled && args.video.is_none(),
        )
        .with_frame_rate(args.frame_rate)
        .with_decoding(config.source)
        .with_recorded(if args.live {
            Some(false)
        } else {
            args.recording.then_some(true)
        })
}

/// The kinds of output and their files.
pub(super) fn outputs_of(args: &TrackArgs) -> [(&'static str, Option<&PathBuf>); 5] {
    [
        ("trajectories", Some(&args.output)),
        ("MOTChallenge", args.mot.as_ref()),
        ("ONVIF metadata", args.onvif.as_ref()),
        ("annotated video", args.video.as_ref()),
        ("detections", args.save_detections.as_ref()),
    ]
}

/// Checks that no output is also an input or another output, and creates the folders of outputs.
///
/// # Errors
/// The first conflict, or a folder that cannot be created.
pub(super) fn check_outputs(args: &TrackArgs) -> Result<()> {
    let input = source::path_of(&args.input);
    let sequence_video = source::sequence_video(&input).ok().flatten();
    let folders = [Some(&input), args.gallery.as_ref()];
    let mut inputs = source::pictures_below(folders.into_iter().flatten());
    inputs.extend(
        [
            Some(input),
            sequence_video,
            args.detections.clone(),
            args.config.clone(),
            args.detector.clone(),
            args.embedder.clone(),
        ]
        .into_iter()
        .flatten(),
    );
    outputs::prepare(
        outputs_of(args).into_iter().filter_map(|(_, path)| path),
        &inputs,
    )
}
