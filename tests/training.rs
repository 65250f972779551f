//! twintrack-train as its users run it: data in the layouts of docs/training.md, a network out that the tracker loads.
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
    let mat = Mat::new_rows_cols_with_default(64, 32, CV_8UC3, Scalar::new(10.0, 200.0, 60.0, 0.0)).expect("a picture");
    assert!(imgcodecs::imwrite(path.to_str().expect("UTF-8"), &mat, &Vector::new()).expect("written"));
}

fn read(kind: &str, place: &Path) -> Result<twintrack::train::dataset::Dataset, String> {
    format!("{kind}:{}", place.display()).parse::<DataSpec>()?.read(1).map_err(|e| e.to_string())
}

#[test]
fn each_layout_is_read() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    for name in ["market/0002_c1s1_000451_03.jpg", "market/0002_c2s1_000500_01.jpg", "market/0007_c3s2_000001_00.jpg", "market/-1_c1s1_000001_00.jpg"] {
        picture(&at(name));
    }
    let market = read("market", &at("market")).expect("read");
    assert_eq!((market.crops.len(), market.identities, market.protocol), (3, 2, Protocol::CrossCamera));
    assert_eq!(market.crops.iter().map(|c| (c.identity, c.camera, c.frame)).collect::<Vec<_>>(), [(0, 1, 451), (0, 2, 500), (1, 3, 1)]);

    for name in ["letters/alpha/1.png", "letters/alpha/2.png", "letters/beta/1.png"] {
        picture(&at(name));
    }
    let letters = read("folders", &at("letters")).expect("read");
    assert_eq!((letters.crops.len(), letters.identities, letters.protocol), (3, 2, Protocol::All));

    for name in ["viper/cam_a/000_45.bmp", "viper/cam_b/000_90.bmp", "viper/cam_a/001_0.bmp"] {
        picture(&at(name));
    }
    let viper = read("viper", &at("viper")).expect("read");
    assert_eq!(viper.crops.iter().map(|c| (c.identity, c.camera)).collect::<Vec<_>>(), [(0, 0), (1, 0), (0, 1)]);

    picture(&at("msmt/train/0000/0000_000_01_0303morning_0008_0.jpg"));
    std::fs::write(at("msmt/list_train.txt"), "0000/0000_000_01_0303morning_0008_0.jpg 0\n").expect("written");
    let msmt = read("msmt17", &at("msmt/list_train.txt")).expect("read");
    assert_eq!((msmt.identities, msmt.crops[0].camera), (1, 1));
    std::fs::write(at("msmt/list_train.txt"), "nonsense\n").expect("written");
    assert!(read("msmt17", &at("msmt/list_train.txt")).expect_err("a broken list").contains("line 1"));
}

#[test]
fn what_cannot_be_read_is_told() {
    let dir = tempfile::tempdir().expect("a folder");
    assert!(read("market", dir.path()).expect_err("an empty folder").contains("no picture"));
    std::fs::write(dir.path().join("0001_c1s1_000001_00.jpg"), "not a picture").expect("written");
    assert!(read("market", dir.path()).expect_err("not a picture").contains("0001_c1s1_000001_00.jpg"));
}

#[test]
fn the_ground_truth_of_the_sample_gives_clear_people_only() {
    let clip = Path::new(env!("CARGO_MANIFEST_DIR")).join("samples/pets2009-s2l1#6-16");
    let data = read("mot", &clip).expect("read");
    let frames: std::collections::BTreeSet<u64> = data.crops.iter().map(|c| c.frame).collect();
    assert_eq!(frames.into_iter().collect::<Vec<_>>(), [6, 11, 16]);
    assert!(data.identities >= 3 && data.crops.iter().all(|c| c.person.height > c.person.width));
}

/// Trains for a moment and hands the file to the tracker's own embedder.
#[test]
fn what_is_trained_is_what_the_tracker_loads() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, work, config) = (dir.path().join("net.onnx"), dir.path().join("work"), dir.path().join("train.toml"));
    std::fs::write(&config, "dimension = 32\nsteps = 4\npeople = 4\nviews = 2\nvalidate_every = 2\nwarmup = 1\n").expect("written");
    let run = |more: &[&str]| {
        let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
        c.args(["run", "--data", "synthetic:24", "--config"]).arg(&config).arg("--work").arg(&work).arg("--output").arg(&model).args(more);
        c.output().expect("it starts")
    };
    let done = run(&[]);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for file in ["last.mpk", "best.mpk", "last.json", "curve.csv", "curve.svg"] {
        assert!(work.join(file).metadata().is_ok_and(|m| m.len() > 0), "{file}");
    }
    assert_eq!(std::fs::read_to_string(work.join("curve.csv")).expect("a table").lines().count(), 3);

    let options = SessionOptions { device: Device::Cpu, threads: 1 };
    let config_of_tracker = EmbedderConfig { model: model.clone(), ..EmbedderConfig::default() };
    let embedder = Embedder::open(&Runtime::load().expect("ONNX Runtime"), &config_of_tracker, options).expect("the tracker loads it");
    assert_eq!(embedder.dimension(), 32);
    let calibration = embedder.calibration().expect("two people were held out");
    assert!(calibration.similarity(0.0) > 0.5 && calibration.similarity(2.0) < 0.5, "{calibration:?}");

    std::fs::write(&config, "dimension = 64\nsteps = 6\n").expect("written");
    let other = run(&["--resume"]);
    assert!(!other.status.success() && String::from_utf8_lossy(&other.stderr).contains("length 32"), "{}", String::from_utf8_lossy(&other.stderr));

    for precision in ["fp16", "int8"] {
        let small = dir.path().join(format!("{precision}.onnx"));
        let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
        let c = c.args(["convert", "--data", "synthetic:12", "--precision", precision, "--model"]).arg(&model).arg("--output").arg(&small);
        let done = c.output().expect("it starts");
        assert!(done.status.success(), "{precision}: {}", String::from_utf8_lossy(&done.stderr));
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        let change: f64 = said.split('(').nth(1).and_then(|t| t.split(')').next()).expect("a change").parse().expect("a number");
        assert!(change.abs() <= 1.0, "{precision}: {said}");
        let bytes = |p: &Path| std::fs::metadata(p).expect("written").len();
        assert!(4 * bytes(&small) < 3 * bytes(&model), "{precision}: {} of {} bytes", bytes(&small), bytes(&model));
        let converted = Embedder::open(&Runtime::load().expect("ONNX Runtime"), &EmbedderConfig { model: small, ..EmbedderConfig::default() }, options);
        let converted = converted.expect("the tracker loads it");
        assert_eq!(converted.model().metadata().get("precision"), Some(precision));
        assert_eq!(converted.calibration(), Some(calibration));
    }
    let foreign = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/person_detector.onnx");
    let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
    let c = c.args(["convert", "--data", "synthetic:12", "--precision", "fp16", "--model"]).arg(foreign).arg("--output").arg(dir.path().join("no.onnx"));
    let refused = c.output().expect("it starts");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("not made by twintrack-train"), "{}", String::from_utf8_lossy(&refused.stderr));

    let judged =
        Command::new(env!("CARGO_BIN_EXE_twintrack-train")).args(["eval", "--data", "synthetic:12", "--model"]).arg(&model).output().expect("it starts");
    let table = String::from_utf8_lossy(&judged.stdout).into_owned();
    assert!(judged.status.success() && table.contains("mAP") && table.contains("synthetic:12"), "{table}{}", String::from_utf8_lossy(&judged.stderr));
}

/// Every network of the registry, at both sizes, learns a little and comes out of ONNX Runtime as it was trained (the
/// exporter refuses it otherwise).
#[test]
fn every_network_is_exported_as_it_was_trained() {
    let dir = tempfile::tempdir().expect("a folder");
    let (model, config) = (dir.path().join("net.onnx"), dir.path().join("train.toml"));
    let parts = [("tiny", 256, 600_000), ("mobile", 128, 3_000_000), ("omni", 128, 1_000_000)];
    for (network, height, most) in parts {
        let text = format!(
            "network = \"{network}\"\nheight = {height}\ndimension = 64\nsteps = 2\npeople = 2\nviews = 2\nclassification = 0.5\nloss = \"random-triplet\"\nmetric = \"cosine\"\n"
        );
        std::fs::write(&config, text).expect("written");
        let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
        let c = c.args(["run", "--data", "synthetic:6", "--config"]).arg(&config).arg("--work").arg(dir.path().join(network)).arg("--output").arg(&model);
        let done = c.output().expect("it starts");
        assert!(done.status.success(), "{network}: {}", String::from_utf8_lossy(&done.stderr));
        let options = SessionOptions { device: Device::Cpu, threads: 1 };
        let of_tracker = EmbedderConfig { model: model.clone(), ..EmbedderConfig::default() };
        let embedder = Embedder::open(&Runtime::load().expect("ONNX Runtime"), &of_tracker, options).expect("the tracker loads it");
        assert_eq!(embedder.model().dims()[2..], [Some(height), Some(height / 2)]);
        assert!(embedder.name().starts_with(network));
        let floats = std::fs::metadata(&model).expect("written").len() / 4;
        assert!(floats < most, "{network} has about {floats} parameters");
    }
}

/// `mobile` starts from the weights of a file: here those of another `mobile`, which stands for the ImageNet one.
#[test]
fn mobile_starts_from_a_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let run = |name: &str, network: &str, from: &str| {
        let config = dir.path().join(format!("{name}.toml"));
        std::fs::write(&config, format!("network = \"{network}\"\ndimension = 16\nsteps = 1\npeople = 2\nviews = 2\n{from}")).expect("written");
        let mut c = Command::new(env!("CARGO_BIN_EXE_twintrack-train"));
        c.args(["run", "--data", "synthetic:4", "--config"]).arg(&config);
        c.arg("--work").arg(dir.path().join(name)).arg("--output").arg(dir.path().join(format!("{name}.onnx"))).output().expect("it starts")
    };
    assert!(run("first", "mobile", "").status.success());
    let from = format!("start_from = {:?}\n", dir.path().join("first.onnx"));
    let second = run("second", "mobile", &from);
    assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
    let tiny = run("third", "tiny", &from);
    assert!(String::from_utf8_lossy(&tiny.stderr).contains("only the network 'mobile'"), "{}", String::from_utf8_lossy(&tiny.stderr));
    let wrong = run("fourth", "mobile", &format!("start_from = {:?}\n", dir.path().join("fourth.toml")));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("no ONNX file"), "{}", String::from_utf8_lossy(&wrong.stderr));
}

#[test]
fn orders_that_make_no_sense_are_refused() {
    let said = |args: &[&str]| {
        let out = Command::new(env!("CARGO_BIN_EXE_twintrack-train")).args(args).output().expect("it starts");
        assert!(!out.status.success());
        String::from_utf8_lossy(&out.stderr).into_owned()
    };
    assert!(said(&["run"]).contains("--from-video"));
    assert!(said(&["run", "--data", "synthetic:3"]).contains("have 3 people"));
    assert!(said(&["run", "--data", "faces:x"]).contains("market"));
    assert!(said(&["eval", "--model", "missing.onnx", "--data", "synthetic:4"]).contains("missing.onnx"));
}
