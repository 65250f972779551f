//! The importer of OpenVINO IR: each operation on a small network, and Intel's networks if they are
//! available.
#![cfg(feature = "models")]

use std::path::Path;

use ndarray::Array4;
use twintrack::infer::{Device, Model, Runtime, SessionOptions};
use twintrack::models::openvino;

#[path = "common/ir.rs"]
mod fixture;

fn open(path: &Path) -> Option<Model> {
    match Runtime::load() {
        Ok(runtime) => {
            Some(Model::open(&runtime, path, SessionOptions::new(Device::Cpu, 2)).expect("opened"))
        }
        Err(e) => {
            eprintln!("SKIPPED: {e}");
            None
        }
    }
}

fn random(n: usize, h: usize, w: usize) -> Array4<f32> {
    let mut rng = fastrand::Rng::with_seed(3);
    Array4::from_shape_simple_fn((n, 3, h, w), || 255.0 * rng.f32())
}

#[test]
fn imported_networks_of_intel_agree_with_the_reference() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/omz-reid");
    if !data.is_dir() {
        eprintln!(
            "SKIPPED: {} is missing; the importer is tested on its own fixture only",
            data.display()
        );
        return;
    }
    for name in ["0287", "0288"] {
        let part = |end: &str| data.join(format!("ir/person-reidentification-retail-{name}.{end}"));
        let dir = tempfile::tempdir().expect("a folder");
        let file = dir.path().join("imported.onnx");
        std::fs::write(
            &file,
            openvino::import(&part("xml"), &part("bin"), name, &[]).expect("imported"),
        )
        .expect("written");
        let (Some(mut ours), Some(mut reference)) = (
            open(&file),
            open(&data.join(format!("omz-reid-{name}.onnx"))),
        ) else {
            return;
        };
        for n in [1, 3] {
            let batch = random(n, 256, 128);
            let (a, b) = (
                ours.run(batch.view()).expect("run"),
                reference.run(batch.view()).expect("run"),
            );
            assert_eq!(a[0].values.shape(), [n, 256]);
            let worst = a[0]
                .values
                .iter()
                .zip(&b[0].values)
                .map(|(x, y)| (x - y).abs())
                .fold(0.0, f32::max);
            assert!(worst < 1e-4, "{name}, {n} crops: {worst}");
        }
    }
}

/// Imports a network built by `build`, runs it on two crops of 4x2 pixels, and compares its outputs
/// with those of `expected`, both scaled to unit length.
fn check_import(
    what: &str,
    build: impl Fn(&mut fixture::Ir, &fixture::Value) -> fixture::Value,
    expected: impl Fn(&[f32]) -> Vec<f32>,
) {
    let dir = tempfile::tempdir().expect("a folder");
    let (xml, bin) = fixture::network(4, 2, build);
    let path = |end: &str| dir.path().join(format!("net.{end}"));
    std::fs::write(path("xml"), xml).expect("written");
    std::fs::write(path("bin"), bin).expect("written");
    let bytes = openvino::import(&path("xml"), &path("bin"), "net", &[])
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    std::fs::write(path("onnx"), bytes).expect("written");
    let Some(mut model) = open(&path("onnx")) else {
        return;
    };
    let batch = random(2, 4, 2).mapv(|v| v / 64.0 - 2.0);
    let output = model
        .run(batch.view())
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    for (crop, got) in batch.outer_iter().zip(output[0].values.outer_iter()) {
        let mut want = expected(crop.as_slice().expect("contiguous"));
        let length = want.iter().map(|v| v * v).sum::<f32>().sqrt();
        want.iter_mut().for_each(|v| *v /= length);
        assert_eq!(got.len(), want.len(), "{what}");
        for (a, b) in got.iter().zip(&want) {
            assert!((a - b).abs() < 1e-5, "{what}: {got} instead of {want:?}");
        }
    }
}

#[test]
fn every_operation_is_imported() {
    let same = |f: fn(f32) -> f32| move |x: &[f32]| x.iter().map(|v| f(*v)).collect::<Vec<f32>>();
    let shape = [1, 3, 4, 2];
    check_import(
        "Add, Subtract, Multiply, Divide, Const, Convert",
        |ir, x| {
            let numbers: Vec<_> = [3.0, 2.0, 1.0, 4.0]
                .iter()
                .map(|v| ir.f16_constant(&[1, 1, 1, 1], &[*v]))
                .collect();
            let y = ir.op(
                "Subtract",
                "auto_broadcast=\"numpy\"",
                &[x, &numbers[0]],
                &shape,
            );
            let y = ir.op(
                "Multiply",
                "auto_broadcast=\"numpy\"",
                &[&y, &numbers[1]],
                &shape,
            );
            let y = ir.op("Add", "", &[&y, &numbers[2]], &shape);
            ir.op("Divide", "", &[&y, &numbers[3]], &shape)
        },
        same(|v| ((v - 3.0) * 2.0 + 1.0) / 4.0),
    );
    check_import(
        "ReLU",
        |ir, x| ir.op("ReLU", "", &[x], &shape),
        same(|v| v.max(0.0)),
    );
    check_import(
        "Sigmoid",
        |ir, x| ir.op("Sigmoid", "", &[x], &shape),
        same(|v| 1.0 / (1.0 + (-v).exp())),
    );
    check_import(
        "Tanh",
        |ir, x| ir.op("Tanh", "", &[x], &shape),
        same(f32::tanh),
    );
    check_import(
        "Clamp, Sqrt",
        |ir, x| {
            let y = ir.op("Clamp", "min=\"0.25\" max=\"1.5\"", &[x], &shape);
            ir.op("Sqrt", "", &[&y], &shape)
        },
        same(|v| v.clamp(0.25, 1.5).sqrt()),
    );
    check_import(
        "PReLU",
        |ir, x| {
            let slope = ir.f16_constant(&[3], &[0.5, 0.25, 2.0]);
            ir.op("PReLU", "", &[x, &slope], &shape)
        },
        |x| {
            x.iter()
                .enumerate()
                .map(|(i, v)| {
                    if *v < 0.0 {
                        v * [0.5, 0.25, 2.0][i / 8]
                    } else {
                        *v
                    }
                })
                .collect()
        },
    );
    check_import(
        "Gather",
        |ir, x| {
            let (order, axis) = (
                ir.i32_constant(&[3], &[2, 1, 0]),
                ir.i32_constant(&[], &[1]),
            );
            ir.op("Gather", "batch_dims=\"0\"", &[x, &order, &axis], &shape)
        },
        |x| [&x[16..], &x[8..16], &x[..8]].concat(),
    );
    check_import(
        "Transpose",
        |ir, x| {
            let order = ir.i64_constant(&[4], &[0, 2, 3, 1]);
            ir.op("Transpose", "", &[x, &order], &[1, 4, 2, 3])
        },
        |x| (0..24).map(|i| x[8 * (i % 3) + i / 3]).collect(),
    );
    check_import(
        "ReduceMean",
        |ir, x| {
            let axes = ir.i64_constant(&[2], &[2, 3]);
            ir.op(
                "ReduceMean",
                "keep_dims=\"true\"",
                &[x, &axes],
                &[1, 3, 1, 1],
            )
        },
        |x| x.chunks(8).map(|c| c.iter().sum::<f32>() / 8.0).collect(),
    );
    check_import(
        "MVN",
        |ir, x| {
            let axes = ir.i64_constant(&[2], &[2, 3]);
            ir.op(
                "MVN",
                "eps=\"0.01\" eps_mode=\"INSIDE_SQRT\" normalize_variance=\"true\"",
                &[x, &axes],
                &shape,
            )
        },
        |x| {
            let normal = |c: &[f32]| {
                let mean = c.iter().sum::<f32>() / 8.0;
                let variance = c.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / 8.0;
                c.iter()
                    .map(|v| (v - mean) / (variance + 0.01).sqrt())
                    .collect::<Vec<f32>>()
            };
            x.chunks(8).flat_map(normal).collect()
        },
    );
    check_import(
        "ShapeOf, Concat, Reshape",
        |ir, x| {
            let (first, axis, rest) = (
                ir.i64_constant(&[1], &[0]),
                ir.i64_constant(&[], &[0]),
                ir.i64_constant(&[2], &[4, -1]),
            );
            let all = ir.shape_of(x);
            let n = ir.op_of_type(
                "Gather",
                "batch_dims=\"0\"",
                &[&all, &first, &axis],
                &[1],
                "I64",
            );
            let wanted = ir.op_of_type("Concat", "axis=\"0\"", &[&n, &rest], &[3], "I64");
            ir.op(
                "Reshape",
                "special_zero=\"false\"",
                &[x, &wanted],
                &[1, 4, 6],
            )
        },
        same(|v| v),
    );
}

#[test]
fn convolutions_and_pooling_are_imported() {
    const PLAIN: &str = "auto_pad=\"explicit\" dilations=\"1, 1\"";
    // Windows of 3x3 over a channel of 4 rows and 2 columns; None for the padding.
    let padded = |c: &[f32], y: i32, x: i32| {
        (0..4)
            .contains(&y)
            .then(|| (0..2).contains(&x).then(|| c[(2 * y + x) as usize]))
            .flatten()
    };
    let window = move |c: &[f32], y: i32, x: i32| -> Vec<Option<f32>> {
        (0..9)
            .map(|k| padded(c, y + k / 3 - 1, x + k % 3 - 1))
            .collect()
    };
    let kernel: Vec<f32> = (0..54).map(|i| (i % 7) as f32 * 0.25 - 0.5).collect();
    let weights = kernel.clone();
    check_import(
        "Convolution",
        move |ir, x| {
            let w = ir.f16_constant(&[2, 3, 3, 3], &weights);
            ir.op(
                "Convolution",
                &format!("{PLAIN} strides=\"2, 2\" pads_begin=\"1, 1\" pads_end=\"1, 1\""),
                &[x, &w],
                &[1, 2, 2, 1],
            )
        },
        move |x| {
            let at = |o: usize, y: i32| {
                (0..3)
                    .flat_map(|c| window(&x[8 * c..8 * c + 8], y, 0))
                    .zip(&kernel[27 * o..])
                    .map(|(v, k)| v.unwrap_or(0.0) * k)
                    .sum()
            };
            vec![at(0, 0), at(0, 2), at(1, 0), at(1, 2)]
        },
    );
    check_import(
        "GroupConvolution",
        |ir, x| {
            let w = ir.f16_constant(&[3, 2, 1, 1, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
            ir.op(
                "GroupConvolution",
                &format!("{PLAIN} strides=\"1, 1\" pads_begin=\"0, 0\" pads_end=\"0, 0\""),
                &[x, &w],
                &[1, 6, 4, 2],
            )
        },
        |x| {
            (0..48)
                .map(|i| x[8 * (i / 16) + i % 8] * (i / 8 + 1) as f32)
                .collect()
        },
    );
    let pool = |kind: &'static str, more: &'static str| {
        move |ir: &mut fixture::Ir, x: &fixture::Value| {
            let window = "kernel=\"3, 3\" strides=\"1, 1\" pads_begin=\"1, 1\" pads_end=\"1, 1\" \
                          rounding_type=\"floor\" auto_pad=\"explicit\"";
            ir.op(kind, &format!("{window} {more}"), &[x], &[1, 3, 4, 2])
        }
    };
    let everywhere = move |x: &[f32], f: fn(Vec<f32>) -> f32| -> Vec<f32> {
        (0..24)
            .map(|i| {
                f(window(
                    &x[8 * (i / 8)..8 * (i / 8) + 8],
                    (i % 8 / 2) as i32,
                    (i % 2) as i32,
                )
                .into_iter()
                .flatten()
                .collect())
            })
            .collect()
    };
    check_import("MaxPool", pool("MaxPool", "dilations=\"1, 1\""), move |x| {
        everywhere(x, |v| v.into_iter().fold(f32::MIN, f32::max))
    });
    check_import(
        "AvgPool",
        pool("AvgPool", "exclude-pad=\"true\""),
        move |x| everywhere(x, |v| v.iter().sum::<f32>() / v.len() as f32),
    );
    check_import(
        "AvgPool including the padding",
        pool("AvgPool", "exclude-pad=\"false\""),
        move |x| everywhere(x, |v| v.iter().sum::<f32>() / 9.0),
    );
}

#[test]
fn matrix_products_are_imported() {
    let weight: Vec<f32> = (0..120).map(|i| (i % 11) as f32 * 0.125 - 0.5).collect();
    let same = weight.clone();
    check_import(
        "MatMul",
        move |ir, x| {
            let (flat, w) = (ir.flat(x), ir.f16_constant(&[5, 24], &weight));
            ir.op(
                "MatMul",
                "transpose_a=\"false\" transpose_b=\"true\"",
                &[&flat, &w],
                &[1, 5],
            )
        },
        move |x| {
            same.chunks(24)
                .map(|row| row.iter().zip(x).map(|(a, b)| a * b).sum())
                .collect()
        },
    );
}

#[test]
fn unsupported_operations_and_attributes_are_named_in_the_error() {
    let import = |kind: &str, attributes: &str| {
        let (xml, bin) =
            fixture::network(4, 2, |ir, x| ir.op(kind, attributes, &[x], &[1, 3, 4, 2]));
        let dir = tempfile::tempdir().expect("a folder");
        let path = |end: &str| dir.path().join(format!("net.{end}"));
        std::fs::write(path("xml"), xml).expect("written");
        std::fs::write(path("bin"), bin).expect("written");
        openvino::import(&path("xml"), &path("bin"), "net", &[])
            .unwrap_err()
            .to_string()
    };
    let e = import("NonMaxSuppression", "");
    assert!(
        e.contains("(NonMaxSuppression): the operation is not supported") && e.contains("net.xml"),
        "{e}"
    );
    let e = import(
        "MaxPool",
        "strides=\"1, 1\" kernel=\"2, 2\" auto_pad=\"same_upper\"",
    );
    assert!(
        e.contains("MaxPool") && e.contains("auto_pad = 'same_upper'"),
        "{e}"
    );
    let e = import("Const", "offset=\"10\" size=\"999\"");
    assert!(e.contains("outside the .bin file"), "{e}");
    let e = import("Add", "");
    assert!(e.contains("1 inputs, but at least 2"), "{e}");
}
