//! Tests of the decoding, on outputs in the form of public exports.

use super::*;
use crate::infer::Output;
use ndarray::{Array, ArrayD, IxDyn};

fn decode(
    outputs: &[Output],
    layout: Layout,
    class: usize,
    n: usize,
    input: (usize, usize),
    threshold: f32,
) -> DecodeResult {
    super::decode(
        &BatchOutputs {
            outputs,
            n,
            input,
            class,
            threshold,
        },
        layout,
    )
}

fn output(name: &str, shape: &[usize], values: &[(&[usize], f32)]) -> Output {
    let mut a = ArrayD::zeros(IxDyn(shape));
    values.iter().for_each(|(i, v)| a[IxDyn(i)] = *v);
    Output {
        name: name.into(),
        values: a,
    }
}

const PERSON: BBox = BBox::new(10.0, 20.0, 30.0, 60.0);

fn assert_person(found: &[Vec<Detection>], confidence: f32) {
    assert_eq!(found.len(), 1);
    let [d] = found[0].as_slice() else {
        panic!("one person expected: {found:?}")
    };
    assert!((d.confidence - confidence).abs() < 1e-4, "{d:?}");
    for (a, b) in <[f32; 4]>::from(d.bbox)
        .into_iter()
        .zip(<[f32; 4]>::from(PERSON))
    {
        assert!((a - b).abs() < 1e-3, "{d:?}");
    }
}

#[test]
fn boxes_are_edges_and_a_score() {
    let values = Array::from_shape_vec(
        IxDyn(&[1, 2, 5]),
        vec![10.0, 20.0, 40.0, 80.0, 0.9, 0.0, 0.0, 5.0, 5.0, 0.1],
    )
    .expect("ten numbers");
    assert_person(
        &decode(
            &[Output {
                name: "boxes".into(),
                values,
            }],
            Layout::Boxes,
            0,
            1,
            (64, 64),
            0.5,
        )
        .expect("fits"),
        0.9,
    );
}

#[test]
fn yolox_cells_are_decoded() {
    // Input 64x64: 64 + 16 + 4 places; place 64 + 5 is cell (1, 1) of stride 16.
    let p = 69;
    let out = output(
        "output",
        &[1, 84, 85],
        &[
            (&[0, p, 0], 25.0 / 16.0 - 1.0),
            (&[0, p, 1], 50.0 / 16.0 - 1.0),
            (&[0, p, 2], (30.0f32 / 16.0).ln()),
            (&[0, p, 3], (60.0f32 / 16.0).ln()),
            (&[0, p, 4], 0.9),
            (&[0, p, 5], 0.8),
        ],
    );
    assert_person(
        &decode(&[out], Layout::Yolox, 0, 1, (64, 64), 0.5).expect("fits"),
        0.72,
    );
}

#[test]
fn yolo_places_may_be_columns_and_other_classes_are_ignored() {
    let out = output(
        "output0",
        &[1, 6, 100],
        &[
            (&[0, 0, 7], 25.0),
            (&[0, 1, 7], 50.0),
            (&[0, 2, 7], 30.0),
            (&[0, 3, 7], 60.0),
            (&[0, 4, 7], 0.8),
            (&[0, 2, 9], 30.0),
            (&[0, 3, 9], 60.0),
            (&[0, 5, 9], 0.99),
        ],
    );
    assert_person(
        &decode(&[out], Layout::Yolo, 0, 1, (640, 640), 0.5).expect("fits"),
        0.8,
    );
}

#[test]
fn detr_boxes_are_relative_to_the_picture() {
    let boxes = output(
        "pred_boxes",
        &[1, 10, 4],
        &[
            (&[0, 3, 0], 0.25),
            (&[0, 3, 1], 0.25),
            (&[0, 3, 2], 0.3),
            (&[0, 3, 3], 0.3),
        ],
    );
    let mut logits = output("logits", &[1, 10, 80], &[]);
    logits.values.fill(-9.0);
    logits.values[IxDyn(&[0, 3, 0])] = 0.0;
    assert_person(
        &decode(&[logits, boxes], Layout::Detr, 0, 1, (100, 200), 0.4).expect("fits"),
        0.5,
    );
}

#[test]
fn dfine_keeps_boxes_labelled_as_persons() {
    let boxes = output(
        "boxes",
        &[1, 2, 4],
        &[
            (&[0, 1, 0], 10.0),
            (&[0, 1, 1], 20.0),
            (&[0, 1, 2], 40.0),
            (&[0, 1, 3], 80.0),
        ],
    );
    let labels = output("labels", &[1, 2], &[(&[0, 0], 7.0)]);
    let scores = output("scores", &[1, 2], &[(&[0, 0], 0.9), (&[0, 1], 0.6)]);
    assert_person(
        &decode(
            &[labels, boxes, scores],
            Layout::Dfine,
            0,
            1,
            (640, 640),
            0.5,
        )
        .expect("fits"),
        0.6,
    );
}

#[test]
fn boxes_with_labels_keeps_only_persons() {
    let boxes = output(
        "dets",
        &[1, 2, 5],
        &[
            (&[0, 1, 0], 10.0),
            (&[0, 1, 1], 20.0),
            (&[0, 1, 2], 40.0),
            (&[0, 1, 3], 80.0),
            (&[0, 1, 4], 0.6),
        ],
    );
    let labels = output("labels", &[1, 2], &[(&[0, 0], 7.0)]);
    assert_person(
        &decode(&[boxes, labels], Layout::Boxes, 0, 1, (64, 64), 0.5).expect("fits"),
        0.6,
    );
}

#[test]
fn decoded_boxes_are_in_pixels_with_objectness() {
    // Input 64x64: 84 places, or three times that.
    for (layout, places) in [(Layout::YoloxDecoded, 84), (Layout::Yolov5, 252)] {
        let values: [(&[usize], f32); 6] = [
            (&[0, 9, 0], 25.0),
            (&[0, 9, 1], 50.0),
            (&[0, 9, 2], 30.0),
            (&[0, 9, 3], 60.0),
            (&[0, 9, 4], 0.9),
            (&[0, 9, 5], 0.8),
        ];
        let out = output("output", &[1, places, 6], &values);
        // A features output, as in old exports.
        let features = output("features", &[1, 3, 8, 8, 6], &[]);
        assert_person(
            &decode(&[out.clone(), features], layout, 0, 1, (64, 64), 0.5).expect("fits"),
            0.72,
        );
        assert!(
            decode(std::slice::from_ref(&out), layout, 1, 1, (64, 64), 0.5)
                .unwrap_err()
                .contains("the class 1")
        );
        assert!(decode(&[out], layout, 0, 1, (96, 64), 0.5).is_err());
    }
}

#[test]
fn yolo_places_may_be_rows_and_masks_are_ignored() {
    let values: [(&[usize], f32); 5] = [
        (&[0, 7, 0], 25.0),
        (&[0, 7, 1], 50.0),
        (&[0, 7, 2], 30.0),
        (&[0, 7, 3], 60.0),
        (&[0, 7, 4], 0.8),
    ];
    let masks = output("output1", &[1, 32, 16, 16], &[]);
    assert_person(
        &decode(
            &[masks, output("output0", &[1, 100, 38], &values)],
            Layout::Yolo,
            0,
            1,
            (640, 640),
            0.5,
        )
        .expect("fits"),
        0.8,
    );
}

#[test]
fn suppressed_boxes_have_their_class_in_the_sixth_column() {
    let edges: [(&[usize], f32); 5] = [
        (&[0, 3, 0], 10.0),
        (&[0, 3, 1], 20.0),
        (&[0, 3, 2], 40.0),
        (&[0, 3, 3], 80.0),
        (&[0, 3, 4], 0.8),
    ];
    let other: [(&[usize], f32); 4] = [
        (&[0, 2, 2], 40.0),
        (&[0, 2, 3], 80.0),
        (&[0, 2, 4], 0.9),
        (&[0, 2, 5], 2.0),
    ];
    let values = [&edges[..], &other].concat();
    assert_person(
        &decode(
            &[output("output0", &[1, 300, 6], &values)],
            Layout::End2end,
            0,
            1,
            (640, 640),
            0.5,
        )
        .expect("fits"),
        0.8,
    );
}

#[test]
fn rfdetr_has_logits_named_labels() {
    let boxes = output(
        "dets",
        &[1, 10, 4],
        &[
            (&[0, 3, 0], 0.25),
            (&[0, 3, 1], 0.25),
            (&[0, 3, 2], 0.3),
            (&[0, 3, 3], 0.3),
        ],
    );
    let mut logits = output("labels", &[1, 10, 91], &[]);
    logits.values.fill(-9.0);
    logits.values[IxDyn(&[0, 3, 1])] = 0.0;
    let outputs = [boxes, logits];
    assert_person(
        &decode(&outputs, Layout::Rfdetr, 1, 1, (100, 200), 0.4).expect("fits"),
        0.5,
    );
    assert_eq!(
        classes(
            &BatchOutputs {
                outputs: &outputs,
                n: 1,
                input: (100, 200),
                class: 0,
                threshold: 0.4
            },
            Layout::Rfdetr
        ),
        Some(91)
    );
}

#[test]
fn a_wrong_shape_is_reported_with_actual_and_required_shapes() {
    let e = decode(
        &[output("output0", &[1, 84, 100], &[])],
        Layout::Boxes,
        0,
        1,
        (64, 64),
        0.5,
    )
    .unwrap_err();
    assert!(
        e.contains("'boxes'") && e.contains("[N, P, 5]") && e.contains("output0 [1, 84, 100]"),
        "{e}"
    );
    let e = decode(
        &[output("out", &[1, 10, 85], &[])],
        Layout::Yolox,
        0,
        1,
        (64, 64),
        0.5,
    )
    .unwrap_err();
    assert!(e.contains("[N, 84, 5 + C]"), "{e}");
}

/// Regression: a batch of pictures without people had no list of detections at all (found by
/// fuzzing).
#[test]
fn an_output_without_places_is_empty_for_every_picture() {
    let none = [output("output", &[2, 0, 5], &[])];
    let found = decode(&none, Layout::Boxes, 0, 2, (64, 32), 0.3).expect("valid");
    assert_eq!(found, vec![Vec::<Detection>::new(); 2]);
}
