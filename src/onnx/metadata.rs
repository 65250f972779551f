//! Changes a file's metadata. All other bytes are copied unchanged, without decoding.

use std::collections::BTreeSet;
use std::ops::Range;

use prost::Message;

use crate::onnx::graph::metadata_suffix;
use crate::onnx::proto::StringStringEntryProto;

/// The field of `ModelProto` that holds the metadata.
pub(super) const METADATA_PROPS: u64 = 14;

/// Copies an ONNX file and adds or replaces these entries under `twintrack.*`; other entries stay.
///
/// # Errors
/// Fails when the bytes are not a protocol buffer.
pub fn with_metadata(file: &[u8], metadata: &[(String, String)]) -> Result<Vec<u8>, String> {
    let replaced: BTreeSet<String> = metadata
        .iter()
        .map(|(k, _)| format!("twintrack.{k}"))
        .collect();
    let tail = metadata_suffix(metadata);
    let mut out = Vec::with_capacity(file.len() + tail.len());
    let mut at = 0;
    while at < file.len() {
        let field = next_field(file, at).ok_or_else(|| {
            format!("not an ONNX file: the bytes from {at} on are not a field of a protocol buffer")
        })?;
        let old = field.number == METADATA_PROPS
            && StringStringEntryProto::decode(&file[field.content.clone()])
                .is_ok_and(|entry| replaced.contains(&entry.key));
        if !old {
            out.extend_from_slice(&file[at..field.content.end]);
        }
        at = field.content.end;
    }
    out.extend_from_slice(&tail);
    Ok(out)
}

/// A top-level field: its number and the position of its value.
pub(super) struct Field {
    pub(super) number: u64,
    /// Bytes of the value; the tag precedes them.
    pub(super) content: Range<usize>,
}

/// Parses the field that begins at `at`; `None` when it is malformed.
pub(super) fn next_field(file: &[u8], at: usize) -> Option<Field> {
    let (tag, start) = varint(file, at)?;
    let (begin, length) = match tag & 7 {
        0 => (start, varint(file, start)?.1 - start),
        1 => (start, 8),
        2 => {
            let (length, begin) = varint(file, start)?;
            (begin, usize::try_from(length).ok()?)
        }
        5 => (start, 4),
        // Groups do not occur in onnx.proto.
        _ => return None,
    };
    let end = begin.checked_add(length).filter(|end| *end <= file.len())?;
    (tag >> 3 > 0).then_some(Field {
        number: tag >> 3,
        content: begin..end,
    })
}

/// Parses a varint; returns its value and the position after it.
fn varint(file: &[u8], mut at: usize) -> Option<(u64, usize)> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *file.get(at)?;
        at += 1;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, at));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onnx::graph::Graph;
    use crate::onnx::proto::ModelProto;

    fn entry(key: &str, value: &str) -> (String, String) {
        (key.into(), value.into())
    }

    fn file() -> Vec<u8> {
        let mut graph = Graph::default();
        graph.node("Flatten", &["x"], "y", &[]);
        graph.finish(
            "g",
            ("x", [3, 8, 8]),
            ("y", 192),
            &[entry("name", "old"), entry("size", "8x8")],
        )
    }

    #[test]
    fn entries_are_replaced_or_added_and_the_rest_is_unchanged() {
        // Unknown fields, which a newer version of ONNX may have: field 20, a string; field 21,
        // eight bytes.
        let unknown = [
            0xa2, 0x01, 0x03, b'a', b'b', b'c', 0xa9, 0x01, 1, 2, 3, 4, 5, 6, 7, 8,
        ];
        let before = [file(), unknown.to_vec()].concat();
        let after = with_metadata(
            &before,
            &[entry("name", "new"), entry("strangers", "0.1@0.5")],
        )
        .expect("a file");
        let read = |bytes: &[u8]| ModelProto::decode(bytes).expect("whole");
        let of: Vec<(String, String)> = read(&after)
            .metadata_props
            .into_iter()
            .map(|p| (p.key, p.value))
            .collect();
        assert_eq!(
            of,
            [
                entry("twintrack.size", "8x8"),
                entry("twintrack.name", "new"),
                entry("twintrack.strangers", "0.1@0.5")
            ]
        );
        assert_eq!(read(&after).graph, read(&before).graph);
        assert!(
            after.windows(unknown.len()).any(|w| w == unknown),
            "unknown fields stay"
        );
        // Applying the same entries again changes nothing.
        assert_eq!(
            with_metadata(
                &after,
                &[entry("name", "new"), entry("strangers", "0.1@0.5")]
            )
            .expect("a file"),
            after
        );
    }

    #[test]
    fn bytes_that_are_no_protocol_buffer_are_rejected() {
        for wrong in [
            &b"\xff\xff"[..],
            b"not an ONNX file",
            b"\x0b",
            b"\x12\x7f\x00",
            b"\x00\x00",
        ] {
            assert!(with_metadata(wrong, &[]).is_err(), "{wrong:?}");
        }
        let whole = file();
        assert!(with_metadata(&whole[..whole.len() - 1], &[]).is_err());
    }
}
