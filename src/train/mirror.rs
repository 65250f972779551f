//! Averages an embedder's vectors over a crop and its mirror image.
//!
//! A network learns only approximately that a person and the mirror image are the same person. The
//! mean of both vectors is closer to the other vectors of that person, at twice the network's time.

use std::path::Path;

use prost::Message;

use crate::embed::{Embedder, EmbedderConfig};
use crate::frame::Image;
use crate::geometry::BBox;
use crate::infer::{Device, Runtime, SessionOptions};
use crate::track::appearance::normalise;
use crate::track::similarity::{Calibration, StrangerTable};
use crate::train::error::TrainError;
use crate::train::export::{larger, write_checked};
use crate::train::onnx::{
    self, Attribute, GraphProto, ModelProto, NodeProto, StringStringEntryProto, integers_of,
    node_of,
};

/// Operator set from which on `ReduceSum` takes its axes as an input.
const MIN_OPSET: i64 = 13;
/// Largest accepted difference between an element of the copy's vectors and of the mean of the
/// original's.
const TOLERANCE: f32 = 1e-3;
/// Metadata entry of networks that average.
const KEY: &str = "twintrack.mirrored";

/// Writes a copy of the network of `config` to `to`. The copy's vector is the mean of the network's
/// vectors, each of unit length, of a crop and of its mirror image, scaled to unit length. The copy
/// has no calibration, because its distances differ. It is compared with the original on random
/// pictures before it is written.
///
/// # Errors
/// Fails when the network cannot be opened, averages already, or runs on a fixed number of crops,
/// when its operator set is older than 13, when the copy cannot be run or differs from the mean of
/// the original's vectors, and when it cannot be written.
pub fn mirrored(config: &EmbedderConfig, to: &Path) -> Result<(), TrainError> {
    let runtime = Runtime::load()?;
    let open = |config: &EmbedderConfig| {
        Embedder::open(&runtime, config, SessionOptions::new(Device::Cpu, 1))
    };
    let mut original = open(config)?;
    let proto = averaging(&original)?;
    write_checked(to, &proto.encode_to_vec(), |file| {
        let mut copy = open(&config.clone().with_model(file.into()))?;
        let difference = difference(&mut original, &mut copy)?;
        if difference <= TOLERANCE {
            return Ok(());
        }
        Err(TrainError::Data {
            name: config.model.display().to_string(),
            problem: format!(
                "the copy's embeddings differ by {difference:.1e} from the means (allowed \
                 {TOLERANCE:.0e}); the file may use a part of ONNX that is not read"
            ),
        })
    })
}

/// The averaging copy of a network.
fn averaging(embedder: &Embedder) -> Result<ModelProto, TrainError> {
    let file = embedder.model().path();
    let misfit = |problem: &str| TrainError::Data {
        name: file.display().to_string(),
        problem: problem.into(),
    };
    let mut proto = onnx::read(file)?;
    if proto.metadata_props.iter().any(|p| p.key == KEY) {
        return Err(misfit("it averages over mirror images already"));
    }
    let opset = proto.opset_import.iter().find(|o| o.domain.is_empty());
    if opset.is_none_or(|o| o.version < MIN_OPSET) {
        return Err(misfit("its operator set is older than 13"));
    }
    if embedder.model().batch().is_some() {
        return Err(misfit(
            "it runs on a fixed number of crops; export it with a free one",
        ));
    }
    proto
        .graph
        .as_mut()
        .and_then(|graph| rewrite(graph, embedder.output(), embedder.dimension()))
        .ok_or_else(|| misfit("it has no graph with an input"))?;
    let distances = [Calibration::KEY, StrangerTable::KEY].map(|key| format!("twintrack.{key}"));
    proto.metadata_props.retain(|p| !distances.contains(&p.key));
    proto.metadata_props.push(StringStringEntryProto {
        key: KEY.into(),
        value: "true".into(),
    });
    Ok(proto)
}

/// Makes the graph run on the crops followed by their mirror images, and average the vectors of
/// `output`, which becomes its only output. `None` if it has no input.
fn rewrite(graph: &mut GraphProto, output: &str, dimension: usize) -> Option<()> {
    let is_constant = |name: &str| graph.initializer.iter().any(|t| t.name == name);
    let input = graph.input.iter().find(|v| !is_constant(&v.name))?;
    let input = input.name.clone();
    let [both, inner] = [&input, output].map(|name| format!("{name}.both"));
    for node in &mut graph.node {
        for name in node.input.iter_mut().chain(&mut node.output) {
            if *name == input {
                name.clone_from(&both);
            } else if name == output {
                name.clone_from(&inner);
            }
        }
    }
    graph.initializer.extend([
        integers_of("mirror.backwards", &[-1]),
        integers_of("mirror.end", &[-i64::from(i32::MAX)]),
        integers_of("mirror.width", &[3]),
        integers_of("mirror.shape", &[2, -1, dimension as i64]),
        integers_of("mirror.pair", &[0]),
    ]);
    let (start, step) = ("mirror.backwards", "mirror.backwards");
    let slice = [&input, start, "mirror.end", "mirror.width", step];
    let first = [("axis", Attribute::Int(0))];
    let mut nodes = vec![
        node_of("Slice", &slice, &["mirror.crops"], &[]),
        node_of("Concat", &[&input, "mirror.crops"], &[&both], &first),
    ];
    nodes.append(&mut graph.node);
    nodes.extend(mean(&inner, output));
    graph.node = nodes;
    graph.output = vec![onnx::untyped(output)];
    Some(())
}

/// Nodes from the vectors of the crops and of their mirror images to the means of unit length.
fn mean(vectors: &str, output: &str) -> [NodeProto; 5] {
    let rows = [("axis", Attribute::Int(1))];
    let unit = [("axis", Attribute::Int(1)), ("p", Attribute::Int(2))];
    let over = ["mirror.pairs", "mirror.pair"];
    let drop = [("keepdims", Attribute::Int(0))];
    [
        node_of("Flatten", &[vectors], &["mirror.rows"], &rows),
        node_of("LpNormalization", &["mirror.rows"], &["mirror.unit"], &unit),
        node_of("Reshape", &["mirror.unit", "mirror.shape"], &[over[0]], &[]),
        node_of("ReduceSum", &over, &["mirror.sum"], &drop),
        NodeProto {
            name: "mirror.embedding".into(),
            ..node_of("LpNormalization", &["mirror.sum"], &[output], &unit)
        },
    ]
}

/// Largest difference between an element of the copy's vectors and of the mean of the original's,
/// on random pictures.
fn difference(original: &mut Embedder, copy: &mut Embedder) -> Result<f32, TrainError> {
    let mut rng = fastrand::Rng::with_seed(1);
    let (width, height) = original.size();
    let pixels: Vec<[u8; 3]> = (0..3 * width * height)
        .map(|_| [rng.u8(..), rng.u8(..), rng.u8(..)])
        .collect();
    let reversed: Vec<[u8; 3]> = pixels
        .chunks(width)
        .flat_map(|row| row.iter().rev().copied())
        .collect();
    let whole = BBox::new(0.0, 0.0, width as f32, height as f32);
    let embed = |embedder: &mut Embedder, pixels: &[[u8; 3]]| {
        let pictures: Vec<Image> = pixels
            .chunks(width * height)
            .map(|p| Image::packed(width as u32, height as u32, p.as_flattened().into()))
            .collect();
        let crops: Vec<(&Image, &BBox)> = pictures.iter().map(|p| (p, &whole)).collect();
        embedder.embed_crops(&crops)
    };
    let mut means = embed(original, &pixels)? + embed(original, &reversed)?;
    for mut mean in means.rows_mut() {
        mean.as_slice_mut().map(normalise);
    }
    let differences = (embed(copy, &pixels)? - means).mapv(f32::abs);
    Ok(differences.into_iter().fold(0.0, larger))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn shipped(name: &str) -> EmbedderConfig {
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("models");
        EmbedderConfig::default().with_model(models.join(name))
    }

    fn open(config: &EmbedderConfig) -> Embedder {
        let runtime = Runtime::load().expect("ONNX Runtime");
        Embedder::open(&runtime, config, SessionOptions::new(Device::Cpu, 1)).expect("it opens")
    }

    #[test]
    fn a_picture_and_its_mirror_image_have_the_mean_of_both_embeddings() {
        let dir = tempfile::tempdir().expect("a folder");
        let (config, file) = (shipped("siamese.onnx"), dir.path().join("mirrored.onnx"));
        mirrored(&config, &file).expect("it is written");
        let (mut original, mut copy) = (
            open(&config),
            open(&config.clone().with_model(file.clone())),
        );
        assert!(original.calibration().is_some() && copy.calibration().is_none());
        assert_eq!(
            (copy.size(), copy.dimension()),
            (original.size(), original.dimension())
        );

        let (width, height) = copy.size();
        let picture = |pixel: &dyn Fn(usize, usize) -> [u8; 3]| {
            let pixels: Vec<[u8; 3]> = (0..width * height)
                .map(|i| pixel(i % width, i / width))
                .collect();
            Image::packed(width as u32, height as u32, pixels.as_flattened().into())
        };
        let colours = |x: usize, y: usize| [(3 * x) as u8, (255 - y) as u8, (x * y / 40) as u8];
        let pair = [
            picture(&colours),
            picture(&|x, y| colours(width - 1 - x, y)),
        ];
        let whole = BBox::new(0.0, 0.0, width as f32, height as f32);
        let crops = pair.each_ref().map(|p| (p, &whole));
        let (of_one, of_both) = (
            original.embed_crops(&crops).expect("it runs"),
            copy.embed_crops(&crops).expect("it runs"),
        );
        let cosine =
            |a: &ndarray::Array2<f32>, b: &ndarray::Array2<f32>, i, j| a.row(i).dot(&b.row(j));
        assert!(
            cosine(&of_one, &of_one, 0, 1) < 0.99,
            "the picture is not symmetric"
        );
        assert!(cosine(&of_both, &of_both, 0, 1) > 0.999_99);
        let angles = [
            cosine(&of_one, &of_both, 0, 0),
            cosine(&of_one, &of_both, 1, 0),
        ];
        assert!((angles[0] - angles[1]).abs() < 1e-4, "{angles:?}");

        let again = mirrored(
            &config.clone().with_model(file),
            &dir.path().join("again.onnx"),
        );
        assert!(again.is_err_and(|e| e.to_string().contains("already")));
    }

    #[test]
    fn a_network_that_cannot_be_averaged_leaves_no_file() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("mirrored.onnx");
        assert!(mirrored(&shipped("person_detector.onnx"), &file).is_err());
        let fixed = dir.path().join("fixed.onnx");
        let mut proto = onnx::read(&shipped("siamese.onnx").model).expect("a network");
        let graph = proto.graph.as_mut().expect("a graph");
        for value in graph.input.iter_mut().chain(&mut graph.output) {
            let shape = value
                .kind
                .as_mut()
                .and_then(|k| k.tensor_type.as_mut()?.shape.as_mut());
            let batch = &mut shape.expect("a shape").dim[0];
            (batch.dim_value, batch.dim_param) = (Some(4), None);
        }
        fs::write(&fixed, proto.encode_to_vec()).expect("written");
        let refused = mirrored(&EmbedderConfig::default().with_model(fixed), &file);
        assert!(refused.is_err_and(|e| e.to_string().contains("fixed number of crops")));
        assert_eq!(fs::read_dir(dir.path()).expect("the folder").count(), 1);
    }
}
