//! Decodes detectors' outputs into boxes in pixels of the network's input.

use ndarray::{ArrayView1, ArrayView2, ArrayView3, ArrayViewD, Axis, Ix2, Ix3};

use crate::detect::batch_outputs::BatchOutputs;
use crate::detect::layout::Layout;
use crate::detect::{atss, nanodet};
use crate::detection::Detection;
use crate::geometry::BBox;

/// Sets of strides whose cells are the places of YOLO-like networks.
const STRIDES: [&[usize]; 3] = [&[8, 16, 32], &[8, 16, 32, 64], &[4, 8, 16, 32]];
/// Boxes per cell in YOLOv5.
const ANCHORS: usize = 3;

/// Column, row and stride of every cell of the given strides, in the outputs' order.
pub(super) fn cells(strides: &[usize], input: (usize, usize)) -> Vec<(f32, f32, f32)> {
    let cell = |x: usize, y: usize, s: usize| (x as f32, y as f32, s as f32);
    let row = move |y, s| (0..input.0 / s).map(move |x| cell(x, y, s));
    let of = |s: usize| (0..input.1 / s).flat_map(move |y| row(y, s));
    strides.iter().copied().flat_map(of).collect()
}

/// The set of strides for which the input has exactly `places` cells.
pub(super) fn strides_of(places: usize, input: (usize, usize)) -> Option<&'static [usize]> {
    let count = |strides: &[usize]| {
        strides
            .iter()
            .map(|s| (input.0 / s) * (input.1 / s))
            .sum::<usize>()
    };
    STRIDES
        .into_iter()
        .find(|strides| places > 0 && count(strides) == places)
}

/// Whether `places` is YOLOv5's number of boxes for the input.
pub(super) fn is_yolov5(places: usize, input: (usize, usize)) -> bool {
    places.is_multiple_of(ANCHORS) && strides_of(places / ANCHORS, input).is_some()
}

/// A row of an output: the values of one place.
type Row<'a> = ArrayView1<'a, f32>;
/// Decodes a row, given the picture, the place and the row's values.
type RowDecoder<'a> = dyn Fn(usize, usize, Row<'_>) -> Option<Detection> + 'a;
/// The boxes of each picture, or a description of the mismatch.
type DecodeResult = Result<Vec<Vec<Detection>>, String>;

/// Returns for each picture of a batch the boxes of the class with a score of at least the
/// threshold, in pixels of the input, before non-maximum suppression.
///
/// # Errors
/// Fails when the outputs do not have the layout's shapes; the message gives both.
pub(crate) fn decode(batch: &BatchOutputs<'_>, layout: Layout) -> DecodeResult {
    let reader = OutputReader { batch, layout };
    match layout {
        Layout::Boxes => boxes(&reader),
        Layout::Yolox => yolox(&reader),
        Layout::YoloxDecoded => {
            let wanted = |places| strides_of(places, batch.input).is_some();
            decoded(
                &reader,
                "[N, P, 5 + C] with one box per cell of strides 8, 16, 32",
                &wanted,
            )
        }
        Layout::Yolov5 => {
            let wanted = |places| is_yolov5(places, batch.input);
            decoded(
                &reader,
                "[N, P, 5 + C] with three boxes per cell of strides 8, 16, 32",
                &wanted,
            )
        }
        Layout::Yolo => yolo(&reader),
        Layout::End2end => end2end(&reader),
        Layout::Nanodet => {
            let levels = nanodet::levels(batch.outputs, batch.class, batch.n, batch.input);
            let levels = levels.ok_or_else(|| reader.mismatch(nanodet::WANTED))?;
            let of = |i| {
                let boxes = levels
                    .iter()
                    .flat_map(move |l| l.boxes(i, batch.class, batch.threshold));
                boxes
                    .filter_map(|(bbox, score)| batch.keep(bbox, score))
                    .collect()
            };
            Ok((0..batch.n).map(of).collect())
        }
        Layout::Atss => {
            let levels = atss::levels(batch).ok_or_else(|| reader.mismatch(atss::WANTED))?;
            let of = |i| {
                let boxes = levels.iter().flat_map(move |l| l.boxes(i, batch.threshold));
                boxes
                    .filter_map(|(bbox, score)| batch.keep(bbox, score))
                    .collect()
            };
            Ok((0..batch.n).map(of).collect())
        }
        Layout::Detr if reader.find("logits").is_none() => detr_of_one(&reader),
        Layout::Detr => detr(&reader, "logits", "boxes"),
        Layout::Rfdetr => detr(&reader, "labels", "dets"),
        Layout::Dfine => dfine(&reader),
    }
}

/// Number of classes of a DETR-like network, which shows whether it uses COCO's numbering; `None`
/// for other layouts.
pub(super) fn classes(batch: &BatchOutputs<'_>, layout: Layout) -> Option<usize> {
    let logits = match layout {
        Layout::Detr => "logits",
        Layout::Rfdetr => "labels",
        _ => return None,
    };
    OutputReader { batch, layout }
        .named(logits, |_| true)
        .ok()
        .map(|v| v.dim().2)
}

/// [N, P, 5], with or without labels [N, P].
fn boxes(r: &OutputReader<'_>) -> DecodeResult {
    let out = r.only("[N, P, 5]", |_, last| last == 5)?;
    let labels = if r.find("label").is_some() {
        Some(r.list("label", out.dim().1)?)
    } else {
        None
    };
    let is_person = |i: usize, p: usize| labels.is_none_or(|l| l[[i, p]] == r.batch.class as f32);
    // The shipped detector has thousands of places: their scores are compared first, and as a slice,
    // which takes a tenth of the time of row views.
    let values = out.as_standard_layout();
    let values = values.as_slice().unwrap_or_default();
    // A network with non-maximum suppression has no places in a frame without people.
    let places = 5 * out.dim().1;
    let of = |i: usize| {
        let rows = &values[i * places..(i + 1) * places];
        let rows = rows.as_chunks::<5>().0.iter().enumerate();
        let sufficient = rows.filter(|(_, b)| b[4] >= r.batch.threshold);
        sufficient
            .filter(|&(p, _)| is_person(i, p))
            .filter_map(|(_, b)| {
                let bbox = BBox::new(b[0], b[1], b[2] - b[0], b[3] - b[1]);
                r.batch.keep(bbox, b[4])
            })
            .collect()
    };
    Ok((0..r.batch.n).map(of).collect())
}

fn yolox(r: &OutputReader<'_>) -> DecodeResult {
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
fn decoded(r: &OutputReader<'_>, wanted: &str, places: &dyn Fn(usize) -> bool) -> DecodeResult {
    let class = r.batch.class;
    let out = r.only(wanted, |middle, last| places(middle) && last > 5 + class)?;
    let one = |_, _, b: Row<'_>| r.batch.keep(center(b), b[4] * b[5 + class]);
    Ok(r.pictures(out, &one))
}

fn yolo(r: &OutputReader<'_>) -> DecodeResult {
    let class = r.batch.class;
    let mut out = r.only("[N, 4 + C, P] or [N, P, 4 + C]", |middle, last| {
        middle.min(last) > 4 + class
    })?;
    if out.dim().1 < out.dim().2 {
        out.swap_axes(1, 2);
    }
    let one = |_, _, b: Row<'_>| r.batch.keep(center(b), b[4 + class]);
    Ok(r.pictures(out, &one))
}

fn end2end(r: &OutputReader<'_>) -> DecodeResult {
    let out = r.only("[N, P, 6]", |_, last| last >= 6)?;
    let one = |_, _, b: Row<'_>| {
        let is_person = b[5] == r.batch.class as f32;
        if is_person {
            r.batch.keep(edges(b), b[4])
        } else {
            None
        }
    };
    Ok(r.pictures(out, &one))
}

/// Boxes relative to the picture's size, and logits.
fn detr(r: &OutputReader<'_>, logits: &str, boxes: &str) -> DecodeResult {
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

fn detr_of_one(r: &OutputReader<'_>) -> DecodeResult {
    let class = r.batch.class;
    let wanted = "[N, P, 4 + C], or logits [N, P, C] and boxes [N, P, 4]";
    let out = r.only(wanted, |_, last| last > 4 + class)?;
    let one = |_, _, b: Row<'_>| r.batch.keep(r.batch.share(b), b[4 + class]);
    Ok(r.pictures(out, &one))
}

fn dfine(r: &OutputReader<'_>) -> DecodeResult {
    let boxes = r.named("boxes", |last| last == 4)?;
    let (labels, scores) = (
        r.list("labels", boxes.dim().1)?,
        r.list("scores", boxes.dim().1)?,
    );
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

/// Looks up outputs and reports mismatches.
struct OutputReader<'a> {
    batch: &'a BatchOutputs<'a>,
    layout: Layout,
}

impl<'a> OutputReader<'a> {
    /// Applies `one` to each row of each picture.
    fn pictures(&self, batch: ArrayView3<'_, f32>, one: &RowDecoder<'_>) -> Vec<Vec<Detection>> {
        let of = |i: usize| {
            let rows: ArrayView2<'_, f32> = batch.index_axis(Axis(0), i);
            rows.rows()
                .into_iter()
                .enumerate()
                .filter_map(|(p, row)| one(i, p, row))
                .collect()
        };
        (0..self.batch.n).map(of).collect()
    }

    fn mismatch(&self, wanted: &str) -> String {
        let BatchOutputs { n, class, .. } = self.batch;
        let class = match class {
            0 => String::new(),
            class => format!(" with the class {class} of detector.class"),
        };
        let (layout, shapes) = (self.layout.name(), self.batch.shapes());
        format!(
            "the layout '{layout}' needs the output {wanted}{class} for {n} pictures, but the \
             model gives {shapes}"
        )
    }

    /// The only output with three axes that satisfies `fits`; others (masks, features) are ignored.
    fn only(
        &self,
        wanted: &str,
        fits: impl Fn(usize, usize) -> bool,
    ) -> Result<ArrayView3<'a, f32>, String> {
        let mut fitting_layouts = self.batch.tables().filter(|v| fits(v.dim().1, v.dim().2));
        match (fitting_layouts.next(), fitting_layouts.next()) {
            (Some(one), None) => Ok(one),
            _ => Err(self.mismatch(wanted)),
        }
    }

    fn find(&self, part: &str) -> Option<ArrayViewD<'a, f32>> {
        self.batch
            .outputs
            .iter()
            .find(|o| o.name.contains(part))
            .map(|o| o.values.view())
    }

    fn named(
        &self,
        part: &str,
        fits: impl Fn(usize) -> bool,
    ) -> Result<ArrayView3<'a, f32>, String> {
        let view = self
            .find(part)
            .and_then(|v| v.into_dimensionality::<Ix3>().ok());
        let view = view.filter(|v| v.dim().0 == self.batch.n && fits(v.dim().2));
        view.ok_or_else(|| self.mismatch(&format!("'{part}' with three axes")))
    }

    fn list(&self, part: &str, places: usize) -> Result<ArrayView2<'a, f32>, String> {
        let view = self
            .find(part)
            .and_then(|v| v.into_dimensionality::<Ix2>().ok());
        let view = view.filter(|v| v.dim() == (self.batch.n, places));
        view.ok_or_else(|| self.mismatch(&format!("'{part}' [N, {places}]")))
    }
}

#[cfg(test)]
mod tests;
