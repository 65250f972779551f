//! `twintrack doctor`: what this machine has, what is missing, and how to repair it.

use std::fmt::Write as _;
use std::path::Path;

use crate::app::show::UNKNOWN;
use crate::detect::{Detector, DetectorConfig, Precision, detector};
use crate::embed::{Embedder, EmbedderConfig};
use crate::infer::{Device, InferError, Model, Runtime, SessionOptions};

/// The report, and whether everything needed is there.
pub fn run() -> (String, bool) {
    let mut r = Report::default();
    r.line(true, "twintrack", env!("CARGO_PKG_VERSION").to_string());
    video(&mut r);
    match Runtime::load() {
        Err(e) => r.line(false, "ONNX Runtime", e.to_string()),
        Ok(runtime) => {
            r.line(true, "ONNX Runtime", runtime.library().display().to_string());
            r.note(Runtime::build_info().split(", build type").next().unwrap_or_default());
            providers(&mut r, &runtime);
            models(&mut r, &runtime);
        }
    }
    (r.text.trim_end().to_string(), r.ok)
}

struct Report {
    text: String,
    ok: bool,
}

impl Default for Report {
    fn default() -> Self {
        Report { text: String::new(), ok: true }
    }
}

impl Report {
    fn line(&mut self, good: bool, what: &str, detail: String) {
        self.ok &= good;
        writeln!(self.text, "{} {what:<16} {detail}", if good { "ok     " } else { "MISSING" }).expect("writing to a string cannot fail");
    }

    fn note(&mut self, text: &str) {
        writeln!(self.text, "{:25}{text}", "").expect("writing to a string cannot fail");
    }
}

#[cfg(feature = "video")]
fn video(r: &mut Report) {
    use opencv::{core, videoio};
    let info = core::get_build_information().unwrap_or_default();
    let version = core::get_version_string().unwrap_or_default();
    r.line(true, "OpenCV", version);
    let names: Vec<String> = videoio::get_backends().into_iter().flatten().filter_map(|b| videoio::get_backend_name(b).ok()).collect();
    let ffmpeg = names.iter().any(|n| n == "FFMPEG");
    let detail = if ffmpeg { names.join(", ") } else { format!("{}; FFMPEG is missing: install libopencv-dev (`make setup`)", names.join(", ")) };
    r.line(ffmpeg, "video back ends", detail);
    for line in info.lines().map(str::trim).filter(|l| ["avcodec", "avformat"].iter().any(|k| l.starts_with(k))) {
        r.note(line);
    }
}

#[cfg(not(feature = "video"))]
fn video(r: &mut Report) {
    r.line(false, "OpenCV", "built without the feature `video`: only MOTChallenge folders with given detections can be read".into());
}

fn providers(r: &mut Report, runtime: &Runtime) {
    let vnni = if detector::has_vnni() { "with VNNI: int8 is the default" } else { "without VNNI: float32 or int8, by a quick test" };
    r.line(true, "provider CPU", vnni.to_string());
    let built = [("CUDA", Runtime::has_cuda(), Device::Cuda(0)), ("TensorRT", Runtime::has_tensorrt(), Device::TensorRt)];
    for (name, built, device) in built {
        // Not having a GPU is no fault; having the library and not being able to use it is worth knowing.
        let state = match built {
            false => "not in this library; `make setup-gpu` takes the one with it".into(),
            true => match Model::open(runtime, Path::new("person_detector.onnx"), SessionOptions { device, threads: 1 }) {
                Ok(m) => format!("works ({})", m.provider()),
                Err(e) => format!("does not work: {e}"),
            },
        };
        r.line(true, &format!("provider {name}"), state);
    }
}

fn models(r: &mut Report, runtime: &Runtime) {
    let options = SessionOptions { device: Device::Cpu, threads: 1 };
    for precision in [Precision::Fp32, Precision::Int8] {
        let config = DetectorConfig { precision, ..DetectorConfig::default() };
        describe(r, runtime, "detector", Detector::open(runtime, &config, options).map(|d| d.model().path().to_path_buf()));
    }
    let embedder = Embedder::open(runtime, &EmbedderConfig::default(), options);
    let known_again = embedder.as_ref().is_ok_and(|e| e.strangers().is_some());
    let known = embedder.is_ok();
    describe(r, runtime, "embedder", embedder.map(|e| e.model().path().to_path_buf()));
    if known {
        r.note(&if known_again {
            "returning people: known again by looks (tracker.reidentify)".into()
        } else {
            format!("returning people: not known again by looks, {UNKNOWN}")
        });
    }
}

fn describe(r: &mut Report, runtime: &Runtime, what: &str, path: Result<std::path::PathBuf, InferError>) {
    match path {
        Err(e) => r.line(false, what, e.to_string()),
        Ok(path) => {
            r.line(true, what, path.display().to_string());
            if let Ok(model) = Model::open(runtime, &path, SessionOptions { device: Device::Cpu, threads: 1 }) {
                model.metadata().entries().for_each(|(k, v)| r.note(&format!("{k}: {v}")));
                model.outputs().iter().for_each(|(name, shape)| r.note(&format!("output {name} {shape:?} (-1 is free)")));
            }
        }
    }
}
