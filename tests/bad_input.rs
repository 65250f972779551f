//! Invalid input causes one error message that names the input and the remedy, never a panic.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{clip, json_lines, repository, text, twintrack};

/// Runs the command; asserts the exit code and a single error message that contains all `parts`.
fn fails(command: &mut Command, code: i32, parts: &[&str]) -> Output {
    let out = command.output().unwrap();
    let stderr = text(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{command:?}\n{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    if code == 1 {
        assert_eq!(
            stderr.matches("error: ").count(),
            1,
            "one message: {stderr}"
        );
        assert!(stderr.starts_with("error: "), "nothing else: {stderr}");
    }
    assert!(
        stderr.matches("os error").count() <= 1,
        "the cause is repeated: {stderr}"
    );
    parts
        .iter()
        .for_each(|p| assert!(stderr.contains(p), "'{p}' is missing from: {stderr}"));
    out
}

fn track(input: &Path) -> Command {
    let mut c = twintrack();
    c.arg("track")
        .arg(input)
        .args(["--quiet", "--threads", "2"]);
    c
}

fn file(dir: &Path, name: &str, content: &[u8]) -> std::path::PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn a_missing_file_is_rejected() {
    fails(
        &mut track(Path::new("/nowhere/clip.mp4")),
        1,
        &["/nowhere/clip.mp4", "does not exist"],
    );
}

#[test]
fn an_empty_file_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    fails(
        &mut track(&file(dir.path(), "empty.mp4", b"")),
        1,
        &["empty.mp4", "is empty"],
    );
}

#[test]
fn a_text_file_named_mp4_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    fails(
        &mut track(&file(dir.path(), "notes.mp4", b"these are my notes\n")),
        1,
        &["notes.mp4", "does not recognise it as a video", "ffplay"],
    );
}

#[test]
fn a_folder_without_images_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    fails(
        &mut track(dir.path()),
        1,
        &["folder of pictures", "contains none"],
    );
}

#[test]
fn a_truncated_video_is_tracked_to_its_end_and_exits_1() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(clip()).unwrap();
    let cut = file(dir.path(), "cut.mp4", &whole[..whole.len() / 4]);
    let out = fails(
        &mut track(&cut),
        1,
        &["cut.mp4", "is cut short after frame", "bytes are present"],
    );
    assert!(json_lines(&text(&out.stdout)).len() > 10);
}

#[test]
fn a_model_with_unsupported_inputs_is_rejected() {
    let wrong = repository("tests/fixtures/four_channels.onnx");
    fails(
        track(&clip()).arg("--detector").arg(&wrong),
        1,
        &["four_channels.onnx", "cannot use the model", "[N, 3, H, W]"],
    );
    fails(
        track(&clip()).arg("--embedder").arg(&wrong),
        1,
        &["four_channels.onnx", "cannot use the model"],
    );
}

#[test]
fn a_detector_of_undetermined_layout_is_rejected() {
    fails(
        track(&clip())
            .arg("--detector")
            .arg(repository("tests/fixtures/yolo.onnx")),
        1,
        &["yolo.onnx", "detector.layout"],
    );
}

#[test]
fn a_detector_that_contradicts_the_configured_layout_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let model = repository("tests/fixtures/yolo.onnx");
    let config = file(
        dir.path(),
        "c.toml",
        format!("[detector]\nmodel = {model:?}\nlayout = \"yolox\"\n").as_bytes(),
    );
    fails(
        track(&clip()).arg("--config").arg(config),
        1,
        &["yolo.onnx", "'yolox'", "output0 [1, 6, 100]"],
    );
}

#[test]
fn an_unsupported_input_size_is_rejected() {
    fails(
        track(&clip()).args(["--size", "700x500"]),
        1,
        &["multiple of 32", "704x512"],
    );
    fails(
        track(&clip()).args(["--size", "huge"]),
        2,
        &["WIDTHxHEIGHT"],
    );
}

#[test]
fn an_embedder_without_normalisation_is_accepted() {
    let mut c = track(&clip());
    let out = c
        .args(["--duration", "1", "--embedder"])
        .arg(repository("tests/fixtures/unnormalised.onnx"))
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    assert!(String::from_utf8_lossy(&out.stdout).contains("twintrack.trajectory/1"));
}

#[test]
fn a_missing_model_and_an_invalid_model_file_are_rejected() {
    fails(
        track(&clip()).args(["--detector", "/nowhere/d.onnx"]),
        1,
        &["/nowhere/d.onnx", "does not exist", "--detector"],
    );
    let dir = tempfile::tempdir().unwrap();
    let fake = file(dir.path(), "fake.onnx", b"not a model");
    fails(
        track(&clip()).arg("--detector").arg(fake),
        1,
        &["fake.onnx", "cannot load the model"],
    );
}

#[test]
fn a_missing_or_invalid_runtime_library_is_an_error() {
    fails(
        track(&clip()).env("ORT_DYLIB_PATH", "/nowhere/libonnxruntime.so"),
        1,
        &["ONNX Runtime", "/nowhere/libonnxruntime.so", "make setup"],
    );
    let dir = tempfile::tempdir().unwrap();
    let fake = file(dir.path(), "libonnxruntime.so", b"not a library");
    fails(
        track(&clip()).env("ORT_DYLIB_PATH", fake),
        1,
        &["cannot load ONNX Runtime", "make setup"],
    );
}

/// Running the program in an untrusted folder must not run code from that folder.
#[test]
fn a_library_in_the_working_folder_is_not_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let (bin, untrusted) = (
        dir.path().join("opt/a/b/c/d/bin"),
        dir.path().join("untrusted"),
    );
    for folder in [
        &bin,
        &untrusted.join("lib"),
        &untrusted.join(".deps/onnxruntime"),
    ] {
        std::fs::create_dir_all(folder).unwrap();
    }
    for fake in ["lib", ".deps/onnxruntime"] {
        file(&untrusted.join(fake), "libonnxruntime.so", b"not a library");
    }
    let program = bin.join("twintrack");
    std::fs::copy(assert_cmd::cargo::cargo_bin!("twintrack"), &program).unwrap();
    let out = Command::new(&program)
        .current_dir(&untrusted)
        .env("HOME", dir.path())
        .env_remove("ORT_DYLIB_PATH")
        .arg("doctor")
        .output()
        .unwrap();
    let output = text(&out.stdout) + &text(&out.stderr);
    assert!(
        output.contains("ONNX Runtime") && !output.contains("untrusted"),
        "{output}"
    );
}

#[test]
fn an_ambiguous_password_in_an_address_is_rejected_and_not_shown() {
    for (address, secret) in [
        ("rtsp://admin:pa/ss@127.0.0.1:9/x", "pa/ss"),
        ("rtsp://admin:pa#ss@127.0.0.1:9/x", "pa#ss"),
        ("rtsp://admin:12/34@127.0.0.1:9/x", "34"),
    ] {
        let out = fails(&mut track(Path::new(address)), 1, &["%2F", "as a camera"]);
        assert!(!text(&out.stderr).contains(secret), "{}", text(&out.stderr));
    }
    let out = fails(
        &mut track(Path::new("http://127.0.0.1:9/flv?user=a&password=SECRET")),
        1,
        &["password=***"],
    );
    assert!(!text(&out.stderr).contains("SECRET"));
}

#[test]
fn a_missing_gpu_is_an_error_with_the_remedy() {
    fails(
        track(&clip()).args(["--device", "cuda"]),
        1,
        &["cuda:0", "--device cpu", "make setup-gpu"],
    );
}

#[test]
fn a_configuration_with_an_unknown_key_or_a_value_out_of_range_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let unknown = file(dir.path(), "a.toml", b"[tracker]\nkeep_lots = 2.0\n");
    fails(
        track(&clip()).arg("--config").arg(unknown),
        1,
        &["a.toml", "keep_lots", "line 2"],
    );
    let range = file(dir.path(), "b.toml", b"[tracker]\nsure = 7.0\n");
    fails(
        track(&clip()).arg("--config").arg(range),
        1,
        &["tracker.sure = 7", "to 1"],
    );
    fails(
        track(&clip()).args(["--config", "/nowhere/c.toml"]),
        1,
        &["/nowhere/c.toml"],
    );
}

#[test]
fn an_unwritable_output_is_an_error() {
    for option in ["--output", "--mot", "--video"] {
        fails(
            track(&clip()).args([option, "/proc/nowhere/out.mp4"]),
            1,
            &["cannot create the folder", "/proc/nowhere/out.mp4"],
        );
        fails(
            track(&clip()).args([option, "/proc/version/out.mp4"]),
            1,
            &["cannot", "/proc/version"],
        );
    }
}

#[test]
fn a_disk_that_is_full_at_the_start_is_an_error() {
    fails(
        track(&clip()).args(["--output", "/dev/full"]),
        1,
        &["/dev/full", "space"],
    );
}

/// A limit on the file size simulates the full disk: in both cases a write fails after some of its
/// bytes.
#[test]
fn a_disk_that_fills_up_leaves_complete_lines() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out.jsonl");
    let program = twintrack().get_program().to_owned();
    let mut limited = Command::new("bash");
    limited
        .args(["-c", "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\""])
        .arg(program)
        .arg("track")
        .arg(clip())
        .args(["--quiet", "--output"])
        .arg(&out);
    fails(
        &mut limited,
        1,
        &["out.jsonl", "all earlier lines are complete"],
    );
    let events = json_lines(&std::fs::read_to_string(&out).unwrap());
    assert!(
        events.len() > 10,
        "only {} events were written within 100 blocks",
        events.len()
    );
}

#[test]
fn malformed_detections_are_rejected() {
    let dir = tempfile::tempdir().unwrap();
    file(
        dir.path(),
        "seqinfo.ini",
        b"[Sequence]\nframeRate=10\nseqLength=3\nimWidth=640\nimHeight=480\n",
    );
    let run = |content: &[u8], parts: &[&str]| {
        let det = file(dir.path(), "det.txt", content);
        fails(
            track(dir.path())
                .arg("--no-embed")
                .arg("--detections")
                .arg(det),
            1,
            parts,
        );
    };
    run(b"1,-1,10,10,-5,20,0.9\n", &["det.txt", "frame 1", "-5"]);
    run(b"1,-1,10\n", &["det.txt", "line 1", "at least 6"]);
    run(b"1,-1,NaN,10,5,20,0.9\n", &["det.txt", "NaN"]);
}

#[test]
fn wrong_usage_exits_2() {
    fails(&mut twintrack(), 2, &["Usage"]);
    fails(
        twintrack().args(["track", "x.mp4", "--device", "gpu"]),
        2,
        &["cuda:N"],
    );
}

#[test]
fn a_closed_pipe_causes_no_panic() {
    for args in [
        vec!["doctor"],
        vec!["config"],
        vec!["track", "--quiet", "CLIP"],
    ] {
        let mut child = twintrack()
            .args(args.iter().map(|a| {
                if *a == "CLIP" {
                    clip().into_os_string()
                } else {
                    a.into()
                }
            }))
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let out = child.wait_with_output().unwrap();
        assert!(
            out.status.code().is_some() && !text(&out.stderr).contains("panicked"),
            "{args:?}: {}",
            text(&out.stderr)
        );
    }
}

#[test]
fn a_full_disk_at_standard_output_is_an_error() {
    let full = std::fs::File::options()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let out = twintrack().arg("config").stdout(full).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    assert!(
        text(&out.stderr).contains("cannot write to standard output"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn an_output_that_is_an_input_or_another_output_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("clip.mp4");
    std::fs::copy(clip(), &copy).unwrap();
    for option in [
        "--output",
        "--mot",
        "--onvif",
        "--video",
        "--save-detections",
    ] {
        fails(
            track(&copy).arg(option).arg(&copy),
            1,
            &["clip.mp4", "also an input", "another name"],
        );
        let address = format!("file://{}", copy.display());
        fails(
            track(Path::new(&address)).arg(option).arg(&copy),
            1,
            &["clip.mp4", "also an input", "another name"],
        );
    }
    assert_eq!(
        std::fs::metadata(&copy).unwrap().len(),
        std::fs::metadata(clip()).unwrap().len(),
        "the input was overwritten"
    );
    let one = dir.path().join("one.txt");
    fails(
        track(&copy)
            .arg("--output")
            .arg(&one)
            .arg("--mot")
            .arg(&one),
        1,
        &["one.txt", "another output"],
    );
}

#[test]
fn a_start_beyond_the_end_and_invalid_numbers_are_rejected() {
    fails(
        track(&clip()).args(["--start", "1000"]),
        1,
        &["pets2009-s2l1.mp4", "no frame", "--start"],
    );
    fails(
        track(&clip()).args(["--frame-rate", "0"]),
        2,
        &["from 0.01"],
    );
    fails(track(&clip()).args(["--start", "-3"]), 2, &[]);
}

#[test]
fn refine_rejects_files_that_are_not_recordings() {
    let dir = tempfile::tempdir().unwrap();
    let refine = |p: &Path| {
        let mut c = twintrack();
        c.arg("refine").arg(p);
        c
    };
    fails(
        &mut refine(Path::new("/nowhere.jsonl")),
        1,
        &["cannot read /nowhere.jsonl"],
    );
    fails(
        &mut refine(&file(dir.path(), "a.jsonl", b"{\"hello\": 1}\n")),
        1,
        &["a.jsonl, line 1", "not an event"],
    );
    let event = |frame: u32, pts: f64, width: f64| {
        format!(
            "{{\"schema\":\"twintrack.trajectory/1\",\
             \"run\":\"01936a1e-0000-7000-8000-000000000001\",\"camera\":\"a\",\
             \"frame\":{frame},\"pts\":{pts},\"width\":9,\"height\":9,\
             \"tracks\":[{{\"id\":1,\"state\":\"confirmed\",\"bbox\":[0,0,{width},4],\
             \"confidence\":0.9,\"age\":0,\"hits\":1,\"velocity\":[0,0],\"foot\":[0,0]}}]}}\n"
        )
    };
    let backwards = file(
        dir.path(),
        "b.jsonl",
        (event(1, 1.0, 4.0) + &event(2, 0.5, 4.0)).as_bytes(),
    );
    fails(
        &mut refine(&backwards),
        1,
        &["b.jsonl, line 2", "frame 2 of camera a", "not later"],
    );
    fails(
        &mut refine(&file(dir.path(), "c.jsonl", event(1, 1.0, -4.0).as_bytes())),
        1,
        &["c.jsonl, line 1", "box of track 1"],
    );
    let good = file(dir.path(), "d.jsonl", event(1, 1.0, 4.0).as_bytes());
    fails(
        refine(&good).arg("--output").arg(&good),
        1,
        &["also an input"],
    );
    assert!(
        refine(&file(dir.path(), "empty.jsonl", b""))
            .output()
            .unwrap()
            .status
            .success(),
        "an empty file is accepted"
    );
}

#[test]
fn tune_reports_missing_files_and_invalid_ranges() {
    let dir = tempfile::tempdir().unwrap();
    let tune = |more: &[&str]| {
        let mut c = twintrack();
        c.arg("tune")
            .arg("--gt")
            .arg(dir.path())
            .args(more)
            .arg("--output")
            .arg(dir.path().join("t.toml"));
        c
    };
    fails(&mut tune(&[]), 1, &["has no sequence"]);
    let sequence = dir.path().join("s");
    std::fs::create_dir_all(sequence.join("gt")).unwrap();
    std::fs::write(sequence.join("gt/gt.txt"), "1,1,0,0,10,20,1,1,1\n").unwrap();
    std::fs::write(
        sequence.join("seqinfo.ini"),
        "[Sequence]\nframeRate=10\nseqLength=2\nimWidth=100\nimHeight=100\n",
    )
    .unwrap();
    fails(&mut tune(&[]), 1, &["sequence", "img1"]);
    std::fs::create_dir_all(sequence.join("det")).unwrap();
    std::fs::write(sequence.join("det/det.txt"), "1,-1,0,0,10,20,0.9\n").unwrap();
    fails(
        &mut tune(&["--vary", "tracker.shoe_size=1..2"]),
        1,
        &[
            "no numeric key 'tracker.shoe_size'",
            "docs/reference/configuration.md",
        ],
    );
    fails(
        &mut tune(&["--vary", "tracker.keep_lost=2..1"]),
        2,
        &["KEY=LOW..HIGH", "not a range"],
    );
}
