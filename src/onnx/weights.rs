//! The identity of a network: a hash of its file without metadata, with the weights that lie in
//! files beside it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{self, Read as _};
use std::path::Path;

use prost::Message;
use sha2::{Digest, Sha256};

use crate::onnx::metadata::{METADATA_PROPS, next_field};
use crate::onnx::proto::{AttributeProto, GraphProto, ModelProto, TensorProto};

/// Bytes of the hash that are shown: enough that no two networks that anybody has are taken for
/// one.
const SHOWN: usize = 8;
/// The key under which a constant names the file of its values.
const LOCATION: &str = "location";

/// Hash of the network in the ONNX file `path`: `sha256:` and 16 hexadecimal digits. Files that
/// differ in their name or metadata only (a calibrated copy) have the same.
///
/// # Errors
/// When the file, or one of the files that hold its weights, cannot be read.
pub fn hash_of(path: &Path) -> io::Result<String> {
    let file = std::fs::read(path)?;
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < file.len() {
        // What is no protocol buffer (ONNX Runtime's own format) counts whole.
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
    // Files that hold all their weights need no second copy in memory.
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
    let mut text = String::from("sha256:");
    // A String takes everything.
    hash.finalize()
        .iter()
        .take(SHOWN)
        .for_each(|byte| write!(text, "{byte:02x}").unwrap_or_default());
    Ok(text)
}

/// Adds a file's bytes, piece by piece: it may be larger than memory.
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

/// Names of the files that hold weights, as exporters write them for large networks.
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
    fn the_weights_count_and_what_the_file_says_of_itself_does_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let hash = |bytes: &[u8], name: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, bytes).expect("written");
            hash_of(&path).expect("readable")
        };
        let one = file(1.0, "tiny");
        let first = hash(&one, "a.onnx");
        assert!(first.starts_with("sha256:") && first.len() == 23, "{first}");
        // Trained on the same day under the same name: another network.
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
    fn weights_beside_the_file_count() {
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
        assert!(hash_of(&model).is_err(), "its weights are missing");
        let with = |weights: [u8; 4]| {
            std::fs::write(&data, weights).expect("written");
            hash_of(&model).expect("readable")
        };
        assert_ne!(with([0, 0, 0, 0]), with([0, 0, 0, 1]));
    }
}
