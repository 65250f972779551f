//! The commands of twintrack-train: they read data as in docs/guide/train.md, and write networks
//! that the tracker loads.
#![cfg(feature = "train")]

use std::path::Path;

use assert_cmd::Command;
use opencv::core::{CV_8UC3, Mat, Scalar, Vector};
use opencv::imgcodecs;
use twintrack::embed::{Embedder, EmbedderConfig};
use twintrack::infer::{Device, Runtime, SessionOptions};
use twintrack::train::dataset::Protocol;
use twintrack::train::readers::DataSpec;

fn picture(path: &Path) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
    let mat = Mat::new_rows_cols_with_default(64, 32, CV_8UC3, Scalar::new(10.0, 200.0, 60.0, 0.0))
        .expect("a picture");
    assert!(
        imgcodecs::imwrite(path.to_str().expect("UTF-8"), &mat, &Vector::new()).expect("written")
    );
}

fn read(kind: &str, place: &Path) -> Result<twintrack::train::dataset::Dataset, String> {
    format!("{kind}:{}", place.display())
        .parse::<DataSpec>()?
        .read(1)
        .map_err(|e| e.to_string())
}

#[test]
fn each_layout_is_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    for name in [
        "market/0002_c1s1_000451_03.jpg",
        "market/0002_c2s1_000500_01.jpg",
        "market/0007_c3s2_000001_00.jpg",
        "market/-1_c1s1_000001_00.jpg",
    ] {
        picture(&at(name));
    }
    let market = read("market", &at("market")).expect("read");
    assert_eq!(
        (market.crops.len(), market.identities, market.protocol),
        (3, 2, Protocol::CrossCamera)
    );
    assert_eq!(
        market
            .crops
            .iter()
            .map(|c| (c.identity, c.camera, c.frame))
            .collect::<Vec<_>>(),
        [(0, 1, 451), (0, 2, 500), (1, 3, 1)]
    );

    for name in [
        "letters/alpha/1.png",
        "letters/alpha/2.png",
        "letters/beta/1.png",
    ] {
        picture(&at(name));
    }
    let letters = read("folders", &at("letters")).expect("read");
    assert_eq!(
        (letters.crops.len(), letters.identities, letters.protocol),
        (3, 2, Protocol::All)
    );

    for name in [
        "viper/cam_a/000_45.bmp",
        "viper/cam_b/000_90.bmp",
        "viper/cam_a/001_0.bmp",
    ] {
        picture(&at(name));
    }
    let viper = read("viper", &at("viper")).expect("read");
    assert_eq!(
        viper
            .crops
            .iter()
            .map(|c| (c.identity, c.camera))
            .collect::<Vec<_>>(),
        [(0, 0), (1, 0), (0, 1)]
    );

    picture(&at("msmt/train/0000/0000_000_01_0303morning_0008_0.jpg"));
    std::fs::write(
        at("msmt/list_train.txt"),
        "0000/0000_000_01_0303morning_0008_0.jpg 0\n",
    )
    .expect("written");
    let msmt = read("msmt17", &at("msmt/list_train.txt")).expect("read");
    assert_eq!((msmt.identities, msmt.crops[0].camera), (1, 1));
    std::fs::write(at("msmt/list_train.txt"), "nonsense\n").expect("written");
    assert!(
        read("msmt17", &at("msmt/list_train.txt"))
            .expect_err("a broken list")
            .contains("line 1")
    );
}

#[test]
fn unreadable_data_are_reported() {
    let dir = tempfile::tempdir().expect("a folder");
    assert!(
        read("market", dir.path())
            .expect_err("an empty folder")
            .contains("no picture")
    );
    std::fs::write(dir.path().join("0001_c1s1_000001_00.jpg"), "not a picture").expect("written");
    assert!(
        read("market", dir.path())
            .expect_err("not a picture")
            .contains("0001_c1s1_000001_00.jpg")
    );
}

#[test]
fn sample_ground_truth_gives_visible_people_only() {
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/pets2009-s2l1#6-16");
    let data = read("mot", &clip).expect("read");
    let frames: std::collections::BTreeSet<u64> = data.crops.iter().map(|c| c.frame).collect();
    assert_eq!(frames.into_iter().collect::<Vec<_>>(), [6, 11, 16]);
    assert!(data.identities >= 3 && data.crops.iter().all(|c| c.person.height > c.person.width));
}

/// Trains a few steps and loads the file with the tracker's embedder.
#[test]
fn the_tracker_loads_the_trained_network() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, work, config) = (
        dir.path().join("net.onnx"),
        dir.path().join("work"),
        dir.path().join("train.toml"),
    );
    std::fs::write(
        &config,
        "dimension = 32\nsteps = 4\npeople = 4\nviews = 2\nvalidate_every = 2\nwarmup = 1\n",
    )
    .expect("written");
    let run = |more: &[&str]| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
        c.args(["run", "--data", "synthetic:24", "--config"])
            .arg(&config)
            .arg("--work")
            .arg(&work)
            .arg("--output")
            .arg(&model)
            .args(more);
        c.output().expect("it starts")
    };
    let done = run(&[]);
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let checkpoint = ["last.mpk", "last_optimizer.mpk", "best.mpk", "last.json"]
        .map(|file| format!("checkpoint-4/{file}"));
    for file in checkpoint
        .iter()
        .map(String::as_str)
        .chain(["curve.csv", "curve.svg"])
    {
        assert!(
            work.join(file).metadata().is_ok_and(|m| m.len() > 0),
            "{file}"
        );
    }
    assert_eq!(
        std::fs::read_to_string(work.join("curve.csv"))
            .expect("a table")
            .lines()
            .count(),
        3
    );

    let options = SessionOptions::new(Device::Cpu, 1);
    let config_of_tracker = EmbedderConfig::default().with_model(model.clone());
    let embedder = Embedder::open(
        &Runtime::load().expect("ONNX Runtime"),
        &config_of_tracker,
        options,
    )
    .expect("the tracker loads it");
    assert_eq!(embedder.dimension(), 32);
    let calibration = embedder.calibration().expect("two people were held out");
    assert!(
        calibration.similarity(0.0) > 0.5 && calibration.similarity(2.0) < 0.5,
        "{calibration:?}"
    );

    std::fs::write(&config, "dimension = 64\nsteps = 6\n").expect("written");
    let other = run(&["--resume"]);
    assert!(
        !other.status.success() && String::from_utf8_lossy(&other.stderr).contains("dimension 32"),
        "{}",
        String::from_utf8_lossy(&other.stderr)
    );

    for precision in ["fp16", "int8"] {
        let small = dir.path().join(format!("{precision}.onnx"));
        let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
        let c = c
            .args([
                "convert",
                "--data",
                "synthetic:12",
                "--precision",
                precision,
                "--model",
            ])
            .arg(&model)
            .arg("--output")
            .arg(&small);
        let done = c.output().expect("it starts");
        assert!(
            done.status.success(),
            "{precision}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let change: f64 = said
            .split('(')
            .nth(1)
            .and_then(|t| t.split(')').next())
            .expect("a change")
            .parse()
            .expect("a number");
        assert!(change.abs() <= 1.0, "{precision}: {said}");
        let bytes = |p: &Path| std::fs::metadata(p).expect("written").len();
        assert!(
            4 * bytes(&small) < 3 * bytes(&model),
            "{precision}: {} of {} bytes",
            bytes(&small),
            bytes(&model)
        );
        let converted = Embedder::open(
            &Runtime::load().expect("ONNX Runtime"),
            &EmbedderConfig::default().with_model(small),
            options,
        );
        let converted = converted.expect("the tracker loads it");
        assert_eq!(
            converted.model().metadata().get("precision"),
            Some(precision)
        );
        assert_eq!(converted.calibration(), Some(calibration));
    }
    let foreign = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/person_detector.onnx");
    let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
    let c = c
        .args([
            "convert",
            "--data",
            "synthetic:12",
            "--precision",
            "fp16",
            "--model",
        ])
        .arg(foreign)
        .arg("--output")
        .arg(dir.path().join("no.onnx"));
    let rejected = c.output().expect("it starts");
    assert!(
        String::from_utf8_lossy(&rejected.stderr)
            .contains("it does not end in a head of twintrack-train"),
        "{}",
        String::from_utf8_lossy(&rejected.stderr)
    );

    let judged = Command::new(env!("CARGO_BIN_EXE_twintrack-train"))
        .args(["eval", "--data", "synthetic:12", "--model"])
        .arg(&model)
        .output()
        .expect("it starts");
    let table = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(
        judged.status.success() && table.contains("mAP") && table.contains("synthetic:12"),
        "{table}{}",
        String::from_utf8_lossy(&judged.stderr)
    );
}

/// The shipped embedders on frames 251 to 400 of the sample clip.
#[test]
fn the_shipped_embedders_tell_the_people_of_the_clip_apart() {
    let clip = "mot:samples/pets2009-s2l1#251-400";
    let map = |name: &str| -> f64 {
        let judged = Command::new(env!("CARGO_BIN_EXE_twintrack-train"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["eval", "--data", clip, "--model", name])
            .output()
            .expect("it starts");
        let table = String::from_utf8_lossy(&judged.stdout).into_owned();
        let row = table.lines().find(|l| l.starts_with("samples/"));
        let cell = row.and_then(|row| row.split_whitespace().nth(2));
        let map = cell.and_then(|cell| cell.parse().ok());
        let message = String::from_utf8_lossy(&judged.stderr);
        map.unwrap_or_else(|| panic!("{name}: {table}{message}"))
    };
    let (small, accurate) = (map("siamese"), map("siamese_accurate"));
    assert!(small >= 92.0 && accurate >= 93.0, "{small}, {accurate}");
}

/// The default output is not used instead of an installed network, and outputs with bare names are
/// written into the working folder. A calibrated copy has the hash of the original; a copy in
/// another number format has another.
#[test]
fn the_default_output_does_not_replace_an_installed_network() {
    let dir = tempfile::tempdir().expect("a folder");
    std::fs::write(
        dir.path().join("train.toml"),
        "dimension = 16\nsteps = 2\npeople = 4\nviews = 2\nvalidate_every = 2\n",
    )
    .expect("written");
    let call = |program: &str, args: &[&str]| {
        let out = Command::new(program)
            .current_dir(dir.path())
            .args(args)
            .output()
            .expect("it starts");
        assert!(
            out.status.success(),
            "{args:?}: {}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8_lossy(&out.stdout).into_owned()
    };
    let train = |args: &[&str]| call(env!("CARGO_BIN_EXE_twintrack-train"), args);
    assert!(
        train(&[
            "run",
            "--data",
            "synthetic:24",
            "--config",
            "train.toml",
            "--work",
            "work"
        ])
        .contains("./trained.onnx: ")
    );
    assert!(dir.path().join("trained.onnx").is_file() && !dir.path().join("siamese.onnx").exists());
    train(&[
        "convert",
        "--data",
        "synthetic:12",
        "--precision",
        "fp16",
        "--output",
        "half.onnx",
    ]);
    assert!(
        train(&[
            "calibrate",
            "--model",
            "./trained.onnx",
            "--data",
            "synthetic:12",
            "--output",
            "copy.onnx"
        ])
        .contains("written: copy.onnx")
    );
    let identity = |name: &str| {
        let doctor = call(
            env!("CARGO_BIN_EXE_twintrack"),
            &["doctor", "--embedder", name],
        );
        let embedder = doctor.split("embedder").nth(1).expect("a line").to_string();
        embedder
            .split("sha256:")
            .nth(1)
            .and_then(|t| t.get(..16))
            .expect("a hash")
            .to_string()
    };
    let trained = identity("./trained.onnx");
    assert_eq!(trained, identity("./copy.onnx"));
    assert!(trained != identity("./half.onnx") && trained != identity("siamese.onnx"));
}

/// Every network is trained for a few steps at several sizes and exported; the exporter compares it
/// with ONNX Runtime.
#[test]
fn every_network_can_be_trained_and_exported() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, config) = (dir.path().join("net.onnx"), dir.path().join("train.toml"));
    let parts = [
        ("tiny", 256, 600_000),
        ("mobile", 128, 3_000_000),
        ("omni", 128, 1_000_000),
        ("residual", 128, 800_000),
        ("residual-wide", 128, 4_000_000),
    ];
    for (network, height, most) in parts {
        let text = format!(
            "network = \"{network}\"\nheight = {height}\ndimension = 64\nsteps = 2\npeople = 2\n\
             views = 2\nclassification = 0.5\nloss = \"random-triplet\"\nmetric = \"cosine\"\n"
        );
        std::fs::write(&config, text).expect("written");
        let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
        let c = c
            .args(["run", "--data", "synthetic:6", "--config"])
            .arg(&config)
            .arg("--work")
            .arg(dir.path().join(network))
            .arg("--output")
            .arg(&model);
        let done = c.output().expect("it starts");
        assert!(
            done.status.success(),
            "{network}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        let options = SessionOptions::new(Device::Cpu, 1);
        let of_tracker = EmbedderConfig::default().with_model(model.clone());
        let embedder = Embedder::open(
            &Runtime::load().expect("ONNX Runtime"),
            &of_tracker,
            options,
        )
        .expect("the tracker loads it");
        assert_eq!(
            embedder.model().dims()[2..],
            [Some(height), Some(height / 2)]
        );
        assert!(embedder.name().starts_with(network));
        let floats = std::fs::metadata(&model).expect("written").len() / 4;
        assert!(floats < most, "{network} has about {floats} parameters");
    }
}

#[test]
fn invalid_arguments_are_rejected() {
    let said = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_twintrack-train"))
            .args(args)
            .output()
            .expect("it starts");
        assert!(!out.status.success());
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    assert!(said(&["run"]).contains("--from-video"));
    assert!(said(&["run", "--data", "synthetic:3"]).contains("have 3 people"));
    assert!(said(&["run", "--data", "faces:x"]).contains("market"));
    assert!(
        said(&["eval", "--model", "missing.onnx", "--data", "synthetic:4"])
            .contains("missing.onnx")
    );
}

/// Distils a student from the shipped network on drawn people, and resumes without running the
/// teacher again; the tracker loads the file.
#[test]
fn distillation_runs_the_teacher_once_per_picture() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let teacher = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/siamese.onnx");
    let config = |steps: usize| {
        let text = format!(
            "network = \"residual\"\nhead = \"read-out\"\nchannels = 32\ncolours = false\n\
             normalise = true\ndimension = 48\nsteps = {steps}\nvalidate_every = 2\nwarmup = 1\n\
             [distil]\nprobes = 80\nfirst = 40\nfresh = 8\nbatch = 8\n"
        );
        std::fs::write(at("distil.toml"), text).expect("written");
    };
    let run = |more: &[&str]| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
        c.args(["distil", "--probes", "synthetic:6", "--teacher"])
            .arg(&teacher)
            .arg("--config")
            .arg(at("distil.toml"));
        c.args(more).output().expect("it starts")
    };
    let (work, student) = (at("work"), at("student.onnx"));
    let places = [
        "--work",
        work.to_str().expect("UTF-8"),
        "--output",
        student.to_str().expect("UTF-8"),
    ];
    config(4);
    let done = run(&places);
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(
        done.status.success() && said.contains("cosine to the teacher"),
        "{said}"
    );
    let curve = std::fs::read_to_string(at("work/curve.csv")).expect("a table");
    let agreement = |line: &str| {
        line.split(',')
            .nth(5)
            .expect("a column")
            .parse::<f64>()
            .expect("a number")
    };
    assert!(
        curve
            .lines()
            .skip(1)
            .all(|l| (-1.0..=1.0).contains(&agreement(l))),
        "{curve}"
    );

    let store = std::fs::read_dir(at("work"))
        .expect("a folder")
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.is_dir())
        .expect("the store of teacher outputs");
    let judged = || {
        std::fs::metadata(store.join("pictures.u8"))
            .expect("written")
            .len()
            / (3 * 64 * 128)
    };
    let before = judged();
    config(6);
    let on = run(&[&places[..], &["--resume"]].concat());
    assert!(
        on.status.success(),
        "{}",
        String::from_utf8_lossy(&on.stderr)
    );
    assert!(
        judged() >= before && judged() <= 512 + 80,
        "{before}, then {}",
        judged()
    );
    assert!(
        std::fs::read_to_string(at("work/curve.csv"))
            .expect("a table")
            .lines()
            .last()
            .is_some_and(|l| l.starts_with("6,"))
    );

    // Crops are square, because probes have the shape of the student's input.
    let text = std::fs::read_to_string(at("distil.toml"))
        .expect("written")
        .replace("[distil]", "height = 64\nwidth = 64\n[distil]");
    std::fs::write(at("distil.toml"), text).expect("written");
    let square = run(&[
        "--work",
        at("square").to_str().expect("UTF-8"),
        "--output",
        at("square.onnx").to_str().expect("UTF-8"),
    ]);
    assert!(
        square.status.success(),
        "{}",
        String::from_utf8_lossy(&square.stderr)
    );

    let options = SessionOptions::new(Device::Cpu, 1);
    let of_tracker = EmbedderConfig::default().with_model(at("student.onnx"));
    let embedder = Embedder::open(
        &Runtime::load().expect("ONNX Runtime"),
        &of_tracker,
        options,
    )
    .expect("the tracker loads it");
    assert_eq!(embedder.dimension(), 48);
    assert!(
        embedder
            .model()
            .metadata()
            .get("training_data")
            .is_some_and(|t| t.contains("siamese.onnx") && t.contains("synthetic:6"))
    );
}

/// Trains the graph of a file, also at another size, and writes the same graph; with `cut` it gets
/// a new head.
#[test]
fn a_network_file_can_be_trained_further() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let run = |start: &Path, config: &str, output: &str| {
        std::fs::write(at("train.toml"), config).expect("written");
        let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
        c.args(["run", "--data", "synthetic:8", "--config"])
            .arg(at("train.toml"))
            .arg("--start-from")
            .arg(start);
        c.arg("--work")
            .arg(at("work"))
            .arg("--output")
            .arg(at(output))
            .output()
            .expect("it starts")
    };
    let base = "network = \"residual\"\nhead = \"read-out\"\nchannels = 32\ncolours = false\n\
                dimension = 24\nsteps = 2\npeople = 2\nviews = 2\n";
    std::fs::write(at("train.toml"), base).expect("written");
    let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
    c.args(["run", "--data", "synthetic:8", "--config"])
        .arg(at("train.toml"))
        .arg("--work")
        .arg(at("first"))
        .arg("--output")
        .arg(at("first.onnx"));
    assert!(c.output().expect("it starts").status.success());

    let further = "colours = false\nsteps = 3\npeople = 2\nviews = 2\nheight = 64\nwidth = 32\n";
    let done = run(&at("first.onnx"), further, "further.onnx");
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stderr)
    );
    let options = SessionOptions::new(Device::Cpu, 1);
    let of_tracker = EmbedderConfig::default().with_model(at("further.onnx"));
    let embedder = Embedder::open(
        &Runtime::load().expect("ONNX Runtime"),
        &of_tracker,
        options,
    )
    .expect("the tracker loads it");
    assert_eq!(
        (embedder.dimension(), &embedder.model().dims()[2..]),
        (24, &[Some(64), Some(32)][..])
    );

    let told = |start: &Path, config: &str| {
        let rejected = run(start, config, "no.onnx");
        assert!(!rejected.status.success());
        String::from_utf8_lossy(&rejected.stderr).into_owned()
    };
    let detector = told(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("models/person_detector.onnx"),
        further,
    );
    assert!(
        detector.contains("person_detector.onnx") && detector.contains("cannot be trained"),
        "{detector}"
    );
    assert!(told(&at("train.toml"), further).contains("not an ONNX file"));
    assert!(
        told(
            &at("first.onnx"),
            &format!("{further}head = \"read-out\"\ncut = \"nowhere\"\n")
        )
        .contains("'nowhere'")
    );

    // The file is cut before its head and gets a new one.
    let cut = run(
        &at("first.onnx"),
        &format!(
            "{further}head = \"read-out\"\ncut = \"eighth1\"\ndimension = 40\nchannels = 16\n"
        ),
        "cut.onnx",
    );
    assert!(
        cut.status.success(),
        "{}",
        String::from_utf8_lossy(&cut.stderr)
    );
    let of_tracker = EmbedderConfig::default().with_model(at("cut.onnx"));
    assert_eq!(
        Embedder::open(
            &Runtime::load().expect("ONNX Runtime"),
            &of_tracker,
            options
        )
        .expect("the tracker loads it")
        .dimension(),
        40
    );
    for precision in ["fp16", "int8"] {
        let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
        let c = c
            .args([
                "convert",
                "--data",
                "synthetic:6",
                "--precision",
                precision,
                "--model",
            ])
            .arg(at("cut.onnx"))
            .arg("--output")
            .arg(at("small.onnx"));
        let done = c.output().expect("it starts");
        assert!(
            done.status.success(),
            "{precision}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
    }
}

/// A file beside the repository that users do not have; `None` with a message if it is missing.
fn shared(path: &str) -> Option<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared")
        .join(path);
    if !path.exists() {
        eprintln!(
            "SKIPPED: {} is not there; this test needs it",
            path.display()
        );
    }
    path.exists().then_some(path)
}

/// The calibrated copy gives the same vectors and contains the calibration; `compare` reports the
/// false-accept rate.
#[test]
fn calibrate_writes_a_calibrated_copy() {
    let dir = tempfile::tempdir().expect("a folder");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/siamese.onnx");
    let clip = format!(
        "mot:{}#1-200",
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("samples/pets2009-s2l1")
            .display()
    );
    let settings = dir.path().join("foreign.toml");
    std::fs::write(
        &settings,
        "[embedder]\nsize = \"128x256\"\n\
         pixels = { color = \"bgr\", mean = [0, 0, 0], std = [1, 1, 1] }\n",
    )
    .expect("written");
    let calibrate = |model: &Path, config: Option<&Path>, output: &Path| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
        c.args(["calibrate", "--data", "synthetic:12", &clip, "--model"])
            .arg(model)
            .arg("--output")
            .arg(output);
        config.iter().for_each(|path| {
            c.arg("--config").arg(path);
        });
        c.output().expect("it starts")
    };
    let open = |model: &Path, config: Option<&Path>| {
        let of_file = config.map_or_else(Default::default, |path| {
            twintrack::config::Config::read(path)
                .expect("valid")
                .embedder
        });
        let config = of_file.with_model(model.into());
        Embedder::open(
            &Runtime::load().expect("ONNX Runtime"),
            &config,
            SessionOptions::new(Device::Cpu, 1),
        )
        .expect("it opens")
    };
    let foreign = shared("data/omz-reid/omz-reid-0288.onnx");
    for (model, config) in [
        (Some(own.clone()), None),
        (foreign, Some(settings.as_path())),
    ] {
        let Some(model) = model else { continue };
        let copy = dir.path().join("copy.onnx");
        let done = calibrate(&model, config, &copy);
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        assert!(
            said.contains("synthetic:12")
                && said.contains("worst: ")
                && said.contains("at similarity 0.5"),
            "{said}"
        );
        // The copy needs no configuration: the given settings are written into it.
        let (mut before, mut after) = (open(&model, config), open(&copy, None));
        let (calibration, strangers) = (
            after.calibration().expect("calibrated"),
            after.strangers().expect("a table"),
        );
        assert!(
            said.contains(&calibration.entry()) && said.contains(&strangers.to_string()),
            "{said}"
        );
        assert_eq!(
            (after.model().metadata().get("kind"), after.name()),
            (Some("embedder"), before.name())
        );
        let set = "synthetic:3"
            .parse::<DataSpec>()
            .expect("people")
            .read(2)
            .expect("drawn");
        let crops: Vec<_> = set.crops.iter().map(|c| (&c.image, &c.person)).collect();
        assert_eq!(
            before.embed_crops(&crops).expect("it runs"),
            after.embed_crops(&crops).expect("it runs")
        );
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/demo.jpg");
        let compared = Command::new(env!("CARGO_BIN_EXE_twintrack"))
            .args(["compare", "--json", "--embedder"])
            .arg(&copy)
            .args([&demo, &demo])
            .output();
        let json: serde_json::Value =
            serde_json::from_slice(&compared.expect("it starts").stdout).expect("JSON");
        // The pictures are the same, so their distance is below all measured distances of
        // strangers.
        assert!(
            json["stranger_rate_below"] == true
                && json["stranger_rate"]
                    .as_f64()
                    .is_some_and(|r| r > 0.0 && r < 0.1),
            "{json}"
        );
    }
    let rejected = calibrate(&own, None, &own);
    assert!(
        String::from_utf8_lossy(&rejected.stderr).contains("it is the network itself"),
        "{}",
        String::from_utf8_lossy(&rejected.stderr)
    );
}
