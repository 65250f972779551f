//! Third-party networks: embedders without metadata, with vectors of any dimension, extra axes,
//! fixed batches or half precision; NanoDet's undecoded outputs.

mod common;
#[path = "common/toy.rs"]
mod toy;

use std::path::{Path, PathBuf};

use common::{json_lines, repository, run, text, twintrack};
use ndarray::Array2;
use prost::Message as _;
use twintrack::embed::{Embedder, EmbedderConfig};
use twintrack::frame::Image;
use twintrack::geometry::BBox;
use twintrack::infer::{
    ColorOrder, Device, InferError, InputSize, PixelFormat, Runtime, SessionOptions,
};
use twintrack::onnx::graph::untyped;
use twintrack::onnx::proto::{Dimension, FLOAT16, ModelProto};
use twintrack::onnx::{Attribute, Graph};

const PIXELS: PixelFormat = PixelFormat {
    color: ColorOrder::Rgb,
    mean: [10.0, 20.0, 30.0],
    std: [2.0, 4.0, 8.0],
};

/// Writes a network whose vector is the mean of each plane, [N, 3, 1, 1] or [N, 3], with the given
/// input dimensions (`None`: free).
fn network(dir: &Path, input: [Option<i64>; 4], flat: bool) -> PathBuf {
    let mut graph = Graph::default();
    let pooled = graph.node(
        "GlobalAveragePool",
        &["x"],
        if flat { "pooled" } else { "y" },
        &[],
    );
    if flat {
        graph.node("Flatten", &[&pooled], "y", &[("axis", Attribute::Int(1))]);
    }
    let mut model = ModelProto::decode(
        graph
            .finish("foreign", ("x", [3, 8, 8]), ("y", 3), &[])
            .as_slice(),
    )
    .expect("just written");
    let graph = model.graph.as_mut().expect("it has a graph");
    graph.output = vec![untyped("y")];
    let shape = graph.input[0]
        .kind
        .as_mut()
        .and_then(|k| k.tensor_type.as_mut())
        .and_then(|t| t.shape.as_mut())
        .expect("it has a shape");
    shape.dim = input
        .iter()
        .enumerate()
        .map(|(i, d)| Dimension {
            dim_value: *d,
            dim_param: d.is_none().then(|| format!("d{i}")),
        })
        .collect();
    let path = dir.join("foreign.onnx");
    std::fs::write(&path, model.encode_to_vec()).expect("written");
    path
}

fn open(
    model: PathBuf,
    size: InputSize,
    pixels: Option<PixelFormat>,
) -> Option<Result<Embedder, InferError>> {
    let config = EmbedderConfig::default()
        .with_model(model)
        .with_size(size)
        .with_pixels(pixels);
    config.validate().expect("in range");
    match Runtime::load() {
        Ok(runtime) => Some(Embedder::open(
            &runtime,
            &config,
            SessionOptions::new(Device::Cpu, 1),
        )),
        Err(e) => {
            eprintln!("SKIPPED: {e}");
            None
        }
    }
}

/// Six crops of one colour each (blue, green, red).
fn embed(embedder: &mut Embedder) -> Array2<f32> {
    let colours: Vec<[u8; 3]> = (0..6).map(|i| [40 * i, 200 - 30 * i, 90 + i]).collect();
    let images: Vec<Image> = colours
        .iter()
        .map(|c| Image::packed(8, 8, c.repeat(64).into()))
        .collect();
    let whole = BBox::new(0.0, 0.0, 8.0, 8.0);
    let crops: Vec<(&Image, &BBox)> = images.iter().map(|i| (i, &whole)).collect();
    let vectors = embedder.embed_crops(&crops).expect("it runs");
    assert_eq!(vectors.dim(), (6, 3));
    for (vector, [b, g, r]) in vectors.outer_iter().zip(&colours) {
        let raw = [
            (f32::from(*r) - 10.0) / 2.0,
            (f32::from(*g) - 20.0) / 4.0,
            (f32::from(*b) - 30.0) / 8.0,
        ];
        let length = raw.iter().map(|v| v * v).sum::<f32>().sqrt();
        for (a, v) in vector.iter().zip(raw) {
            assert!(
                (a - v / length).abs() < 1e-5,
                "{vector} instead of {raw:?} at unit length"
            );
        }
    }
    vectors
}

const FREE: [Option<i64>; 4] = [None, Some(3), None, None];

#[test]
fn configuration_supplies_missing_metadata() {
    let dir = tempfile::tempdir().expect("a folder");
    let size = InputSize::Fixed(8, 8);
    for flat in [true, false] {
        let Some(opened) = open(network(dir.path(), FREE, flat), size, Some(PIXELS)) else {
            return;
        };
        let mut embedder = opened.expect("it fits");
        assert_eq!(
            (embedder.dimension(), embedder.name().as_str()),
            (3, "foreign")
        );
        embed(&mut embedder);
    }
}

#[test]
fn fixed_batches_are_padded_and_run_as_often_as_needed() {
    let dir = tempfile::tempdir().expect("a folder");
    for batch in [1, 4, 6, 8] {
        let Some(opened) = open(
            network(
                dir.path(),
                [Some(batch), Some(3), Some(8), Some(8)],
                batch % 3 == 0,
            ),
            InputSize::Auto,
            Some(PIXELS),
        ) else {
            return;
        };
        let mut embedder = opened.expect("it fits");
        embed(&mut embedder);
        assert_eq!(
            embedder.embed_crops(&[]).expect("nothing to do").dim(),
            (0, 3)
        );
    }
}

/// A graph may accept only single crops although its input declares a free batch size; this is
/// detected when the file is opened.
#[test]
fn half_precision_and_single_crop_graphs_give_the_same_vectors() {
    let dir = tempfile::tempdir().expect("a folder");
    let pixels = Some(PixelFormat::BYTES_BGR);
    let vectors = |input: toy::Input, alone: bool| {
        let opened = open(
            toy::mean_colour(toy::toy(dir.path()), input, &["y"], alone),
            InputSize::Fixed(8, 8),
            pixels,
        )?;
        let mut embedder = opened.expect("it fits");
        let colours: Vec<[u8; 3]> = (0..6).map(|i| [40 * i, 200 - 30 * i, 90 + i]).collect();
        let images: Vec<Image> = colours
            .iter()
            .map(|c| Image::packed(8, 8, c.repeat(64).into()))
            .collect();
        let whole = BBox::new(0.0, 0.0, 8.0, 8.0);
        let crops: Vec<(&Image, &BBox)> = images.iter().map(|i| (i, &whole)).collect();
        Some((
            embedder.embed_crops(&crops).expect("it runs"),
            embedder.model().batch(),
        ))
    };
    let Some((wanted, free)) = vectors(toy::input(None, 8, 8), false) else {
        return;
    };
    assert_eq!((wanted.dim(), free), ((6, 3), None));
    for (element, fixed, alone, batch) in [
        (FLOAT16, None, false, None),
        (FLOAT16, Some(4), false, Some(4)),
        (FLOAT16, None, true, Some(1)),
        (1, None, true, Some(1)),
    ] {
        let (got, found) = vectors(
            toy::Input {
                element,
                ..toy::input(fixed, 8, 8)
            },
            alone,
        )
        .expect("a runtime");
        assert_eq!(found, batch);
        assert!(
            got.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 2e-3),
            "{got} instead of {wanted}"
        );
    }
}

#[test]
fn embeddings_are_distinguished_from_class_scores() {
    let dir = tempfile::tempdir().expect("a folder");
    let with = |outputs: &[&str]| {
        open(
            toy::mean_colour(toy::toy(dir.path()), toy::input(None, 8, 8), outputs, false),
            InputSize::Auto,
            Some(PIXELS),
        )
    };
    let Some(opened) = with(&["logits", "features"]) else {
        return;
    };
    assert_eq!(opened.expect("it fits").output(), "features");
    let e = with(&["a", "b"])
        .expect("a runtime")
        .err()
        .expect("ambiguous")
        .to_string();
    assert!(e.contains("a [1, 3], b [1, 3]"), "{e}");
}

/// Without a calibration the tracker works, because it uses distances; commands that need
/// similarities say how to calibrate. The configuration gives the pixel format by name.
#[test]
fn an_uncalibrated_network_tracks_and_compare_names_the_remedy() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = toy::mean_colour(
        toy::toy(dir.path()),
        toy::input(Some(4), 8, 16),
        &["y"],
        false,
    );
    let config = dir.path().join("foreign.toml");
    std::fs::write(
        &config,
        format!("[embedder]\nmodel = {model:?}\npixels = \"imagenet-rgb\"\n"),
    )
    .expect("written");
    if Runtime::load().is_err() {
        eprintln!("SKIPPED: no ONNX Runtime");
        return;
    }
    let mut track = twintrack();
    track
        .args([
            "track",
            "--quiet",
            "--duration",
            "3",
            "--embeddings",
            "--config",
        ])
        .arg(&config)
        .arg(common::clip());
    let events = json_lines(&text(&run(&mut track).stdout));
    let ended: Vec<_> = events
        .iter()
        .filter(|e| e["embedding"].as_array().is_some_and(|v| v.len() == 3))
        .collect();
    assert!(ended.len() >= 3, "{} tracks have an embedding", ended.len());
    let of = |e: &serde_json::Value| e["embedder"].as_str().expect("a network").to_string();
    assert!(
        ended.iter().all(|e| of(e).starts_with("toy sha256:")),
        "{}",
        of(ended[0])
    );
    let demo = repository("docs/demo.jpg");
    let compared = twintrack()
        .args(["compare", "--config"])
        .arg(&config)
        .args([&demo, &demo])
        .output()
        .expect("it starts");
    let said = text(&compared.stderr);
    assert!(
        !compared.status.success()
            && said.contains("twintrack-train calibrate")
            && said.contains("toy.onnx"),
        "{said}"
    );
    let doctor = text(&run(twintrack().args(["doctor", "--config"]).arg(&config)).stdout);
    assert!(
        doctor.contains("pixel format: imagenet-rgb, crops of 8x16 pixels")
            && doctor.contains("it is not calibrated"),
        "{doctor}"
    );
}

#[test]
fn missing_metadata_is_reported_with_the_setting_to_use() {
    let dir = tempfile::tempdir().expect("a folder");
    let rejected = |input, size, pixels| {
        open(network(dir.path(), input, true), size, pixels)
            .map(|r| r.err().expect("rejected").to_string())
    };
    let Some(e) = rejected(FREE, InputSize::Fixed(8, 8), None) else {
        return;
    };
    assert!(
        e.contains("foreign.onnx") && e.contains("set embedder.pixels") && e.contains("bytes-bgr"),
        "{e}"
    );
    let e = rejected(FREE, InputSize::Auto, Some(PIXELS)).expect("a runtime");
    assert!(e.contains("set embedder.size"), "{e}");
    let e = rejected(
        [None, Some(3), Some(8), Some(8)],
        InputSize::Fixed(64, 128),
        Some(PIXELS),
    )
    .expect("a runtime");
    assert!(e.contains("fixed at 8x8") && e.contains("64x128"), "{e}");
}

#[test]
fn calibration_can_be_configured() {
    let dir = tempfile::tempdir().expect("a folder");
    let model = network(dir.path(), FREE, true);
    let Some(opened) = open(model.clone(), InputSize::Fixed(8, 8), Some(PIXELS)) else {
        return;
    };
    let e = opened
        .expect("it fits")
        .calibrated()
        .unwrap_err()
        .to_string();
    assert!(e.contains("set embedder.calibration"), "{e}");
    // By the configured calibration, this network gives two pictures of the same colour a high
    // similarity.
    let config = dir.path().join("foreign.toml");
    let pixels = "pixels = { color = \"rgb\", mean = [10, 20, 30], std = [2, 4, 8] }";
    let model = model.display().to_string();
    let settings = format!(
        "[embedder]\nmodel = {model:?}\nsize = \"8x8\"\n{pixels}\n\
         calibration = {{ slope = 10, threshold = 0.5 }}\n"
    );
    std::fs::write(&config, settings).expect("written");
    let demo = repository("docs/demo.jpg");
    let demo = demo.to_str().expect("text");
    let said = text(
        &run(twintrack()
            .args(["compare", demo, demo, "--json", "--config"])
            .arg(&config))
        .stdout,
    );
    assert!(said.contains("\"similarity\":0.9933"), "{said}");
}

#[test]
fn values_out_of_range_are_rejected() {
    let wrong = EmbedderConfig::default().with_pixels(Some(PixelFormat {
        std: [0.0, 1.0, 1.0],
        ..PIXELS
    }));
    assert!(
        wrong
            .validate()
            .unwrap_err()
            .to_string()
            .contains("embedder.pixels.std")
    );
    let wrong = EmbedderConfig::default().with_size(InputSize::Fixed(4, 9000));
    assert!(
        wrong
            .validate()
            .unwrap_err()
            .to_string()
            .contains("embedder.size")
    );
}

/// The shipped detector is NanoDet-g with boxes decoded in the graph; the published network must
/// detect the same people.
#[test]
fn published_nanodet_detects_the_same_people_as_the_shipped_detector() {
    let published = repository("../shared/models/nanodet_g_coco.onnx");
    if !published.is_file() {
        eprintln!(
            "SKIPPED: {} is missing; the layout is tested on synthetic numbers only",
            published.display()
        );
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let config = dir.path().join("nanodet.toml");
    std::fs::write(
        &config,
        format!(
            "[detector]\nmodel = {:?}\n",
            published.display().to_string()
        ),
    )
    .expect("written");
    let clip = repository("samples/pets2009-s2l1.mp4");
    let detections = |options: &[&str]| {
        let to = dir.path().join("detections.txt");
        let (clip, to_text) = (clip.to_str().expect("text"), to.to_str().expect("text"));
        let fixed = [
            "track",
            clip,
            "--duration",
            "0.5",
            "--no-embed",
            "--size",
            "768x576",
            "--output",
            "/dev/null",
            "--quiet",
            "--save-detections",
            to_text,
        ];
        run(twintrack().args(fixed).args(options));
        std::fs::read_to_string(to).expect("detections")
    };
    let theirs = detections(&["--config", config.to_str().expect("text")]);
    assert!(theirs.lines().count() > 10, "{theirs}");
    assert_eq!(theirs, detections(&["--precision", "fp32"]));
}
