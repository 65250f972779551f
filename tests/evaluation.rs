//! `twintrack eval` agrees with the reference scorer (TrackEval 1.3.0) to 1e-6 on every measure of every row.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{repository, run, text, twintrack};
use serde_json::Value;

#[test]
fn every_measure_agrees_with_the_reference() {
    let dir = repository("tests/fixtures/eval");
    let reference: Value = serde_json::from_str(&std::fs::read_to_string(dir.join("reference.json")).unwrap()).unwrap();
    let mut checked = 0;
    for (benchmark, sequences) in reference.as_object().unwrap() {
        let out = run(twintrack().args(["eval", "--json", "--benchmark", benchmark, "--gt"]).arg(dir.join("gt")).arg("--results").arg(dir.join("results")));
        let rows: Vec<Value> = serde_json::from_slice(&out.stdout).unwrap();
        for (sequence, measures) in sequences.as_object().unwrap() {
            let ours = rows.iter().find(|r| r["sequence"] == *sequence).unwrap();
            for (measure, want) in measures.as_object().unwrap() {
                let (got, want) = (ours[measure].as_f64().unwrap(), want.as_f64().unwrap());
                assert!((got - want).abs() < 1e-6, "{benchmark} {sequence} {measure}: {got}, the reference says {want}");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, 3 * 3 * 13);
}

#[test]
fn the_table_has_a_row_a_sequence_and_the_sum() {
    let dir = repository("tests/fixtures/eval");
    let out = text(&run(twintrack().args(["eval", "--gt"]).arg(dir.join("gt")).arg("--results").arg(dir.join("results"))).stdout);
    let first: Vec<&str> = out.lines().filter_map(|l| l.split_whitespace().next()).collect();
    assert_eq!(first, ["sequence", "walk-a", "walk-b", "COMBINED"]);
}

#[test]
fn an_identity_twice_in_a_frame_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let gt = repository("tests/fixtures/eval/gt");
    for name in ["walk-a", "walk-b"] {
        std::fs::write(dir.path().join(format!("{name}.txt")), "1,5,0,0,10,20,1,-1,-1,-1\n1,5,50,0,10,20,1,-1,-1,-1\n").unwrap();
    }
    let out = twintrack().args(["eval", "--gt"]).arg(&gt).arg("--results").arg(dir.path()).output().unwrap();
    assert_eq!(out.status.code(), Some(1));
    let stderr = text(&out.stderr);
    assert!(stderr.contains("identity 5 twice in frame 1"), "{stderr}");
    let out = twintrack().args(["eval", "--gt"]).arg(dir.path()).arg("--results").arg(dir.path()).output().unwrap();
    assert!(text(&out.stderr).contains("holds no sequence"));
}
