//! Output layouts of detectors, read into boxes of the network's input.

use ndarray::{ArrayView2, ArrayView3, ArrayViewD, Ix3};
use serde::{Deserialize, Serialize};

use crate::detect::nanodet;
use crate::detection::Detection;
use crate::geometry::BBox;
use crate::infer::{Output, PixelFormat};

/// How a detector writes what it found. N pictures, P places, C classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// One output [N, P, 5]: left, top, right, bottom (pixels), score. The shipped detector's.
    Boxes,
    /// YOLOX (Ge et al. 2021): one output [N, P, 5 + C], cells of strides 8, 16, 32, not yet decoded: offset x, y in cells,
    /// log width, log height, objectness, class scores.
    Yolox,
    /// YOLOv8 and YOLO11 without built-in suppression: one output [N, 4 + C, P]: centre x, y, width, height (pixels), scores.
    Yolo,
    /// NanoDet (RangiLyu 2020), also as OpenCV Zoo ships it: for each stride s of 8, 16, 32 and possibly 64 two outputs, class
    /// scores [N, P, C] after the sigmoid and distances [N, P, 4 B]: for the left, top, right and bottom side B = 8 or 11
    /// logits of a distribution over 0 to B - 1, in cells, from the cell's centre (i + 0.5) s.
    Nanodet,
    /// RT-DETR, raw: `logits` [N, P, C] and boxes [N, P, 4], or one output [N, P, 4 + C] with scores: centre x, y, width,
    /// height as shares of the picture.
    Detr,
    /// D-FINE and RT-DETR as their authors export them: `labels` [N, P], `boxes` [N, P, 4] (left, top, right, bottom in
    /// pixels), `scores` [N, P], with a second input `orig_target_sizes`.
    Dfine,
}

impl Layout {
    /// The pixels such a network was trained on, by its authors' code; `None` where the file must say so.
    pub fn pixel_format(self) -> Option<PixelFormat> {
        match self {
            Layout::Boxes => None,
            Layout::Nanodet => Some(PixelFormat::IMAGENET_BGR),
            Layout::Yolox => Some(PixelFormat::BYTES_BGR),
            Layout::Yolo | Layout::Detr | Layout::Dfine => Some(PixelFormat::UNIT_RGB),
        }
    }

    /// Whether such a network takes the picture stretched to its square input instead of letterboxed.
    pub fn stretches(self) -> bool {
        matches!(self, Layout::Detr | Layout::Dfine)
    }
}

/// Reads the outputs of a batch of `n` pictures of `input` (width, height) pixels: for each the boxes of `class` with a score of
/// at least `threshold`, in pixels of the input, unsuppressed.
///
/// # Errors
/// When the outputs do not have the layout's shapes; says which they have and which they should.
pub fn decode(outputs: &[Output], layout: Layout, class: usize, n: usize, input: (usize, usize), threshold: f32) -> Result<Vec<Vec<Detection>>, String> {
    let reader = Reader { outputs, layout, n };
    let pictures = |f: &dyn Fn(usize) -> Vec<Detection>| Ok((0..n).map(f).collect());
    let keep = move |bbox: BBox, confidence: f32| (confidence >= threshold && bbox.is_valid()).then_some(Detection { bbox, confidence: confidence.min(1.0) });
    match layout {
        Layout::Boxes => {
            let out = reader.only("[N, P, 5]", |_, last| last == 5)?;
            pictures(&|i| rows(out, i).rows().into_iter().filter_map(|r| keep(BBox::from_edges(r[0], r[1], r[2], r[3]), r[4])).collect())
        }
        Layout::Yolox => {
            let grid = yolox_grid(input);
            let out = reader.only("[N, P, 5 + C]", |_, last| last > 5 + class)?;
            if out.dim().1 != grid.len() {
                return Err(reader.mismatch(&format!("[N, {}, 5 + C] for an input of {}x{} pixels", grid.len(), input.0, input.1)));
            }
            let one = |(r, &(x, y, s)): (ndarray::ArrayView1<'_, f32>, &(f32, f32, f32))| {
                keep(BBox::from_center((r[0] + x) * s, (r[1] + y) * s, r[2].exp() * s, r[3].exp() * s), r[4] * r[5 + class])
            };
            pictures(&|i| rows(out, i).rows().into_iter().zip(&grid).filter_map(one).collect())
        }
        Layout::Yolo => {
            let out = reader.only("[N, 4 + C, P]", |middle, last| middle > 4 + class && last > middle)?;
            pictures(&|i| rows(out, i).columns().into_iter().filter_map(|c| keep(BBox::from_center(c[0], c[1], c[2], c[3]), c[4 + class])).collect())
        }
        Layout::Nanodet => {
            let levels = nanodet::levels(outputs, class, n, input).ok_or_else(|| reader.mismatch(nanodet::WANTED))?;
            pictures(&|i| levels.iter().flat_map(|l| l.boxes(i, class, threshold)).filter_map(|(bbox, score)| keep(bbox, score)).collect())
        }
        Layout::Detr => {
            let (w, h) = (input.0 as f32, input.1 as f32);
            let scaled = |b: ndarray::ArrayView1<'_, f32>| BBox::from_center(b[0] * w, b[1] * h, b[2] * w, b[3] * h);
            if outputs.len() == 1 {
                let out = reader.only("[N, P, 4 + C], or logits [N, P, C] and boxes [N, P, 4]", |_, last| last > 4 + class)?;
                return pictures(&|i| rows(out, i).rows().into_iter().filter_map(|r| keep(scaled(r), r[4 + class])).collect());
            }
            let logits = reader.named("logits", |last| last > class)?;
            let boxes = reader.named("boxes", |last| last == 4)?;
            let sigmoid = |v: f32| 1.0 / (1.0 + (-v).exp());
            pictures(&|i| rows(boxes, i).rows().into_iter().zip(rows(logits, i).rows()).filter_map(|(b, l)| keep(scaled(b), sigmoid(l[class]))).collect())
        }
        Layout::Dfine => {
            let boxes = reader.named("boxes", |last| last == 4)?;
            let (labels, scores) = (reader.list("labels", boxes.dim().1)?, reader.list("scores", boxes.dim().1)?);
            pictures(&|i| {
                let found = rows(boxes, i);
                let one = |(p, b): (usize, ndarray::ArrayView1<'_, f32>)| {
                    if labels[[i, p]] as usize == class { keep(BBox::from_edges(b[0], b[1], b[2], b[3]), scores[[i, p]]) } else { None }
                };
                found.rows().into_iter().enumerate().filter_map(one).collect()
            })
        }
    }
}

fn rows<'a>(batch: ArrayView3<'a, f32>, picture: usize) -> ArrayView2<'a, f32> {
    batch.index_axis_move(ndarray::Axis(0), picture)
}

/// Finds outputs and says what is wrong with them.
struct Reader<'a> {
    outputs: &'a [Output],
    layout: Layout,
    n: usize,
}

impl<'a> Reader<'a> {
    fn mismatch(&self, wanted: &str) -> String {
        let have: Vec<String> = self.outputs.iter().map(|o| format!("{} {:?}", o.name, o.values.shape())).collect();
        format!(
            "the layout '{:?}' needs the output {wanted} for {} pictures, but the model gives {}; set detector.layout to boxes, yolox, yolo, nanodet, detr or dfine",
            self.layout,
            self.n,
            have.join(", ")
        )
        .replace(&format!("'{:?}'", self.layout), &format!("'{}'", format!("{:?}", self.layout).to_lowercase()))
    }

    fn only(&self, wanted: &str, fits: impl Fn(usize, usize) -> bool) -> Result<ArrayView3<'a, f32>, String> {
        let [one] = self.outputs else { return Err(self.mismatch(wanted)) };
        let view = one.values.view().into_dimensionality::<Ix3>().map_err(|_| self.mismatch(wanted))?;
        let (n, middle, last) = view.dim();
        if n == self.n && fits(middle, last) { Ok(view) } else { Err(self.mismatch(wanted)) }
    }

    fn find(&self, part: &str) -> Option<ArrayViewD<'a, f32>> {
        self.outputs.iter().find(|o| o.name.contains(part)).map(|o| o.values.view())
    }

    fn named(&self, part: &str, fits: impl Fn(usize) -> bool) -> Result<ArrayView3<'a, f32>, String> {
        let view = self.find(part).and_then(|v| v.into_dimensionality::<Ix3>().ok());
        view.filter(|v| v.dim().0 == self.n && fits(v.dim().2)).ok_or_else(|| self.mismatch(&format!("'{part}' with three axes")))
    }

    fn list(&self, part: &str, places: usize) -> Result<ArrayView2<'a, f32>, String> {
        let view = self.find(part).and_then(|v| v.into_dimensionality::<ndarray::Ix2>().ok());
        view.filter(|v| v.dim() == (self.n, places)).ok_or_else(|| self.mismatch(&format!("'{part}' [N, {places}]")))
    }
}

/// Column, row and stride of every YOLOX cell, in the order of its output.
fn yolox_grid(input: (usize, usize)) -> Vec<(f32, f32, f32)> {
    let cells = |s: usize| (0..input.1 / s).flat_map(move |y| (0..input.0 / s).map(move |x| (x as f32, y as f32, s as f32)));
    [8, 16, 32].into_iter().flat_map(cells).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array, ArrayD, IxDyn};

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
    fn a_wrong_shape_is_told_with_what_was_found_and_what_would_fit() {
        let e = decode(&[output("output0", &[1, 84, 100], &[])], Layout::Boxes, 0, 1, (64, 64), 0.5).unwrap_err();
        assert!(e.contains("'boxes'") && e.contains("[N, P, 5]") && e.contains("output0 [1, 84, 100]") && e.contains("detector.layout"), "{e}");
        let e = decode(&[output("out", &[1, 10, 85], &[])], Layout::Yolox, 0, 1, (64, 64), 0.5).unwrap_err();
        assert!(e.contains("[N, 84, 5 + C]"), "{e}");
    }
}
