//! One-shot identification of symbols instead of people: small grey square pictures, from training
//! to `compare`.
#![cfg(feature = "train")]

mod common;

use std::path::Path;
use std::process::Command;

use common::{repository, run, text, twintrack};
use opencv::core::{CV_8UC1, Mat, Point, Scalar, Vector};
use opencv::{imgcodecs, imgproc};
use twintrack::train::config::TrainConfig;
use twintrack::train::readers::DataSpec;
use twintrack::train::retrieval::{distances, pixels};

const SIDE: i32 = 24;

fn trainer() -> Command {
    Command::new(env!("CARGO_BIN_EXE_twintrack-train"))
}

/// Writes a grey picture with one channel: two strokes whose ends depend on `letter`, with a small
/// shift that depends on `hand`.
fn letter(path: &Path, letter: i32, hand: i32) {
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
    let mut mat =
        Mat::new_rows_cols_with_default(SIDE, SIDE, CV_8UC1, Scalar::all(12.0)).expect("a picture");
    let at = |corner: i32| {
        Point::new(
            3 + 9 * (corner % 3) + hand % 2,
            3 + 8 * (corner / 3 % 3) + hand / 2 % 2,
        )
    };
    for (a, b) in [
        (letter % 9, (letter * 5 + 4) % 9),
        ((letter * 7 + 2) % 9, (letter * 2 + 6) % 9),
    ] {
        imgproc::line(
            &mut mat,
            at(a),
            at(b),
            Scalar::all(220.0),
            1 + hand % 3,
            imgproc::LINE_AA,
            0,
        )
        .expect("drawn");
    }
    assert!(
        imgcodecs::imwrite(path.to_str().expect("UTF-8"), &mat, &Vector::new()).expect("written")
    );
}

fn letters(dir: &Path, which: std::ops::Range<i32>, hands: i32) -> String {
    for l in which {
        (0..hands).for_each(|hand| letter(&dir.join(format!("letter-{l:02}/{hand}.png")), l, hand));
    }
    format!("folders:{}", dir.display())
}

/// The fields of a row of `eval` after the data set's name.
fn row(table: &str, set: &str) -> Vec<String> {
    let line = table
        .lines()
        .find(|l| l.starts_with(set))
        .unwrap_or_else(|| panic!("{set} is not in\n{table}"));
    line[set.len()..]
        .split_whitespace()
        .map(str::to_string)
        .collect()
}

#[test]
fn every_training_configuration_is_valid() {
    let mut seen = 0;
    for path in std::fs::read_dir(repository("configs/train"))
        .expect("a folder")
        .map(|e| e.expect("an entry").path())
    {
        let text = std::fs::read_to_string(&path).expect("readable");
        let config: TrainConfig =
            toml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        config
            .validate()
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert!(
            text.starts_with('#') && config != TrainConfig::default(),
            "{} does not say what it is for, or changes nothing",
            path.display()
        );
        seen += 1;
    }
    assert!(seen >= 1);
}

/// Trains on square grey pictures, evaluates with several numbers of ways, and compares two
/// pictures by `twintrack compare`.
#[test]
fn letters_are_trained_evaluated_and_compared() {
    let dir = tempfile::tempdir().expect("a folder");
    let at = |name: &str| dir.path().join(name);
    let (known, strange) = (
        letters(&at("known"), 0..12, 4),
        letters(&at("strange"), 12..18, 4),
    );
    let shipped =
        std::fs::read_to_string(repository("configs/train/characters.toml")).expect("readable");
    let config = toml::from_str::<TrainConfig>(&shipped)
        .expect("valid")
        .with_steps(4)
        .with_people(4)
        .with_views(2)
        .with_validate_every(2);
    assert_eq!(
        (config.size(), config.augment.flip),
        ((32, 32), 0.0),
        "letters are square, and a mirrored letter is another"
    );
    std::fs::write(
        at("train.toml"),
        toml::to_string(&config).expect("serialises"),
    )
    .expect("written");
    let model = at("letters.onnx");
    let mut c = trainer();
    c.args(["run", "--data", &known, "--config"])
        .arg(at("train.toml"))
        .arg("--work")
        .arg(at("work"))
        .arg("--output")
        .arg(&model);
    run(&mut c);

    let table = text(
        &run(trainer()
            .args([
                "eval", "--ways", "2", "6", "7", "--data", &strange, "--model",
            ])
            .arg(&model))
        .stdout,
    );
    let (heads, numbers) = (
        table.lines().next().expect("a head"),
        row(&table, strange.trim_start_matches("folders:")),
    );
    assert!(heads.ends_with("   2-way    6-way    7-way"), "{heads}");
    let [two, six] = [8, 9].map(|i| numbers[i].parse::<f64>().expect("a share"));
    assert!(
        numbers[0] == "24" && two >= six && (0.0..=100.0).contains(&six),
        "{table}"
    );
    assert!(
        table.lines().nth(1).is_some_and(|l| l.ends_with("too few")),
        "there are six letters only: {table}"
    );
    assert!(table.contains("10000 trials over 6 identities"), "{table}");

    let compare = |whole: &[&str]| {
        let mut c = twintrack();
        c.arg("compare")
            .args(whole)
            .args([at("strange/letter-12/0.png"), at("strange/letter-12/1.png")])
            .arg("--embedder")
            .arg(&model);
        c.output().expect("it starts")
    };
    let same = compare(&["--whole", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&same.stdout)
        .unwrap_or_else(|e| panic!("{e}: {}", text(&same.stderr)));
    assert!(
        said["similarity"]
            .as_f64()
            .is_some_and(|s| (0.0..=1.0).contains(&s)),
        "{said}"
    );
    let rejected = compare(&[]);
    assert!(
        !rejected.status.success() && text(&rejected.stderr).contains("--whole"),
        "{}",
        text(&rejected.stderr)
    );
}

/// The pixel baseline needs no network and ignores brightness.
#[test]
fn pixels_are_evaluated_without_a_network() {
    let dir = tempfile::tempdir().expect("a folder");
    let data = letters(dir.path(), 0..8, 4);
    let table = text(
        &run(trainer().args(["eval", "--pixels", "16x24", "--ways", "5", "--data", &data])).stdout,
    );
    let numbers = row(&table, data.trim_start_matches("folders:"));
    let shot: f64 = numbers[8].parse().expect("a share");
    assert!(
        numbers[0] == "32" && shot > 30.0,
        "above chance, which is 20 %: {table}"
    );
    assert!(!table.contains("calibration"), "{table}");
    for (args, hint) in [
        (["--pixels", "auto"], "WIDTHxHEIGHT"),
        (["--ways", "1"], "at least 2"),
    ] {
        let out = trainer()
            .args(["eval", "--data", &data])
            .args(args)
            .output()
            .expect("it starts");
        assert!(
            !out.status.success() && text(&out.stderr).contains(hint),
            "{}",
            text(&out.stderr)
        );
    }

    let set = data
        .parse::<DataSpec>()
        .expect("a place")
        .read(1)
        .expect("pictures");
    let rows = pixels(&set.crops, (16, 24));
    assert_eq!(rows.dim(), (32, 3 * 16 * 24));
    assert!(
        rows.rows()
            .into_iter()
            .all(|r| (r.dot(&r) - 1.0).abs() < 1e-4 && r.sum().abs() < 1e-2)
    );
    let d = distances(rows.view());
    assert!((0..32).all(|i| d[[i, i]] < 1e-5) && d[[0, 5]] > 0.01);
}
