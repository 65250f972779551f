//! `twintrack eval`: agreement with the reference scorer (TrackEval 1.3.0) to 1e-6 on every metric
//! of every row, and errors.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{repository, run, text, twintrack};
use serde_json::Value;

#[test]
fn every_metric_agrees_with_the_reference() {
    let dir = repository("tests/fixtures/eval");
    let reference: Value =
        serde_json::from_str(&std::fs::read_to_string(dir.join("reference.json")).unwrap())
            .unwrap();
    let mut checked = 0;
    for (benchmark, sequences) in reference.as_object().unwrap() {
        let out = run(twintrack()
            .args(["eval", "--json", "--benchmark", benchmark, "--gt"])
            .arg(dir.join("gt"))
            .arg("--results")
            .arg(dir.join("results")));
        let rows: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
        for (sequence, metrics) in sequences.as_object().unwrap() {
            let ours = rows.iter().find(|r| r["sequence"] == *sequence).unwrap();
            for (metric, want) in metrics.as_object().unwrap() {
                let (got, want) = (ours[metric].as_f64().unwrap(), want.as_f64().unwrap());
                assert!(
                    (got - want).abs() < 1e-6,
                    "{benchmark} {sequence} {metric}: {got}, the reference has {want}"
                );
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 3 * 3 * 13);
}

#[test]
fn the_table_has_a_row_per_sequence_and_a_combined_row() {
    let dir = repository("tests/fixtures/eval");
    let out = text(
        &run(twintrack()
            .args(["eval", "--gt"])
            .arg(dir.join("gt"))
            .arg("--results")
            .arg(dir.join("results")))
        .stdout,
    );
    let first: Vec<&str> = out
        .lines()
        .filter_map(|l| l.split_whitespace().next())
        .collect();
    assert_eq!(first, ["sequence", "walk-a", "walk-b", "COMBINED"]);
}

#[test]
fn a_repeated_identity_in_a_frame_is_rejected() {
    let dir = tempfile::tempdir().unwrap();
    let gt = repository("tests/fixtures/eval/gt");
    for name in ["walk-a", "walk-b"] {
        std::fs::write(
            dir.path().join(format!("{name}.txt")),
            "1,5,0,0,10,20,1,-1,-1,-1\n1,5,50,0,10,20,1,-1,-1,-1\n",
        )
        .unwrap();
    }
    let out = twintrack()
        .args(["eval", "--gt"])
        .arg(&gt)
        .arg("--results")
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(out.status.code(), Some(1));
    let stderr = text(&out.stderr);
    assert!(stderr.contains("identity 5 twice in frame 1"), "{stderr}");
    let out = twintrack()
        .args(["eval", "--gt"])
        .arg(dir.path())
        .arg("--results")
        .arg(dir.path())
        .output()
        .unwrap();
    assert!(text(&out.stderr).contains("has no sequence"));
}

/// Writes a sequence of ten frames with one person, and a perfect result for it.
fn sequence(dir: &std::path::Path, name: &str, class: i64) {
    let gt = dir.join("gt").join(name).join("gt");
    std::fs::create_dir_all(&gt).unwrap();
    std::fs::create_dir_all(dir.join("results")).unwrap();
    let row = |f: u32, rest: &str| format!("{f},1,{},20,30,60,1,{rest}\n", 10 * f);
    let truth: String = (1..=10).map(|f| row(f, &format!("{class},1"))).collect();
    std::fs::write(gt.join("gt.txt"), truth).unwrap();
    let result: String = (1..=10).map(|f| row(f, "-1,-1,-1")).collect();
    std::fs::write(dir.join("results").join(format!("{name}.txt")), result).unwrap();
}

/// Writes a sequence's `seqinfo.ini`.
fn describe(dir: &std::path::Path, name: &str, length: u32) {
    let text = format!("[Sequence]\nframeRate=10\nseqLength={length}\nimWidth=640\nimHeight=480\n");
    std::fs::write(dir.join("gt").join(name).join("seqinfo.ini"), text).unwrap();
}

fn eval(dir: &std::path::Path, gt: &str, results: &str, more: &[&str]) -> (bool, String, String) {
    let out = twintrack()
        .current_dir(dir)
        .args(["eval", "--gt", gt, "--results", results])
        .args(more)
        .output()
        .unwrap();
    (out.status.success(), text(&out.stdout), text(&out.stderr))
}

#[test]
fn classes_of_another_benchmark_are_an_error_with_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    for (name, class) in [("mot15", -1), ("cvat", 2)] {
        sequence(dir.path(), name, class);
        describe(dir.path(), name, 10);
        let (gt, result) = (format!("gt/{name}"), format!("results/{name}.txt"));
        let (ok, _, stderr) = eval(dir.path(), &gt, &result, &[]);
        assert!(
            !ok && stderr.contains(&format!("its classes are {class} (10 rows)"))
                && stderr.contains("--benchmark mot15"),
            "{stderr}"
        );
        let (ok, table, stderr) = eval(dir.path(), &gt, &result, &["--benchmark", "mot15"]);
        assert!(ok && table.contains("100.00"), "{table}{stderr}");
    }
    let out = twintrack()
        .current_dir(dir.path())
        .args(["tune", "--gt", "gt/cvat", "--trials", "1"])
        .output()
        .unwrap();
    assert!(
        !out.status.success() && text(&out.stderr).contains("its classes are 2 (10 rows)"),
        "{}",
        text(&out.stderr)
    );
}

#[test]
fn an_invalid_number_is_rejected_with_file_and_line() {
    let dir = tempfile::tempdir().unwrap();
    sequence(dir.path(), "a", 1);
    describe(dir.path(), "a", 10);
    std::fs::write(
        dir.path().join("results/a.txt"),
        "1,1,10,20,30,60,1,-1,-1,-1\n2,1,nan,20,30,60,1,-1,-1,-1\n",
    )
    .unwrap();
    let (ok, _, stderr) = eval(dir.path(), "gt", "results", &[]);
    assert!(
        !ok && stderr.contains("results/a.txt, line 2: 'nan' is not a number"),
        "{stderr}"
    );
}

#[test]
fn a_single_sequence_and_one_without_seqinfo_can_be_evaluated() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        sequence(dir.path(), name, 1);
    }
    describe(dir.path(), "a", 10);
    for (gt, results) in [
        ("gt/a", "results"),
        ("gt/a", "results/a.txt"),
        ("gt/b", "results/b.txt"),
        ("gt/b/.", "results"),
    ] {
        let (ok, table, stderr) = eval(dir.path(), gt, results, &[]);
        assert!(
            ok && table.contains("100.00") && stderr.is_empty(),
            "{gt} {results}: {table}{stderr}"
        );
    }
    std::fs::remove_file(dir.path().join("results/b.txt")).unwrap();
    let (ok, table, stderr) = eval(dir.path(), "gt", "results", &[]);
    assert!(
        ok && table.contains("a ") && !table.contains("b ") && stderr.contains("results/b.txt"),
        "{table}{stderr}"
    );
    std::fs::remove_file(dir.path().join("results/a.txt")).unwrap();
    let (ok, _, stderr) = eval(dir.path(), "gt", "results", &[]);
    assert!(
        !ok && stderr.contains("no sequence has a result"),
        "{stderr}"
    );
}

#[test]
fn rows_beyond_the_length_of_a_sequence_cause_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    sequence(dir.path(), "a", 1);
    describe(dir.path(), "a", 8);
    let (ok, table, stderr) = eval(dir.path(), "gt", "results", &[]);
    assert!(ok && table.contains("100.00"), "{table}");
    assert!(
        stderr.contains("ground truth: rows beyond")
            && stderr.contains("results: rows beyond")
            && stderr.contains("rows=2"),
        "{stderr}"
    );
}

#[test]
fn tune_accepts_a_cvat_export_with_frame_rate_and_size() {
    let dir = tempfile::tempdir().unwrap();
    sequence(dir.path(), "export", 1);
    let det = dir.path().join("gt/export/det");
    std::fs::create_dir(&det).unwrap();
    std::fs::copy(dir.path().join("results/export.txt"), det.join("det.txt")).unwrap();
    let tune = |more: &[&str]| {
        let mut c = twintrack();
        c.current_dir(dir.path())
            .args(["tune", "--gt", "gt/export", "--trials", "1", "--no-embed"])
            .args(more);
        let out = c.output().unwrap();
        (out.status.success(), text(&out.stdout), text(&out.stderr))
    };
    assert!(tune(&[]).2.contains("--frame-rate"), "{}", tune(&[]).2);
    assert!(tune(&["--frame-rate", "10"]).2.contains("--frame-size"));
    let (ok, table, stderr) = tune(&["--frame-rate", "10", "--frame-size", "640x480"]);
    assert!(ok && table.contains("export"), "{table}{stderr}");
}
