//! The crate as a library: the programs in `examples/` work as documented, and its types can be
//! extended.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

mod common;

/// An example program; cargo builds them beside the tests.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("this test's path");
    let target = test.ancestors().nth(2).expect("below the target folder");
    let path: PathBuf = target.join("examples").join(name);
    assert!(path.is_file(), "{} was not built", path.display());
    Command::new(path)
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("the example starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn track_boxes_follows_two_people_in_a_detection_file() {
    let mut detections = String::new();
    for frame in 1..=30 {
        for (left, speed) in [(100.0, 4.0), (500.0, -4.0)] {
            let left = left + speed * f64::from(frame);
            writeln!(detections, "{frame},-1,{left},80,40,100,0.9,-1,-1,-1").expect("to a String");
        }
    }
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), detections).expect("written");
    let tracks = output(example("track_boxes").arg(file.path()).arg("25"));
    let ids: Vec<(&str, bool)> = tracks
        .lines()
        .map(|line| {
            let mut fields = line.split(',').skip(1);
            let (id, left) = (
                fields.next().expect("an id"),
                fields.next().expect("a left edge"),
            );
            (id, left.parse::<f64>().expect("a number") < 300.0)
        })
        .collect();
    // Each side has one id, and most of the 60 boxes are written.
    assert!(ids.len() > 40, "{tracks}");
    let first = ids
        .iter()
        .find(|(_, left)| *left)
        .expect("one on the left")
        .0;
    assert!(
        ids.iter().all(|(id, left)| (*id == first) == *left),
        "{tracks}"
    );
}

/// Source files of the library, without those of the programs.
fn library_sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() && !path.ends_with("src/app") && !path.ends_with("src/bin") {
            library_sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Configuration structs and error enums of a source text, with whether they are
/// `#[non_exhaustive]`.
fn extensible_types(source: &str) -> Vec<(String, bool)> {
    let mut attributes = Vec::new();
    let mut found = Vec::new();
    for line in source.lines() {
        let mut words = line.split(|c: char| !c.is_alphanumeric() && c != '_');
        if line.starts_with("#[") {
            attributes.push(line);
            continue;
        }
        let ends: &[&str] = match (words.next(), words.next()) {
            (Some("pub"), Some("struct")) => &["Config", "Options"],
            (Some("pub"), Some("enum")) => &["Error"],
            _ => &[],
        };
        let name = words.next().unwrap_or_default();
        if ends.iter().any(|end| name.ends_with(end)) {
            found.push((name.into(), attributes.contains(&"#[non_exhaustive]")));
        }
        attributes.clear();
    }
    found
}

#[test]
fn a_type_without_the_attribute_is_found() {
    let source = "/// A.\n#[derive(Debug)]\n#[non_exhaustive]\npub struct AConfig {\n}\n\n\
                  #[derive(Debug)]\npub enum BError {\n}\npub struct Other;\n";
    assert_eq!(
        extensible_types(source),
        [("AConfig".into(), true), ("BError".into(), false)]
    );
}

/// A new setting or error must not break programs that use the library.
#[test]
fn configurations_and_errors_can_be_extended_without_breaking_users() {
    let mut files = Vec::new();
    library_sources(&common::repository("src"), &mut files);
    let types: Vec<_> = files
        .iter()
        .flat_map(|f| extensible_types(&std::fs::read_to_string(f).expect("readable")))
        .collect();
    assert!(types.len() >= 35, "{types:?}");
    let closed: Vec<_> = types.iter().filter(|t| !t.1).collect();
    assert!(closed.is_empty(), "without #[non_exhaustive]: {closed:?}");
}

/// The locked dependencies build with the Rust version of Cargo.toml; clippy checks that the code
/// uses no newer part of the standard library (`clippy::incompatible_msrv`).
#[test]
fn no_dependency_needs_a_newer_rust_than_the_crate_states() {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .current_dir(common::repository(""))
        .output()
        .expect("cargo starts");
    let errors = String::from_utf8_lossy(&metadata.stderr);
    assert!(metadata.status.success(), "{errors}");
    let metadata: serde_json::Value = serde_json::from_slice(&metadata.stdout).expect("JSON");
    let version = |text: &str| -> Vec<u32> {
        text.split('.')
            .map(|n| n.parse().expect("a number"))
            .collect()
    };
    let stated = version(env!("CARGO_PKG_RUST_VERSION"));
    let packages = metadata["packages"].as_array().expect("packages");
    let versions: Vec<_> = packages
        .iter()
        .filter_map(|p| Some((&p["name"], p["rust_version"].as_str()?)))
        .collect();
    assert!(versions.len() > 100, "{versions:?}");
    let newer: Vec<_> = versions
        .iter()
        .filter(|(_, v)| version(v) > stated)
        .collect();
    assert!(newer.is_empty(), "{newer:?}");
}

#[cfg(feature = "video")]
mod with_networks {
    use opencv::core::{Mat, Rect, Vector};
    use opencv::{imgcodecs, videoio, videoio::VideoCaptureTrait as _};

    use super::*;

    /// An example that needs networks, with the ONNX Runtime that `make setup` installed.
    fn with_runtime(name: &str) -> Command {
        let mut command = example(name);
        if std::env::var_os("ORT_DYLIB_PATH").is_none() {
            let library = common::repository(".deps/onnxruntime/libonnxruntime.so");
            command.env("ORT_DYLIB_PATH", library);
        }
        command.current_dir(common::repository(""));
        command
    }

    /// The first frames of the sample clip.
    fn frames(count: usize) -> Vec<Mat> {
        let clip = common::clip();
        let clip = clip.to_str().expect("UTF-8");
        let mut capture =
            videoio::VideoCapture::from_file(clip, videoio::CAP_ANY).expect("it opens");
        let frame = |_| {
            let mut frame = Mat::default();
            assert!(
                capture.read(&mut frame).expect("read"),
                "the clip is long enough"
            );
            frame
        };
        (0..count).map(frame).collect()
    }

    fn write(path: &std::path::Path, picture: &impl opencv::core::ToInputArray) {
        let name = path.to_str().expect("UTF-8");
        assert!(imgcodecs::imwrite(name, picture, &Vector::new()).expect("written"));
    }

    #[test]
    fn track_video_calls_back_for_every_frame() {
        let dir = tempfile::tempdir().expect("a folder");
        for (i, frame) in frames(12).iter().enumerate() {
            write(&dir.path().join(format!("{i}.png")), frame);
        }
        let text = output(with_runtime("track_video").arg(dir.path()));
        let calls = text.lines().filter(|l| l.starts_with("frame ")).count();
        assert_eq!(calls, 12, "{text}");
        let last = text.lines().last().expect("a summary");
        assert!(last.ends_with("people in 12 frames"), "{text}");
    }

    #[test]
    fn compare_pictures_prints_distance_and_similarity() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("person.png");
        let frame = frames(1).remove(0);
        let crop = Mat::roi(&frame, Rect::new(500, 150, 40, 90))
            .expect("inside")
            .clone_pointee();
        write(&path, &crop);
        let text = output(with_runtime("compare_pictures").args([&path, &path]));
        assert!(
            text.contains("distance 0.000") && text.contains("similarity"),
            "{text}"
        );
    }
}
