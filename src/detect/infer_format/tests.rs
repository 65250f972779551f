use super::*;
use crate::infer::Output;
use ndarray::{ArrayD, Dimension as _, IxDyn};

const INPUT: (usize, usize) = (128, 96);

fn output(name: &str, shape: &[usize], value: impl Fn(&[usize]) -> f32) -> Output {
    Output {
        name: name.into(),
        values: ArrayD::from_shape_fn(IxDyn(shape), |i| value(i.slice())),
    }
}

fn with<T>(outputs: &[Output], see: impl Fn(&BatchOutputs<'_>) -> T) -> T {
    see(&BatchOutputs {
        outputs,
        n: 1,
        input: INPUT,
        class: 0,
        threshold: 0.5,
    })
}

fn decided(outputs: &[Output], classes: usize) -> Result<Layout, String> {
    with(outputs, |batch| layout(batch, classes).map(|d| d.value))
}

/// Value of a row with one box per cell of strides 8, 16, 32: centre and size in pixels or
/// relative to the cell, then scores.
fn of_cells(i: &[usize], pixels: bool) -> f32 {
    let (x, y, s) = cells(&[8, 16, 32], INPUT)[i[1]];
    match (i[2], pixels) {
        (0, true) => (x + 0.7) * s,
        (1, true) => (y + 0.2) * s,
        (2 | 3, true) => 2.0 * s,
        (0, false) => 0.7,
        (1, false) => 0.2,
        (2 | 3, false) => 0.7,
        _ => 0.01,
    }
}

/// 16x12 + 8x6 + 4x3 cells.
const PLACES: usize = 252;

#[test]
fn known_output_names_decide_the_layout() {
    let zero = |name: &str, shape: &[usize]| output(name, shape, |_| 0.0);
    let dfine = [
        zero("labels", &[1, 9]),
        zero("boxes", &[1, 9, 4]),
        zero("scores", &[1, 9]),
    ];
    let rfdetr = [
        zero("dets", &[1, 9, 4]),
        zero("labels", &[1, 9, 91]),
        zero("masks", &[1, 9, 32, 32]),
    ];
    let detr = [zero("logits", &[1, 9, 80]), zero("pred_boxes", &[1, 9, 4])];
    let mmdeploy = [zero("dets", &[1, 9, 5]), zero("labels", &[1, 9])];
    assert_eq!(decided(&dfine, 0), Ok(Layout::Dfine));
    assert_eq!(decided(&rfdetr, 0), Ok(Layout::Rfdetr));
    assert_eq!(decided(&detr, 0), Ok(Layout::Detr));
    assert_eq!(decided(&mmdeploy, 0), Ok(Layout::Boxes));
}

#[test]
fn centres_distinguish_the_yolo_layouts() {
    let cases: [(Vec<usize>, bool, usize, Layout); 7] = [
        (vec![1, PLACES, 85], false, 0, Layout::Yolox),
        (vec![1, PLACES, 85], true, 0, Layout::YoloxDecoded),
        (vec![1, PLACES, 6], false, 0, Layout::Yolox),
        (vec![1, PLACES, 6], true, 1, Layout::YoloxDecoded),
        (vec![1, PLACES, 6], true, 2, Layout::Yolo),
        (vec![1, PLACES, 84], true, 0, Layout::Yolo),
        (vec![1, PLACES, 5], true, 0, Layout::Yolo),
    ];
    for (shape, pixels, classes, wanted) in cases {
        assert_eq!(
            decided(
                &[output("output", &shape, |i| of_cells(i, pixels))],
                classes
            ),
            Ok(wanted),
            "{shape:?} {pixels}"
        );
    }
    let edges = |i: &[usize]| {
        let (x, y, s) = cells(&[8, 16, 32], INPUT)[i[1]];
        [
            (x - 0.5) * s,
            (y - 1.5) * s,
            (x + 1.5) * s,
            (y + 2.5) * s,
            0.0,
        ][i[2]]
    };
    assert_eq!(
        decided(&[output("boxes", &[1, PLACES, 5], edges)], 0),
        Ok(Layout::Boxes)
    );
    assert_eq!(
        decided(&[output("output0", &[1, 84, PLACES], |_| 0.0)], 0),
        Ok(Layout::Yolo)
    );
    let masks = output("output1", &[1, 32, 24, 32], |_| 0.0);
    let segmenting = [output("output0", &[1, 4 + 80 + 32, PLACES], |_| 0.0), masks];
    assert_eq!(decided(&segmenting, 80), Ok(Layout::Yolo));
    let anchors = output("output", &[1, 3 * PLACES, 85], |i| 30.0 * i[2] as f32);
    assert_eq!(decided(&[anchors], 0), Ok(Layout::Yolov5));
}

#[test]
fn integer_classes_distinguish_end2end_from_detr() {
    let of_four = |i: &[usize]| {
        if i[1] < 4 {
            [40.0, 30.0, 60.0, 90.0, 0.9, 0.0][i[2]]
        } else {
            0.0
        }
    };
    let found = output("output0", &[1, 300, 6], of_four);
    assert_eq!(
        decided(std::slice::from_ref(&found), 0),
        Ok(Layout::End2end)
    );
    let masks = output("output1", &[1, 32, 24, 32], |_| 0.0);
    let segmenting = [output("output0", &[1, 300, 38], |_| 0.0), masks];
    assert_eq!(decided(&segmenting, 0), Ok(Layout::End2end));
    let shares = output("output0", &[1, 300, 6], |i| {
        [0.5, 0.4, 0.1, 0.3, 0.02, 0.01][i[2]]
    });
    assert_eq!(decided(std::slice::from_ref(&shares), 0), Ok(Layout::Detr));
    assert_eq!(
        decided(&[output("output0", &[1, 300, 84], |_| 0.1)], 0),
        Ok(Layout::Detr)
    );
    assert_eq!(
        decided(&[output("any", &[1, 100, 5], |_| 7.0)], 0),
        Ok(Layout::Boxes)
    );
    // Without this check the boxes would silently be read as relative to the picture.
    let e = with(std::slice::from_ref(&found), |b| {
        contradiction(b, Layout::Detr)
    })
    .unwrap_err();
    assert!(
        e.contains("[1, 300, 6]") && e.contains("detector.layout = \"end2end\""),
        "{e}"
    );
    assert_eq!(with(&[shares], |b| contradiction(b, Layout::Detr)), Ok(()));
}

#[test]
fn ambiguous_outputs_are_rejected_with_shapes_and_candidates() {
    let e = decided(&[output("output0", &[1, 6, 100], |_| 0.0)], 0).unwrap_err();
    assert!(
        e.contains("output0 [1, 6, 100]")
            && e.contains("128x96")
            && e.contains("layouts of this shape: yolo"),
        "{e}"
    );
    let e = decided(&[output("features", &[1, 5, 12, 16], |_| 0.0)], 0).unwrap_err();
    assert!(
        e.contains("features [1, 5, 12, 16]") && e.contains("the layouts are boxes, yolox,"),
        "{e}"
    );
    let e = decided(&[output("output", &[1, PLACES, 85], |_| f32::NAN)], 0).unwrap_err();
    assert!(
        e.contains("are no centres") && e.contains("yolox, yolox-decoded"),
        "{e}"
    );
    let e = decided(&[output("a", &[1, 300, 6], |_| 900.5)], 0).unwrap_err();
    assert!(e.contains("900.500"), "{e}");
}

#[test]
fn person_class_is_found_by_name_or_count() {
    let named = |names: &[&str]| {
        names
            .iter()
            .enumerate()
            .map(|(i, n)| (i, n.to_string()))
            .collect::<BTreeMap<_, _>>()
    };
    let of = |names: &[&str], count| class(&named(names), count).map(|d| d.value);
    assert_eq!(
        (of(&[], None), of(&[], Some(80)), of(&[], Some(91))),
        (Ok(0), Ok(0), Ok(1))
    );
    assert_eq!(
        (
            of(&["car", "Pedestrian"], Some(2)),
            of(&["Mensch"], Some(1))
        ),
        (Ok(1), Ok(0))
    );
    let e = of(&["helmet", "vest"], Some(2)).unwrap_err();
    assert!(
        e.contains("0 helmet, 1 vest") && e.contains("detector.class"),
        "{e}"
    );
}
