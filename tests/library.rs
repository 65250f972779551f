//! The crate as a library: the programs in `examples/` do what their comments say.

use std::fmt::Write as _;
use std::path::PathBuf;
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
    // One id on either side, and most of the 60 boxes.
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

#[cfg(feature = "video")]
mod with_networks {
    use opencv::core::{Mat, Rect, Vector};
    use opencv::{imgcodecs, videoio, videoio::VideoCaptureTrait as _};

    use super::*;

    /// An example that needs networks: ONNX Runtime as `make setup` installed it.
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
