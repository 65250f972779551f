//! Compares the graph with ONNX Runtime, and writes the graph to a file.

use std::path::{Path, PathBuf};

use burn::backend::{Autodiff, Flex};
use ndarray::Array4;

use super::*;
use crate::infer::{Device, Model, Runtime, SessionOptions};
use crate::track::appearance;
use crate::train::body::{Body, Network};
use crate::train::network::{Design, HeadKind, Tower};
use crate::train::rng_lock::RNG_LOCK;
use crate::train::tensors::normalise;

/// Largest difference between the unit vectors of the graph on the training backend and of ONNX
/// Runtime.
fn difference(path: &Path, (height, width): (usize, usize), range: f32) -> f32 {
    let device = Default::default();
    let graph = GraphNetwork::<Flex>::new(
        Plan::read(path, None).expect("understood"),
        (height, width),
        0,
        &device,
    )
    .expect("it runs");
    let options = SessionOptions::new(Device::Cpu, 1);
    let mut model =
        Model::open(&Runtime::load().expect("ONNX Runtime"), path, options).expect("a model");
    let mut rng = fastrand::Rng::with_seed(3);
    let batch = Array4::from_shape_simple_fn((3, 3, height, width), || rng.f32() * range);
    let mut theirs: Vec<f32> = model.run(batch.view()).expect("it runs")[0]
        .values
        .iter()
        .copied()
        .collect();
    let data = TensorData::new(batch.into_raw_vec_and_offset().0, [3, 3, height, width]);
    let end = graph.forward(Tensor::from_data(data, &device)).end;
    let [n, d, ..] = end.dims();
    assert_eq!(theirs.len(), n * d);
    theirs.chunks_mut(d).for_each(appearance::normalise);
    let ours = normalise(end.reshape([n, d]))
        .into_data()
        .to_vec::<f32>()
        .expect("floats");
    ours.iter()
        .zip(&theirs)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

fn shared(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../shared")
        .join(name);
    if !path.exists() {
        eprintln!("SKIPPED: {} is not here", path.display());
    }
    path.exists().then_some(path)
}

#[test]
fn foreign_networks_compute_what_onnx_runtime_does() {
    for name in [
        "data/omz-reid/omz-reid-0288.onnx",
        "data/omz-reid/omz-reid-0287.onnx",
        "data/omz-reid/omz-reid-0277.onnx",
    ] {
        let Some(path) = shared(name) else { return };
        let worst = difference(&path, (256, 128), 255.0);
        assert!(worst < 1e-4, "{name}: {worst}");
    }
    let Some(path) = shared("models/mobilenetv2_imagenet.onnx") else {
        return;
    };
    let worst = difference(&path, (128, 64), 2.0);
    assert!(worst < 1e-4, "{worst}");
}

/// Writes networks of three kinds to files, reads each as a graph, computes the gradients of its
/// weights, and writes it again.
#[test]
fn exported_networks_can_be_trained_as_graphs() {
    type B = Autodiff<Flex>;
    let _alone = RNG_LOCK.lock().expect("no test failed while it drew");
    let device = Default::default();
    let file = std::env::temp_dir().join(format!("twintrack-graph-{}.onnx", std::process::id()));
    for (network, head, normalise) in [
        (Network::Residual, HeadKind::ReadOut, true),
        (Network::Omni, HeadKind::Stripes, false),
        (Network::Mobile, HeadKind::ReadOut, false),
    ] {
        let design = Design {
            network,
            head,
            normalise,
            colours: false,
            neck: true,
            size: (128, 64),
            dimension: 24,
            channels: 32,
            pixels: None,
        };
        let tower = Tower::<Flex>::new(design, &Default::default(), &device);
        std::fs::write(&file, tower.to_onnx(&[])).expect("written");
        let worst = difference(&file, (128, 64), 1.0);
        assert!(worst < 1e-4, "{network:?}: {worst}");

        let again = Tower::<B>::from_graph(
            &file,
            None,
            0,
            Design {
                normalise: false,
                neck: false,
                ..design
            },
            &device,
        )
        .expect("a graph");
        assert_eq!(again.design().dimension, 24);
        let crops = || {
            Tensor::<B, 4>::from_data(
                TensorData::new(
                    (0..6 * 128 * 64)
                        .map(|i| (i % 97) as f32 / 97.0)
                        .collect::<Vec<f32>>(),
                    [2, 3, 128, 64],
                ),
                &device,
            )
        };
        let seen = again.forward(crops(), None);
        let grads = (seen.embeddings.clone()
            * seen.embeddings.clone().detach().slice([0..1, 0..24]))
        .sum()
        .backward();
        let Body::Graph(graph) = again.body() else {
            panic!("a graph")
        };
        // Weights of a single number are constants of the design and are not trained.
        let learning: Vec<_> = graph
            .weights
            .iter()
            .filter(|w| w.val().dims()[0] > 1)
            .collect();
        let moved = learning
            .iter()
            .filter(|w| {
                w.val()
                    .grad(&grads)
                    .is_some_and(|g| g.abs().max().into_scalar() > 0.0)
            })
            .count();
        assert!(
            10 * moved > 7 * learning.len(),
            "{network:?}: {moved} of {} weights have a gradient",
            learning.len()
        );
        let file2 = file.with_extension("2.onnx");
        std::fs::write(&file2, again.to_onnx(&[])).expect("written");
        let nodes = |p: &Path| {
            crate::train::onnx::read(p)
                .expect("read")
                .graph
                .expect("a graph")
                .node
                .iter()
                .map(|n| n.op_type.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(nodes(&file), nodes(&file2));
        assert!(difference(&file2, (128, 64), 1.0) < 1e-4);
        std::fs::remove_file(&file2).expect("our own file");
    }
    std::fs::remove_file(&file).expect("our own file");
}

#[test]
fn an_unsupported_operation_is_reported_by_name() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/person_detector.onnx");
    let e = Plan::read(&file, None).expect_err("a detector").to_string();
    assert!(
        e.contains("person_detector.onnx")
            && e.contains("node '")
            && e.contains("cannot be trained"),
        "{e}"
    );
}

#[test]
fn kernels_over_whole_maps_are_adapted_to_half_the_size() {
    let Some(path) = shared("data/omz-reid/omz-reid-0288.onnx") else {
        return;
    };
    let device = Default::default();
    let design = Design {
        network: Network::Tiny,
        head: HeadKind::Stripes,
        colours: false,
        normalise: false,
        neck: false,
        size: (128, 64),
        dimension: 16,
        channels: 1,
        pixels: None,
    };
    let tower = Tower::<Flex>::from_graph(&path, None, 0, design, &device).expect("fitted");
    let file = std::env::temp_dir().join(format!("twintrack-half-{}.onnx", std::process::id()));
    std::fs::write(&file, tower.to_onnx(&[])).expect("written");
    assert!(difference(&file, (128, 64), 255.0) < 1e-4);
    std::fs::remove_file(&file).expect("our own file");
}
