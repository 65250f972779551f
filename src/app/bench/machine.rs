//! Properties of the machine and the networks: processor, memory, number format.

use std::collections::BTreeMap;
use std::path::Path;

use prost::Message as _;

use twintrack::onnx::proto::{self, ModelProto};

/// Name of the processor, if the system reports it.
pub fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    name.map_or("an unknown processor", |(_, name)| name).into()
}

/// Resets [`peak_memory`]. If the system does not support this, the peak includes earlier phases of
/// the process.
pub fn reset_peak_memory() {
    if let Err(error) = std::fs::write("/proc/self/clear_refs", "5") {
        tracing::info!(%error, "cannot reset the peak of memory; it includes earlier phases");
    }
}

/// Peak resident memory in bytes of this process; `None` if the system does not report it.
pub fn peak_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let value = text.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = value.split_whitespace().next()?.parse().ok()?;
    Some(1024 * kibibytes)
}

/// The number format in which most weights of the ONNX file `path` are used; "unknown" if the file
/// cannot be read. Weights that are stored in one format and cast to another count as the format to
/// which they are cast.
pub fn precision(path: &Path) -> &'static str {
    let read = || -> Option<ModelProto> {
        let bytes = std::fs::read(path).ok()?;
        ModelProto::decode(bytes.as_slice()).ok()
    };
    let Some(graph) = read().and_then(|model| model.graph) else {
        return "unknown";
    };
    let casts: BTreeMap<&str, i64> = graph
        .node
        .iter()
        .filter(|node| node.op_type == "Cast")
        .filter_map(|node| {
            let to = node.attribute.iter().find(|a| a.name == "to")?.i?;
            Some((node.input.first()?.as_str(), to))
        })
        .collect();
    let constants = graph.node.iter().filter_map(|node| {
        let tensor = node.attribute.iter().find_map(|a| a.t.as_ref())?;
        Some((node.output.first()?.as_str(), tensor))
    });
    let stored = graph.initializer.iter().map(|t| (t.name.as_str(), t));
    let mut weights: BTreeMap<&'static str, i64> = BTreeMap::new();
    for (name, tensor) in stored.chain(constants) {
        let cast = casts.get(name).and_then(|&to| i32::try_from(to).ok());
        if let Some(format) = format(cast.unwrap_or(tensor.data_type)) {
            *weights.entry(format).or_default() += tensor.dims.iter().product::<i64>();
        }
    }
    let most = weights.into_iter().max_by_key(|(_, count)| *count);
    most.map_or("unknown", |(format, _)| format)
}

/// The number format of an element type; `None` for a type that weights do not have (int64 of
/// shapes, for example).
fn format(element: i32) -> Option<&'static str> {
    match element {
        proto::FLOAT => Some("float32"),
        proto::FLOAT16 => Some("float16"),
        proto::INT8 | proto::UINT8 => Some("int8"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_networks_have_the_precision_of_their_names() {
        let of = |name: &str| {
            precision(
                &Path::new(env!("CARGO_MANIFEST_DIR"))
                    .join("models")
                    .join(name),
            )
        };
        assert_eq!(of("person_detector.onnx"), "float32");
        assert_eq!(of("person_detector.int8.onnx"), "int8");
        assert_eq!(of("siamese.onnx"), "float32");
        assert_eq!(of("train.toml"), "unknown");
    }

    #[test]
    fn peak_memory_is_at_least_what_was_allocated() {
        // Opaque, because the optimiser would otherwise remove the allocation and keep only its
        // length.
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        assert!(peak_memory().is_none_or(|bytes| bytes > block.len() as u64));
    }
}
