//! Outputs of detectors read into boxes of the network's input.

use ndarray::{ArrayView1, ArrayView2, ArrayView3, ArrayViewD, Axis, Ix2, Ix3};

use crate::detect::layout::Layout;
use crate::detect::{atss, nanodet};
use crate::detection::Detection;
use crate::geometry::BBox;
use crate::infer::Output;

/// Sets of strides whose cells make the places of YOLO-like networks.
const STRIDES: [&[usize]; 3] = [&[8, 16, 32], &[8, 16, 32, 64], &[4, 8, 16, 32]];
/// Boxes a place of YOLOv5.
const ANCHORS: usize = 3;

/// Column, row and stride of every cell of the strides given, in the order of the outputs.
pub(super) fn cells(strides: &[usize], input: (usize, usize)) -> Vec<(f32, f32, f32)> {
    let cell = |x: usize, y: usize, s: usize| (x as f32, y as f32, s as f32);
    let row = move |y, s| (0..input.0 / s).map(move |x| cell(x, y, s));
    let of = |s: usize| (0..input.1 / s).flat_map(move |y| row(y, s));
    strides.iter().copied().flat_map(of).collect()
}

/// The strides of which an input has so many cells.
pub(super) fn strides_of(places: usize, input: (usize, usize)) -> Option<&'static [usize]> {
    let count = |strides: &[usize]| strides.iter().map(|s| (input.0 / s) * (input.1 / s)).sum::<usize>();
    STRIDES.into_iter().find(|strides| places > 0 && count(strides) == places)
}

/// Whether an input has so many places of YOLOv5.
pub(super) fn is_yolov5(places: usize, input: (usize, usize)) -> bool {
    places.is_multiple_of(ANCHORS) && strides_of(places / ANCHORS, input).is_some()
}

/// A row of an output: what is said of one place.
type Row<'a> = ArrayView1<'a, f32>;
/// What is made of the row of a picture and place.
type One<'a> = dyn Fn(usize, usize, Row<'_>) -> Option<Detection> + 'a;
/// The boxes of each picture, or what does not fit.
type Found = Result<Vec<Vec<Detection>>, String>;

/// A batch's outputs and what is asked of them.
pub(crate) struct Batch<'a> {
    /// The outputs of the model.
    pub outputs: &'a [Output],
    /// Pictures in it.
    pub n: usize,
    /// Width and height of the network's input, pixels.
    pub input: (usize, usize),
    /// Number of the class "person".
    pub class: usize,
    /// Least score.
    pub threshold: f32,
}

/// For each picture of a batch the boxes of the class with a score of at least the threshold, in
/// pixels of the input, unsuppressed.
///
/// # Errors
/// When the outputs do not have the layout's shapes; says which they have and which they should.
pub(crate) fn decode(batch: &Batch<'_>, layout: Layout) -> Found {
    let reader = Reader { batch, layout };
    match layout {
        Layout::Boxes => boxes(&reader),
        Layout::Yolox => yolox(&reader),
        Layout::YoloxDecoded => {
            let wanted = |places| strides_of(places, batch.input).is_some();
            decoded(&reader, "[N, P, 5 + C] with a box a cell of strides 8, 16, 32", &wanted)
        }
        Layout::Yolov5 => {
            let wanted = |places| is_yolov5(places, batch.input);
            decoded(&reader, "[N, P, 5 + C] with three boxes a cell of strides 8, 16, 32", &wanted)
        }
        Layout::Yolo => yolo(&reader),
        Layout::End2end => end2end(&reader),
        Layout::Nanodet => {
            let levels = nanodet::levels(batch.outputs, batch.class, batch.n, batch.input);
            let levels = levels.ok_or_else(|| reader.mismatch(nanodet::WANTED))?;
            let of = |i| {
                let boxes = levels.iter().flat_map(move |l| l.boxes(i, batch.class, batch.threshold));
                boxes.filter_map(|(bbox, score)| batch.keep(bbox, score)).collect()
            };
            Ok((0..batch.n).map(of).collect())
        }
        Layout::Atss => {
            let levels = atss::levels(batch).ok_or_else(|| reader.mismatch(atss::WANTED))?;
            let of = |i| {
                let boxes = levels.iter().flat_map(move |l| l.boxes(i, batch.threshold));
                boxes.filter_map(|(bbox, score)| batch.keep(bbox, score)).collect()
            };
            Ok((0..batch.n).map(of).collect())
        }
        Layout::Detr if reader.find("logits").is_none() => detr_of_one(&reader),
        Layout::Detr => detr(&reader, "logits", "boxes"),
        Layout::Rfdetr => detr(&reader, "labels", "dets"),
        Layout::Dfine => dfine(&reader),
    }
}

/// How many classes a network of the DETR family tells apart: some number them as COCO does.
pub(super) fn classes(batch: &Batch<'_>, layout: Layout) -> Option<usize> {
    let logits = match layout {
        Layout::Detr => "logits",
        Layout::Rfdetr => "labels",
        _ => return None,
    };
    Reader { batch, layout }.named(logits, |_| true).ok().map(|v| v.dim().2)
}

/// [N, P, 5], with or without labels [N, P].
fn boxes(r: &Reader<'_>) -> Found {
    let out = r.only("[N, P, 5]", |_, last| last == 5)?;
    let labels = if r.find("label").is_some() { Some(r.list("label", out.dim().1)?) } else { None };
    let is_person = |i: usize, p: usize| labels.is_none_or(|l| l[[i, p]] == r.batch.class as f32);
    let one = |i, p, b: Row<'_>| if is_person(i, p) { r.batch.keep(edges(b), b[4]) } else { None };
    Ok(r.pictures(out, &one))
}

fn yolox(r: &Reader<'_>) -> Found {
    let (grid, class) = (cells(STRIDES[0], r.batch.input), r.batch.class);
    let fits = |places: usize, last: usize| places == grid.len() && last > 5 + class;
    let (w, h) = r.batch.input;
    let wanted = format!("[N, {}, 5 + C] for an input of {w}x{h} pixels", grid.len());
    let out = r.only(&wanted, fits)?;
    let one = |_, p: usize, b: Row<'_>| {
        let (x, y, s) = grid[p];
        let (cx, cy) = ((b[0] + x) * s, (b[1] + y) * s);
        let bbox = BBox::from_center(cx, cy, b[2].exp() * s, b[3].exp() * s);
        r.batch.keep(bbox, b[4] * b[5 + class])
    };
    Ok(r.pictures(out, &one))
}

/// Centre, width and height in pixels, objectness, class scores.
fn decoded(r: &Reader<'_>, wanted: &str, places: &dyn Fn(usize) -> bool) -> Found {
    let class = r.batch.class;
    let out = r.only(wanted, |middle, last| places(middle) && last > 5 + class)?;
    let one = |_, _, b: Row<'_>| r.batch.keep(center(b), b[4] * b[5 + class]);
    Ok(r.pictures(out, &one))
}

fn yolo(r: &Reader<'_>) -> Found {
    let class = r.batch.class;
    let mut out = r.only("[N, 4 + C, P] or [N, P, 4 + C]", |middle, last| middle.min(last) > 4 + class)?;
    if out.dim().1 < out.dim().2 {
        out.swap_axes(1, 2);
    }
    let one = |_, _, b: Row<'_>| r.batch.keep(center(b), b[4 + class]);
    Ok(r.pictures(out, &one))
}

fn end2end(r: &Reader<'_>) -> Found {
    let out = r.only("[N, P, 6]", |_, last| last >= 6)?;
    let one = |_, _, b: Row<'_>| {
        let is_person = b[5] == r.batch.class as f32;
        if is_person { r.batch.keep(edges(b), b[4]) } else { None }
    };
    Ok(r.pictures(out, &one))
}

/// Boxes as shares of the picture, and logits.
fn detr(r: &Reader<'_>, logits: &str, boxes: &str) -> Found {
    let class = r.batch.class;
    let logits = r.named(logits, |last| last > class)?;
    let boxes = r.named(boxes, |last| last == 4)?;
    if boxes.dim().1 != logits.dim().1 {
        return Err(r.mismatch("boxes [N, P, 4] and logits [N, P, C] with the same P"));
    }
    let sigmoid = |v: f32| 1.0 / (1.0 + (-v).exp());
    let score = |i: usize, p: usize| sigmoid(logits[[i, p, class]]);
    let one = |i, p, b: Row<'_>| r.batch.keep(r.batch.share(b), score(i, p));
    Ok(r.pictures(boxes, &one))
}

fn detr_of_one(r: &Reader<'_>) -> Found {
    let class = r.batch.class;
    let wanted = "[N, P, 4 + C], or logits [N, P, C] and boxes [N, P, 4]";
    let out = r.only(wanted, |_, last| last > 4 + class)?;
    let one = |_, _, b: Row<'_>| r.batch.keep(r.batch.share(b), b[4 + class]);
    Ok(r.pictures(out, &one))
}

fn dfine(r: &Reader<'_>) -> Found {
    let boxes = r.named("boxes", |last| last == 4)?;
    let (labels, scores) = (r.list("labels", boxes.dim().1)?, r.list("scores", boxes.dim().1)?);
    let is_person = |i: usize, p: usize| labels[[i, p]] == r.batch.class as f32;
    let score = |i, p| is_person(i, p).then(|| scores[[i, p]]);
    let one = |i, p, b: Row<'_>| r.batch.keep(edges(b), score(i, p)?);
    Ok(r.pictures(boxes, &one))
}

fn edges(b: ArrayView1<'_, f32>) -> BBox {
    BBox::from_edges(b[0], b[1], b[2], b[3])
}

fn center(b: ArrayView1<'_, f32>) -> BBox {
    BBox::from_center(b[0], b[1], b[2], b[3])
}

impl Batch<'_> {
    fn keep(&self, bbox: BBox, confidence: f32) -> Option<Detection> {
        let kept = confidence >= self.threshold && bbox.is_valid();
        kept.then_some(Detection { bbox, confidence: confidence.min(1.0) })
    }

    /// A box given as shares of the picture: centre, width, height.
    fn share(&self, b: ArrayView1<'_, f32>) -> BBox {
        let (w, h) = (self.input.0 as f32, self.input.1 as f32);
        BBox::from_center(b[0] * w, b[1] * h, b[2] * w, b[3] * h)
    }

    /// Names and shapes of the outputs, for messages.
    pub(super) fn shapes(&self) -> String {
        let one = |o: &Output| format!("{} {:?}", o.name, o.values.shape());
        self.outputs.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    /// The outputs with three axes of which the first is that of the pictures.
    pub(super) fn tables(&self) -> impl Iterator<Item = ArrayView3<'_, f32>> {
        let views = self.outputs.iter().filter_map(|o| o.values.view().into_dimensionality::<Ix3>().ok());
        views.filter(|v| v.dim().0 == self.n)
    }
}

/// Finds outputs and says what is wrong with them.
struct Reader<'a> {
    batch: &'a Batch<'a>,
    layout: Layout,
}

impl<'a> Reader<'a> {
    /// What `one` makes of each row of each picture, given picture, place and row.
    fn pictures(&self, batch: ArrayView3<'_, f32>, one: &One<'_>) -> Vec<Vec<Detection>> {
        let of = |i: usize| {
            let rows: ArrayView2<'_, f32> = batch.index_axis(Axis(0), i);
            rows.rows().into_iter().enumerate().filter_map(|(p, row)| one(i, p, row)).collect()
        };
        (0..self.batch.n).map(of).collect()
    }

    fn mismatch(&self, wanted: &str) -> String {
        let Batch { n, class, .. } = self.batch;
        let class = match class {
            0 => String::new(),
            class => format!(" with the class {class} of detector.class"),
        };
        let (layout, shapes) = (self.layout.name(), self.batch.shapes());
        format!("the layout '{layout}' needs the output {wanted}{class} for {n} pictures, but the model gives {shapes}")
    }

    /// The one output with three axes that fits; others (masks, features) may stand beside it.
    fn only(&self, wanted: &str, fits: impl Fn(usize, usize) -> bool) -> Result<ArrayView3<'a, f32>, String> {
        let mut fitting = self.batch.tables().filter(|v| fits(v.dim().1, v.dim().2));
        match (fitting.next(), fitting.next()) {
            (Some(one), None) => Ok(one),
            _ => Err(self.mismatch(wanted)),
        }
    }

    fn find(&self, part: &str) -> Option<ArrayViewD<'a, f32>> {
        self.batch.outputs.iter().find(|o| o.name.contains(part)).map(|o| o.values.view())
    }

    fn named(&self, part: &str, fits: impl Fn(usize) -> bool) -> Result<ArrayView3<'a, f32>, String> {
        let view = self.find(part).and_then(|v| v.into_dimensionality::<Ix3>().ok());
        let view = view.filter(|v| v.dim().0 == self.batch.n && fits(v.dim().2));
        view.ok_or_else(|| self.mismatch(&format!("'{part}' with three axes")))
    }

    fn list(&self, part: &str, places: usize) -> Result<ArrayView2<'a, f32>, String> {
        let view = self.find(part).and_then(|v| v.into_dimensionality::<Ix2>().ok());
        let view = view.filter(|v| v.dim() == (self.batch.n, places));
        view.ok_or_else(|| self.mismatch(&format!("'{part}' [N, {places}]")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, ArrayD, IxDyn};

    fn decode(outputs: &[Output], layout: Layout, class: usize, n: usize, input: (usize, usize), threshold: f32) -> Found {
        super::decode(&Batch { outputs, n, input, class, threshold }, layout)
    }

    fn output(name: &str, shape: &[usize], values: &[(&[usize], f32)]) -> Output {
        let mut a = ArrayD::zeros(IxDyn(shape));
        values.iter().for_each(|(i, v)| a[IxDyn(i)] = *v);
        Output { name: name.into(), values: a }
    }

    const PERSON: BBox = BBox::new(10.0, 20.0, 30.0, 60.0);

    fn assert_person(found: &[Vec<Detection>], confidence: f32) {
        assert_eq!(found.len(), 1);
        let [d] = found[0].as_slice() else { panic!("one person expected: {found:?}") };
        assert!((d.confidence - confidence).abs() < 1e-4, "{d:?}");
        for (a, b) in <[f32; 4]>::from(d.bbox).into_iter().zip(<[f32; 4]>::from(PERSON)) {
            assert!((a - b).abs() < 1e-3, "{d:?}");
        }
    }

    #[test]
    fn boxes_are_edges_and_a_score() {
        let values = Array::from_shape_vec(IxDyn(&[1, 2, 5]), vec![10.0, 20.0, 40.0, 80.0, 0.9, 0.0, 0.0, 5.0, 5.0, 0.1]).expect("ten numbers");
        assert_person(&decode(&[Output { name: "boxes".into(), values }], Layout::Boxes, 0, 1, (64, 64), 0.5).expect("fits"), 0.9);
    }

    #[test]
    fn yolox_cells_are_decoded() {
        // Input 64x64: 64 + 16 + 4 places; the place 64 + 5 is cell (1, 1) of stride 16.
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
        assert_person(&decode(&[out], Layout::Yolox, 0, 1, (64, 64), 0.5).expect("fits"), 0.72);
    }

    #[test]
    fn yolo_places_are_columns_and_another_class_is_left_out() {
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
        assert_person(&decode(&[out], Layout::Yolo, 0, 1, (640, 640), 0.5).expect("fits"), 0.8);
    }

    #[test]
    fn detr_boxes_are_shares_of_the_picture() {
        let boxes = output("pred_boxes", &[1, 10, 4], &[(&[0, 3, 0], 0.25), (&[0, 3, 1], 0.25), (&[0, 3, 2], 0.3), (&[0, 3, 3], 0.3)]);
        let mut logits = output("logits", &[1, 10, 80], &[]);
        logits.values.fill(-9.0);
        logits.values[IxDyn(&[0, 3, 0])] = 0.0;
        assert_person(&decode(&[logits, boxes], Layout::Detr, 0, 1, (100, 200), 0.4).expect("fits"), 0.5);
    }

    #[test]
    fn dfine_labels_choose_the_person() {
        let boxes = output("boxes", &[1, 2, 4], &[(&[0, 1, 0], 10.0), (&[0, 1, 1], 20.0), (&[0, 1, 2], 40.0), (&[0, 1, 3], 80.0)]);
        let labels = output("labels", &[1, 2], &[(&[0, 0], 7.0)]);
        let scores = output("scores", &[1, 2], &[(&[0, 0], 0.9), (&[0, 1], 0.6)]);
        assert_person(&decode(&[labels, boxes, scores], Layout::Dfine, 0, 1, (640, 640), 0.5).expect("fits"), 0.6);
    }

    #[test]
    fn labels_beside_boxes_choose_the_person() {
        let boxes = output("dets", &[1, 2, 5], &[(&[0, 1, 0], 10.0), (&[0, 1, 1], 20.0), (&[0, 1, 2], 40.0), (&[0, 1, 3], 80.0), (&[0, 1, 4], 0.6)]);
        let labels = output("labels", &[1, 2], &[(&[0, 0], 7.0)]);
        assert_person(&decode(&[boxes, labels], Layout::Boxes, 0, 1, (64, 64), 0.5).expect("fits"), 0.6);
    }

    #[test]
    fn decoded_boxes_are_in_pixels_with_objectness() {
        // Input 64x64: 84 places, or three times as many.
        for (layout, places) in [(Layout::YoloxDecoded, 84), (Layout::Yolov5, 252)] {
            let values: [(&[usize], f32); 6] =
                [(&[0, 9, 0], 25.0), (&[0, 9, 1], 50.0), (&[0, 9, 2], 30.0), (&[0, 9, 3], 60.0), (&[0, 9, 4], 0.9), (&[0, 9, 5], 0.8)];
            let out = output("output", &[1, places, 6], &values);
            // Features beside it, as old exports have them.
            let features = output("features", &[1, 3, 8, 8, 6], &[]);
            assert_person(&decode(&[out.clone(), features], layout, 0, 1, (64, 64), 0.5).expect("fits"), 0.72);
            assert!(decode(std::slice::from_ref(&out), layout, 1, 1, (64, 64), 0.5).unwrap_err().contains("the class 1"));
            assert!(decode(&[out], layout, 0, 1, (96, 64), 0.5).is_err());
        }
    }

    #[test]
    fn yolo_places_may_be_rows_and_masks_stand_beside() {
        let values: [(&[usize], f32); 5] = [(&[0, 7, 0], 25.0), (&[0, 7, 1], 50.0), (&[0, 7, 2], 30.0), (&[0, 7, 3], 60.0), (&[0, 7, 4], 0.8)];
        let masks = output("output1", &[1, 32, 16, 16], &[]);
        assert_person(&decode(&[masks, output("output0", &[1, 100, 38], &values)], Layout::Yolo, 0, 1, (640, 640), 0.5).expect("fits"), 0.8);
    }

    #[test]
    fn suppressed_boxes_have_their_class_in_the_sixth_column() {
        let edges: [(&[usize], f32); 5] = [(&[0, 3, 0], 10.0), (&[0, 3, 1], 20.0), (&[0, 3, 2], 40.0), (&[0, 3, 3], 80.0), (&[0, 3, 4], 0.8)];
        let other: [(&[usize], f32); 4] = [(&[0, 2, 2], 40.0), (&[0, 2, 3], 80.0), (&[0, 2, 4], 0.9), (&[0, 2, 5], 2.0)];
        let values = [&edges[..], &other].concat();
        assert_person(&decode(&[output("output0", &[1, 300, 6], &values)], Layout::End2end, 0, 1, (640, 640), 0.5).expect("fits"), 0.8);
    }

    #[test]
    fn rfdetr_has_logits_named_labels() {
        let boxes = output("dets", &[1, 10, 4], &[(&[0, 3, 0], 0.25), (&[0, 3, 1], 0.25), (&[0, 3, 2], 0.3), (&[0, 3, 3], 0.3)]);
        let mut logits = output("labels", &[1, 10, 91], &[]);
        logits.values.fill(-9.0);
        logits.values[IxDyn(&[0, 3, 1])] = 0.0;
        let outputs = [boxes, logits];
        assert_person(&decode(&outputs, Layout::Rfdetr, 1, 1, (100, 200), 0.4).expect("fits"), 0.5);
        assert_eq!(classes(&Batch { outputs: &outputs, n: 1, input: (100, 200), class: 0, threshold: 0.4 }, Layout::Rfdetr), Some(91));
    }

    #[test]
    fn a_wrong_shape_is_told_with_what_was_found_and_what_would_fit() {
        let e = decode(&[output("output0", &[1, 84, 100], &[])], Layout::Boxes, 0, 1, (64, 64), 0.5).unwrap_err();
        assert!(e.contains("'boxes'") && e.contains("[N, P, 5]") && e.contains("output0 [1, 84, 100]"), "{e}");
        let e = decode(&[output("out", &[1, 10, 85], &[])], Layout::Yolox, 0, 1, (64, 64), 0.5).unwrap_err();
        assert!(e.contains("[N, 84, 5 + C]"), "{e}");
    }
}
