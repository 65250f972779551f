//! The JSON Schema of the configuration.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

use serde_json::Value;

mod common;
use common::{repository, run, text, twintrack};

fn schema() -> Value {
    let path = repository("schema/configuration.schema.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Errors of a configuration by the schema.
fn problems(toml: &str) -> Vec<String> {
    let value: Value = toml::from_str(toml).unwrap();
    let validator = jsonschema::validator_for(&schema()).unwrap();
    validator
        .iter_errors(&value)
        .map(|e| format!("{}: {e}", e.instance_path()))
        .collect()
}

#[test]
fn the_committed_schema_is_current() {
    let printed = text(&run(twintrack().args(["config", "--schema"])).stdout);
    let committed = repository("schema/configuration.schema.json");
    assert_eq!(
        std::fs::read_to_string(committed).unwrap(),
        printed,
        "run `twintrack config --schema > schema/configuration.schema.json`"
    );
}

#[test]
fn every_configuration_of_the_repository_is_valid() {
    let mut seen = 0;
    let files = std::fs::read_dir(repository("configs")).unwrap().flatten();
    for path in files.map(|e| e.path()).filter(|p| p.is_file()) {
        let toml = std::fs::read_to_string(&path).unwrap();
        assert_eq!(problems(&toml), Vec::<String>::new(), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 6, "only {seen} files");
    // With every key that has a default.
    let defaults = text(&run(twintrack().arg("config")).stdout);
    assert_eq!(problems(&defaults), Vec::<String>::new());
}

#[test]
fn every_section_of_a_service_is_accepted() {
    let file = "device = \"cuda:1\"\n\
        [detector]\nsize = \"416x320\"\nlayout = \"yolo\"\nclass = 0\npixels = \"unit-rgb\"\n\
        [embedder]\npixels = { color = \"bgr\", mean = [0, 0, 0], std = [1.0, 1, 1] }\n\
        calibration = { slope = 20, threshold = 0.3 }\n\
        [cameras.gate-1]\nurl = \"rtsp://h/x\"\ntransport = \"udp\"\npassword_file = \"p\"\n\
        [serve]\nlisten = \"\"\n\
        [mqtt]\nbroker = \"mqtt://h\"\nversion = \"3.1.1\"\nspool = { bytes = 1000 }\n\
        [nats]\nurl = \"tls://h\"\nstream = \"S\"\nnkey_file = \"k\"\n\
        [webhook]\nurl = \"https://h/x\"\nevents = [\"track_ended\"]\n\
        [privacy]\nblur = \"faces\"\ncrops = false\n\
        [history]\nurl_env = \"X\"\ncrops = true\nkeep_days = { tracks = 1 }\n";
    assert_eq!(problems(file), Vec::<String>::new());
}

#[test]
fn unknown_keys_and_wrong_types_are_rejected() {
    for wrong in [
        "trackers = 1",
        "device = \"gpu\"",
        "[tracker]\nkeep_lots = 1.0",
        "[tracker.cost]\nsizes = 1.0",
        "[cameras.gate]\nurl = \"x\"\npasword = \"y\"",
        "[mqtt]\nbrokers = \"x\"",
        "[mqtt.spool]\nsize = 1",
        "[nats]\nstreams = \"x\"",
        "[webhook]\nevents = [\"frames\"]",
        "[detector]\nlayout = \"yolo9\"",
        "[detector]\nsize = 640",
        "[privacy]\nblur = \"face\"",
        "[serve]\nbatch = \"four\"",
    ] {
        assert!(!problems(wrong).is_empty(), "accepted: {wrong}");
    }
}

#[test]
fn every_key_has_a_description() {
    fn check(path: &str, value: &Value, seen: &mut usize) {
        let Some(object) = value.as_object() else {
            return;
        };
        let properties = object.get("properties").and_then(Value::as_object);
        for (key, of) in properties.into_iter().flatten() {
            let described = of["description"].as_str().is_some_and(|d| !d.is_empty());
            assert!(described || path.contains("anyOf"), "{path}.{key}");
            *seen += 1;
        }
        for (key, of) in object {
            check(&format!("{path}/{key}"), of, seen);
        }
    }
    let mut seen = 0;
    check("", &schema(), &mut seen);
    assert!(seen > 110, "only {seen} keys");
}
