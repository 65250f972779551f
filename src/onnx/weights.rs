//! Hash of a network: of its file without metadata, and of its external weight files.

use std::collections::BTreeSet;
use std::io::{self, Read as _};
use std::path::Path;

use prost::Message;
use sha2::{Digest, Sha256};

use crate::onnx::metadata::{METADATA_PROPS, next_field};
use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, TensorProto};

/// Number of bytes of the hash that are shown; with 64 bits an accidental collision is implausible.
const SHOWN: usize = 8;
/// The key of a constant's entry that names its external file.
const LOCATION: &str = "location";

/// Hash of the network in the ONNX file `path`: `sha256:` and 16 hexadecimal digits. Files that
/// differ only in name or metadata (a calibrated copy, for example) have the same hash.
///
/// # Errors
/// Fails when the file or one of its external weight files cannot be read.
pub fn network_hash(path: &Path) -> io::Result<String> {
    let file = std::fs::read(path)?;
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < file.len() {
        // A file that is not a protocol buffer (for example in ONNX Runtime's own format) is hashed
        // whole.
        let Some(field) = next_field(&file, at) else {
            hash.update(&file[at..]);
            break;
        };
        if field.number != METADATA_PROPS {
            hash.update(&file[at..field.content.end]);
        }
        at = field.content.end;
    }
    let beside = path.parent().unwrap_or(Path::new(""));
    // Only files that refer to external weights are decoded, because decoding needs a second copy
    // in memory.
    let elsewhere = file
        .windows(LOCATION.len())
        .any(|bytes| bytes == LOCATION.as_bytes());
    let graph = if elsewhere {
        ModelProto::decode(file.as_slice())
            .ok()
            .and_then(|m| m.graph)
    } else {
        None
    };
    for name in graph.map(|g| external(&g)).unwrap_or_default() {
        add_file(&mut hash, &beside.join(&name))?;
    }
    Ok(format!("sha256:{}", hex::encode(&hash.finalize()[..SHOWN])))
}

/// Hashes a file in chunks, because it may be larger than memory.
fn add_file(hash: &mut Sha256, path: &Path) -> io::Result<()> {
    let mut file = std::fs::File::open(path)?;
    let mut piece = vec![0; 1 << 20];
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(()),
            n => hash.update(&piece[..n]),
        }
    }
}

/// Names of the external weight files, which exporters write for large networks.
fn external(graph: &GraphProto) -> BTreeSet<String> {
    let of_tensor = |t: &TensorProto| {
        t.external_data
            .iter()
            .find(|e| e.key == LOCATION)
            .map(|e| e.value.clone())
    };
    let constants = graph
        .node
        .iter()
        .flat_map(|n| &n.attribute)
        .filter_map(|a: &AttributeProto| a.t.as_ref());
    graph
        .initializer
        .iter()
        .chain(constants)
        .filter_map(of_tensor)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::graph::Graph;
    use crate::onnx::metadata::with_metadata;
    use crate::onnx::proto::StringStringEntryProto;

    fn file(weight: f32, name: &str) -> Vec<u8> {
        let mut graph = Graph::default();
        let w = graph.constant("w", &[1], &[weight]);
        graph.node("Mul", &["x", &w], "y", &[]);
        graph.finish(
            "g",
            ("x", [3, 8, 8]),
            ("y", 192),
            &[
                ("name".into(), name.into()),
                ("date".into(), "2026-11-26".into()),
            ],
        )
    }

    #[test]
    fn hash_depends_on_weights_and_not_on_metadata() {
        let dir = tempfile::tempdir().expect("a folder");
        let hash = |bytes: &[u8], name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            network_hash(&path).expect("readable")
        };
        let one = file(1.0, "tiny");
        let first = hash(&one, "a.onnx");
        assert!(first.starts_with("sha256:") && first.len() == 23, "{first}");
        // Same name and date, but other weights.
        assert_ne!(first, hash(&file(2.0, "tiny"), "a.onnx"));
        let calibrated = with_metadata(
            &one,
            &[
                ("name".into(), "other".into()),
                ("calibration".into(), "15,0.5".into()),
            ],
        )
        .expect("a file");
        assert_eq!(first, hash(&calibrated, "b.onnx"));
        assert_ne!(
            hash(b"not an ONNX file", "c.onnx"),
            hash(b"not an ONNX file.", "c.onnx")
        );
    }

    #[test]
    fn hash_includes_external_weights() {
        let dir = tempfile::tempdir().expect("a folder");
        let (model, data) = (dir.path().join("m.onnx"), dir.path().join("m.onnx.data"));
        let location = StringStringEntryProto {
            key: "location".into(),
            value: "m.onnx.data".into(),
        };
        let tensor = TensorProto {
            dims: vec![1],
            data_type: 1,
            name: "w".into(),
            external_data: vec![location],
            ..TensorProto::default()
        };
        let graph = GraphProto {
            initializer: vec![tensor],
            ..GraphProto::default()
        };
        std::fs::write(
            &model,
            ModelProto {
                graph: Some(graph),
                ..ModelProto::default()
            }
            .encode_to_vec(),
        )
        .expect("written");
        assert!(network_hash(&model).is_err(), "its weights are missing");
        let with = |weights: [u8; 4]| {
            std::fs::write(&data, weights).expect("written");
            network_hash(&model).expect("readable")
        };
        assert_ne!(with([0, 0, 0, 0]), with([0, 0, 0, 1]));
    }
}
