//! `twintrack doctor`: checks the installation and reports what is missing and how to fix it.

use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use crate::app::settings;
use crate::app::show::{NO_STRANGER_RATES, batch};
use twintrack::config::ConfigError;
use twintrack::detect::{Detector, DetectorConfig, Precision, precision};
use twintrack::embed::{Embedder, EmbedderConfig};
use twintrack::infer::paths::find_model;
use twintrack::infer::{Device, InferError, Model, Runtime, SessionOptions};

/// Check the installation: report which components work, how to fix the others, and how the
/// networks' inputs and outputs are interpreted.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// Configuration (TOML), of which [embedder] and [detector] are used.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Check this detector instead of the configured one (default: the shipped one). An ONNX file:
    /// a path (./mine.onnx), the name of a file in a `models` folder, or the name of an installed
    /// network (`twintrack models list`).
    #[arg(long, value_name = "MODEL")]
    detector: Option<PathBuf>,
    /// Check this embedder instead of the configured one (default: the shipped one). An ONNX file:
    /// a path (./mine.onnx), the name of a file in a `models` folder, or the name of an installed
    /// network (`twintrack models list`).
    #[arg(long, value_name = "MODEL")]
    embedder: Option<PathBuf>,
}

/// Runs the command; returns the report, and whether every required component works.
///
/// # Errors
/// When the configuration cannot be read.
pub fn run(args: &DoctorArgs) -> Result<(String, bool), ConfigError> {
    let mut config = settings::read(args.config.as_deref())?;
    config.detector.model = args.detector.clone().unwrap_or(config.detector.model);
    config.embedder.model = args.embedder.clone().unwrap_or(config.embedder.model);
    let mut r = Report::default();
    r.line(
        State::Works,
        "twintrack",
        env!("CARGO_PKG_VERSION").to_string(),
    );
    video(&mut r);
    match Runtime::load() {
        Err(e) => r.line(State::Failed, "ONNX Runtime", e.to_string()),
        Ok(runtime) => {
            r.line(
                State::Works,
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
            detectors(&mut r, &runtime, &config.detector());
            embedder(&mut r, &runtime, &config.embedder);
        }
    }
    Ok((r.text.trim_end().to_string(), r.ok))
}

/// State of a component.
#[derive(Clone, Copy)]
enum State {
    Works,
    /// An optional component does not work.
    Unavailable,
    /// A required component does not work.
    Failed,
}

struct Report {
    text: String,
    /// Whether all required components work.
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
    /// Adds the line of a component. [`State::Failed`] makes the command fail.
    fn line(&mut self, state: State, what: &str, detail: String) {
        let label = match state {
            State::Works => "ok",
            State::Unavailable => "-",
            State::Failed => "FAILED",
        };
        self.ok &= !matches!(state, State::Failed);
        writeln!(self.text, "{label:<6} {what:<17} {detail}")
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
    r.line(State::Works, "OpenCV", version);
    let names: Vec<String> = videoio::get_backends()
        .into_iter()
        .flatten()
        .filter_map(|b| videoio::get_backend_name(b).ok())
        .collect();
    let ffmpeg = names.iter().any(|n| n == "FFMPEG");
    let (state, remedy) = if ffmpeg {
        (State::Works, "")
    } else {
        (
            State::Failed,
            "; OpenCV was built without FFmpeg: install libopencv-dev (`make setup`)",
        )
    };
    r.line(state, "video back ends", names.join(", ") + remedy);
    for line in info
        .lines()
        .map(str::trim)
        .filter(|l| ["avcodec", "avformat"].iter().any(|k| l.starts_with(k)))
    {
        r.note(line);
    }
    hardware_decoding(r);
}

#[cfg(feature = "video")]
fn hardware_decoding(r: &mut Report) {
    use twintrack::source::{Hardware, video};
    let found: Vec<String> = video::hardware().iter().map(Hardware::to_string).collect();
    let (state, detail) = if found.is_empty() {
        (
            State::Unavailable,
            "no device of VA-API or NVDEC: videos are decoded on the CPU".to_string(),
        )
    } else {
        (
            State::Works,
            found.join(", ") + "; used if source.hardware = \"auto\" is set",
        )
    };
    r.line(state, "video hardware", detail);
}

#[cfg(not(feature = "video"))]
fn video(r: &mut Report) {
    let detail = "this program was built without the feature `video`: it reads only MOTChallenge \
                  folders with given detections; rebuild it with --features video";
    r.line(State::Failed, "OpenCV", detail.into());
}

/// Opens the shipped detector on `device`, to find out whether the device works.
fn open_shipped(runtime: &Runtime, device: Device) -> Result<Model, InferError> {
    let path = find_model(&DetectorConfig::default().model)?;
    Model::open(runtime, &path, SessionOptions::new(device, 1))
}

fn providers(r: &mut Report, runtime: &Runtime) {
    let vnni = if precision::has_vnni() {
        "has VNNI: the shipped detector runs in int8 by default"
    } else {
        "no VNNI: a short benchmark chooses float32 or int8 for the shipped detector"
    };
    r.line(State::Works, "provider CPU", vnni.to_string());
    let providers = [
        ("CUDA", Runtime::has_cuda(), Device::Cuda(0)),
        ("TensorRT", Runtime::has_tensorrt(), Device::TensorRt),
    ];
    for (name, is_built, device) in providers {
        let opened = is_built.then(|| open_shipped(runtime, device).map(|m| m.provider()));
        let (state, detail) = gpu(name, opened);
        r.line(state, &format!("provider {name}"), detail);
    }
}

/// The line of a GPU's provider, which is optional. `opened` is the result of opening the shipped
/// detector with it; `None` if this build of ONNX Runtime does not have it.
fn gpu(name: &str, opened: Option<Result<impl std::fmt::Display, InferError>>) -> (State, String) {
    match opened {
        Some(Ok(provider)) => (
            State::Works,
            format!("opens the shipped detector ({provider})"),
        ),
        Some(Err(e)) => (State::Unavailable, format!("does not work: {e}")),
        None => (
            State::Unavailable,
            format!(
                "this ONNX Runtime was built without {name}; `make setup-gpu` installs a build \
                 that has it"
            ),
        ),
    }
}

const ON_CPU: SessionOptions = SessionOptions::new(Device::Cpu, 1);

/// Reports on the configured detector; if it is the shipped one, in both precisions.
fn detectors(r: &mut Report, runtime: &Runtime, config: &DetectorConfig) {
    let shipped = config.model == DetectorConfig::default().model;
    let precisions: &[Precision] = if shipped {
        &[Precision::Fp32, Precision::Int8]
    } else {
        &[config.precision]
    };
    for &precision in precisions {
        match Detector::open(runtime, &config.clone().with_precision(precision), ON_CPU) {
            Err(e) => r.line(State::Failed, "detector", e.to_string()),
            Ok(d) => {
                let format = d.format();
                report_model(r, "detector", d.model());
                r.note(&format!(
                    "layout: {} (from {})",
                    format.layout.value.name(),
                    format.layout.reason
                ));
                r.note(&format!(
                    "number of the class \"person\": {} (from {})",
                    format.class.value, format.class.reason
                ));
                r.note(&format!(
                    "pixel format: {} (from {})",
                    format.pixels.value, format.pixels.reason
                ));
                metadata(r, d.model());
            }
        }
    }
}

fn embedder(r: &mut Report, runtime: &Runtime, config: &EmbedderConfig) {
    let e = match Embedder::open(runtime, config, ON_CPU) {
        Err(e) => return r.line(State::Failed, "embedder", e.to_string()),
        Ok(e) => e,
    };
    report_model(r, "embedder", e.model());
    let (w, h) = e.size();
    let (pixels, dimension, output) = (e.pixels(), e.dimension(), e.output());
    r.note(&format!(
        "pixel format: {pixels}, crops of {w}x{h} pixels, embeddings of dimension {dimension} from \
         the output '{output}'"
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
fn report_model(r: &mut Report, what: &str, model: &Model) {
    r.line(State::Works, what, model.path().display().to_string());
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
        .for_each(|(k, v)| r.note(&format!("metadata {k}: {v}")));
    model
        .outputs()
        .iter()
        .for_each(|(name, shape)| r.note(&format!("output {name} {shape:?} (-1: any size)")));
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: a provider that does not work was reported as `ok`.
    #[test]
    fn an_optional_component_that_does_not_work_is_not_ok_and_does_not_fail_the_report() {
        let broken = InferError::Device {
            device: Device::Cuda(0),
            reason: "no driver".into(),
        };
        let mut r = Report::default();
        for (name, opened) in [
            ("CUDA", Some(Err(broken))),
            ("TensorRT", None),
            ("CPU", Some(Ok("CPU"))),
        ] {
            let (state, detail) = gpu(name, opened);
            r.line(state, name, detail);
        }
        let lines: Vec<&str> = r.text.lines().collect();
        assert!(r.ok && lines[0].starts_with("- ") && lines[0].contains("no driver"));
        assert!(lines[1].starts_with("- ") && lines[1].contains("make setup-gpu"));
        assert!(lines[2].starts_with("ok "), "{}", r.text);
        r.line(State::Failed, "detector", "no file".into());
        assert!(!r.ok && r.text.ends_with("FAILED detector          no file\n"));
    }
}
