//! `twintrack doctor`: checks the installation and reports what is missing and how to fix it.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use crate::app::settings;
use crate::app::show::{NO_STRANGER_RATES, batch};
use twintrack::config::ConfigError;
use twintrack::detect::{Detector, DetectorConfig, Precision, detector};
use twintrack::embed::{Embedder, EmbedderConfig};
use twintrack::infer::paths::find_model;
use twintrack::infer::{Device, InferError, Model, Runtime, SessionOptions};

/// Check the installation: report what is there, what is missing and how to fix it, and how the
/// networks' inputs and outputs are interpreted.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Configuration (TOML), of which [embedder] and [detector] are used.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check this detector instead of the shipped ones: an ONNX file (./mine.onnx), or the name of
    /// an installed network.
    #[arg(long, value_name = "MODEL")]
    detector: Option<PathBuf>,
    /// Check this embedder instead of the shipped one.
    #[arg(long, value_name = "MODEL")]
    embedder: Option<PathBuf>,
}

/// Runs the command; returns the report, and whether everything required works.
///
/// # Errors
/// When the configuration cannot be read.
pub fn run(args: &DoctorArgs) -> Result<(String, bool), ConfigError> {
    let mut config = settings::read(args.config.as_deref())?;
    config.detector.model = args.detector.clone().unwrap_or(config.detector.model);
    config.embedder.model = args.embedder.clone().unwrap_or(config.embedder.model);
    let mut r = Report::default();
    r.line(true, "twintrack", env!("CARGO_PKG_VERSION").to_string());
    video(&mut r);
    match Runtime::load() {
        Err(e) => r.line(false, "ONNX Runtime", e.to_string()),
        Ok(runtime) => {
            r.line(
                true,
                "ONNX Runtime",
                runtime.library().display().to_string(),
            );
            r.note(
                Runtime::build_info()
                    .split(", build type")
                    .next()
                    .unwrap_or_default(),
            );
            providers(&mut r, &runtime);
            detectors(&mut r, &runtime, &config.detector);
            embedder(&mut r, &runtime, &config.embedder);
        }
    }
    Ok((r.text.trim_end().to_string(), r.ok))
}

struct Report {
    text: String,
    ok: bool,
}

impl Default for Report {
    fn default() -> Self {
        Report {
            text: String::new(),
            ok: true,
        }
    }
}

impl Report {
    /// Adds a line for a component. One that is not `good` fails the report.
    fn line(&mut self, good: bool, what: &str, detail: String) {
        self.ok &= good;
        writeln!(
            self.text,
            "{} {what:<16} {detail}",
            if good { "ok     " } else { "MISSING" }
        )
        .expect("writing to a String cannot fail");
    }

    /// Adds a detail of the component above.
    fn note(&mut self, text: &str) {
        writeln!(self.text, "{:25}{text}", "").expect("writing to a String cannot fail");
    }
}

#[cfg(feature = "video")]
fn video(r: &mut Report) {
    use opencv::{core, videoio};
    let info = core::get_build_information().unwrap_or_default();
    let version = core::get_version_string().unwrap_or_default();
    r.line(true, "OpenCV", version);
    let names: Vec<String> = videoio::get_backends()
        .into_iter()
        .flatten()
        .filter_map(|b| videoio::get_backend_name(b).ok())
        .collect();
    let ffmpeg = names.iter().any(|n| n == "FFMPEG");
    let detail = if ffmpeg {
        names.join(", ")
    } else {
        format!(
            "{}; FFMPEG is missing: install libopencv-dev (`make setup`)",
            names.join(", ")
        )
    };
    r.line(ffmpeg, "video back ends", detail);
    for line in info
        .lines()
        .map(str::trim)
        .filter(|l| ["avcodec", "avformat"].iter().any(|k| l.starts_with(k)))
    {
        r.note(line);
    }
}

#[cfg(not(feature = "video"))]
fn video(r: &mut Report) {
    let detail = "built without the feature `video`: \
                  only MOTChallenge folders with given detections can be read";
    r.line(false, "OpenCV", detail.into());
}

/// Opens the shipped detector on a device.
fn open_shipped(runtime: &Runtime, device: Device) -> Result<Model, InferError> {
    let path = find_model(&DetectorConfig::default().model)?;
    Model::open(runtime, &path, SessionOptions::new(device, 1))
}

fn providers(r: &mut Report, runtime: &Runtime) {
    let vnni = if detector::has_vnni() {
        "with VNNI: int8 is the default"
    } else {
        "without VNNI: float32 or int8, chosen by a short benchmark"
    };
    r.line(true, "provider CPU", vnni.to_string());
    let built = [
        ("CUDA", Runtime::has_cuda(), Device::Cuda(0)),
        ("TensorRT", Runtime::has_tensorrt(), Device::TensorRt),
    ];
    for (name, built, device) in built {
        // A GPU is optional, so its absence does not fail the report.
        let state = match built {
            false => "not in this library; `make setup-gpu` installs the one with it".into(),
            true => match open_shipped(runtime, device) {
                Ok(m) => format!("works ({})", m.provider()),
                Err(e) => format!("does not work: {e}"),
            },
        };
        r.line(true, &format!("provider {name}"), state);
    }
}

const ON_CPU: SessionOptions = SessionOptions::new(Device::Cpu, 1);

/// Reports on the configured detector; on the shipped one in both precisions.
fn detectors(r: &mut Report, runtime: &Runtime, config: &DetectorConfig) {
    let shipped = config.model == DetectorConfig::default().model;
    let precisions: &[Precision] = if shipped {
        &[Precision::Fp32, Precision::Int8]
    } else {
        &[config.precision]
    };
    for &precision in precisions {
        match Detector::open(runtime, &config.clone().with_precision(precision), ON_CPU) {
            Err(e) => r.line(false, "detector", e.to_string()),
            Ok(d) => {
                let format = d.format();
                file(r, "detector", d.model());
                r.note(&format!(
                    "layout: {} (decided by {})",
                    format.layout.value.name(),
                    format.layout.reason
                ));
                r.note(&format!(
                    "class of persons: {} (decided by {})",
                    format.class.value, format.class.reason
                ));
                r.note(&format!(
                    "pixels: {} (decided by {})",
                    format.pixels.value, format.pixels.reason
                ));
                metadata(r, d.model());
            }
        }
    }
}

fn embedder(r: &mut Report, runtime: &Runtime, config: &EmbedderConfig) {
    let e = match Embedder::open(runtime, config, ON_CPU) {
        Err(e) => return r.line(false, "embedder", e.to_string()),
        Ok(e) => e,
    };
    file(r, "embedder", e.model());
    let (w, h) = e.size();
    let (pixels, length, output) = (e.pixels(), e.dimension(), e.output());
    r.note(&format!(
        "pixels: {pixels}, crops of {w}x{h}, vectors of length {length} from the output '{output}'"
    ));
    metadata(r, e.model());
    if let Err(e) = e.calibrated() {
        r.note(&format!("similarity (compare, search, --gallery): {e}"));
    }
    r.note(&if e.strangers().is_some() {
        "re-identification (tracker.reidentify): available".into()
    } else {
        format!("re-identification (tracker.reidentify): off, {NO_STRANGER_RATES}")
    });
}

/// Reports a network's file, the hash of its weights and its batch size.
fn file(r: &mut Report, what: &str, model: &Model) {
    r.line(true, what, model.path().display().to_string());
    r.note(&format!(
        "weights: {}, batch size: {}",
        model.weights(),
        batch(model)
    ));
}

/// Reports a network's metadata and outputs.
fn metadata(r: &mut Report, model: &Model) {
    model
        .metadata()
        .entries()
        .for_each(|(k, v)| r.note(&format!("{k}: {v}")));
    model
        .outputs()
        .iter()
        .for_each(|(name, shape)| r.note(&format!("output {name} {shape:?} (-1: dynamic)")));
}
