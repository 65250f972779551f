//! Resolves `detector.layout = "auto"` and `detector.class = "auto"` from the outputs' names, their
//! shapes and their values for one black picture.

use std::collections::BTreeMap;

use ndarray::{ArrayView1, ArrayView3};

use crate::detect::batch_outputs::BatchOutputs;
use crate::detect::decode::{self, cells, is_yolov5, strides_of};
use crate::detect::layout::Layout;
use crate::detect::{atss, nanodet};

/// One of two interpretations of the centres is accepted when its error is this many times smaller.
const BELIEVED: f32 = 4.0;
/// Number of mask coefficients, and of prototype channels, in Ultralytics' segmentation networks.
const MASKS: usize = 32;
/// Class names that mean a person.
const PEOPLE: [&str; 4] = ["person", "people", "pedestrian", "human"];
/// Number of classes in COCO's own numbering, which begins at 1 and in which a person is 1.
const COCO_NUMBERS: usize = 91;

/// A setting's value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<T> {
    /// The value.
    pub value: T,
    /// The reason, for logs and messages: "the configuration", or what the outputs showed.
    pub reason: String,
}

impl<T> Decision<T> {
    pub(super) fn new(value: T, reason: impl Into<String>) -> Self {
        Decision {
            value,
            reason: reason.into(),
        }
    }
}

/// Infers the layout from the outputs for one black picture; `classes` is the number of classes
/// that the file names, 0 if none.
///
/// # Errors
/// Fails when names, shapes and values leave more than one layout. The message lists the outputs
/// and the layouts that fit.
pub(crate) fn layout(batch: &BatchOutputs<'_>, classes: usize) -> Result<Decision<Layout>, String> {
    if let Some(decided) = by_names(batch) {
        return Ok(decided);
    }
    if nanodet::levels(batch.outputs, 0, batch.n, batch.input).is_some() {
        return Ok(Decision::new(
            Layout::Nanodet,
            "pairs of scores and distributions for strides 8, 16, 32",
        ));
    }
    if atss::levels(batch).is_some() {
        return Ok(Decision::new(
            Layout::Atss,
            "maps of five channels for strides 8, 16, 32 and on",
        ));
    }
    let tables: Vec<_> = batch.tables().collect();
    let [table] = tables.as_slice() else {
        return Err(refusal(
            batch,
            "their names are unknown, and there is not exactly one of shape [N, P, columns]",
        ));
    };
    let (_, middle, last) = table.dim();
    let shape = format!("the shape [N, {middle}, {last}]");
    if last >= 5 && (strides_of(middle, batch.input).is_some() || is_yolov5(middle, batch.input)) {
        return by_cells(*table, batch, classes);
    }
    if middle >= 5 && middle < last && strides_of(last, batch.input).is_some() {
        return Ok(Decision::new(
            Layout::Yolo,
            format!("{shape}: one column per cell"),
        ));
    }
    if last == 5 {
        return Ok(Decision::new(Layout::Boxes, shape));
    }
    let suppressed = last == 6 || (last == 6 + MASKS && has_mask_prototypes(batch));
    if suppressed && table.rows().into_iter().all(is_found) {
        return Ok(Decision::new(
            Layout::End2end,
            format!("{shape}, integers in the sixth column"),
        ));
    }
    if last >= 5 && middle >= last && table.rows().into_iter().all(is_relative) {
        return Ok(Decision::new(
            Layout::Detr,
            format!("{shape}, all values from 0 to 1"),
        ));
    }
    let first = first_row(*table);
    Err(refusal(
        batch,
        &format!("{shape} and the values of [{first}] in it match no single layout"),
    ))
}

/// Rejects an explicitly set layout when the values show that the outputs are of another layout
/// with the same shapes.
///
/// # Errors
/// Names the layout to set.
pub(crate) fn contradiction(batch: &BatchOutputs<'_>, named: Layout) -> Result<(), String> {
    let confused: &[Layout] = match named {
        Layout::Yolox => &[Layout::YoloxDecoded],
        Layout::YoloxDecoded => &[Layout::Yolox],
        Layout::Detr => &[Layout::End2end],
        Layout::End2end => &[Layout::Detr],
        _ => &[],
    };
    match layout(batch, 0) {
        Ok(other) if confused.contains(&other.value) => Err(format!(
            "its outputs {} have the layout '{}' (from {}), not '{}'; set detector.layout = \"{}\" \
             or \"auto\"",
            batch.shapes(),
            other.value.name(),
            other.reason,
            named.name(),
            other.value.name()
        )),
        _ => Ok(()),
    }
}

/// A remedy for outputs that do not have the shapes of the layout that was set.
pub(crate) fn suggestion(batch: &BatchOutputs<'_>) -> String {
    match layout(batch, 0) {
        Ok(other) => format!(
            "set detector.layout = \"{}\" or \"auto\"",
            other.value.name()
        ),
        Err(_) => fitting_layouts(batch),
    }
}

/// Recognises layouts by the names of their outputs.
fn by_names(batch: &BatchOutputs<'_>) -> Option<Decision<Layout>> {
    let named = |part: &str| batch.outputs.iter().find(|o| o.name.contains(part));
    let has = |part: &str, axes: usize| named(part).is_some_and(|o| o.values.ndim() == axes);
    let by = |layout: Layout, names: &str| {
        let fits = decode::decode(batch, layout).is_ok();
        fits.then(|| Decision::new(layout, format!("outputs named {names}")))
    };
    if has("labels", 2) && has("scores", 2) && has("boxes", 3) {
        return by(Layout::Dfine, "labels, boxes, scores");
    }
    if has("dets", 3) && has("labels", 3) {
        return by(Layout::Rfdetr, "dets, labels");
    }
    if has("logits", 3) && has("boxes", 3) {
        return by(Layout::Detr, "logits, boxes");
    }
    if has("labels", 2) {
        return by(Layout::Boxes, "labels, beside [N, P, 5]");
    }
    None
}

/// Recognises networks with one or three boxes per cell.
fn by_cells(
    table: ArrayView3<'_, f32>,
    batch: &BatchOutputs<'_>,
    classes: usize,
) -> Result<Decision<Layout>, String> {
    let (_, places, columns) = table.dim();
    if is_yolov5(places, batch.input) && columns > 5 {
        return Ok(Decision::new(
            Layout::Yolov5,
            format!("the shape [N, {places}, {columns}]: three boxes per cell"),
        ));
    }
    let strides = strides_of(places, batch.input).unwrap_or_default();
    let grid = cells(strides, batch.input);
    // Median distance, in cells, of a row's centre from the middle of its cell. The centre is read
    // in one of three ways: as an offset in cells, in pixels, or computed from edges in pixels.
    let miss = |at: &dyn Fn(ArrayView1<'_, f32>) -> (f32, f32), decoded: bool| {
        let one = |(row, (x, y, s)): (ArrayView1<'_, f32>, &(f32, f32, f32))| {
            let (a, b) = at(row);
            let (dx, dy) = if decoded {
                (a / s - x - 0.5, b / s - y - 0.5)
            } else {
                (a - 0.5, b - 0.5)
            };
            dx.abs().max(dy.abs())
        };
        median(table.rows().into_iter().zip(&grid).map(one).collect())
    };
    let (raw, decoded) = (
        miss(&|r| (r[0], r[1]), false),
        miss(&|r| (r[0], r[1]), true),
    );
    let edges = miss(&|r| ((r[0] + r[2]) / 2.0, (r[1] + r[3]) / 2.0), true);
    let seen = |what: &str| format!("the shape [N, {places}, {columns}]: one box per cell, {what}");
    if columns == 5 && edges * BELIEVED < decoded.min(raw) {
        return Ok(Decision::new(
            Layout::Boxes,
            seen("whose edges lie around it"),
        ));
    }
    if raw * BELIEVED < decoded && strides == [8, 16, 32] && columns > 5 {
        return Ok(Decision::new(
            Layout::Yolox,
            seen("with centres as offsets in cells"),
        ));
    }
    if decoded * BELIEVED < raw {
        // Both layouts are in pixels; only one has a column of objectness.
        let without_objectness = if classes > 0 {
            columns == 4 + classes
        } else {
            columns == 5 || columns == 84
        };
        let layout = if without_objectness {
            Layout::Yolo
        } else {
            Layout::YoloxDecoded
        };
        return Ok(Decision::new(layout, seen("with centres in pixels")));
    }
    let first = first_row(table);
    Err(refusal(
        batch,
        &format!(
            "there is one row per cell, but its first two columns are no centres (the first row: \
             {first})"
        ),
    ))
}

/// The median; infinite if it is not finite.
fn median(mut values: Vec<f32>) -> f32 {
    let middle = values.len() / 2;
    values.sort_by(f32::total_cmp);
    values
        .get(middle)
        .copied()
        .filter(|v| v.is_finite())
        .unwrap_or(f32::INFINITY)
}

/// Whether a row holds a score from 0 to 1 and an integer class. Padding rows of zeros pass.
fn is_found(row: ArrayView1<'_, f32>) -> bool {
    (0.0..=1.0).contains(&row[4]) && row[5] >= 0.0 && row[5].fract() == 0.0
}

/// Whether a row holds a box relative to the picture's size, and scores. Boxes may exceed the
/// picture a little.
fn is_relative(row: ArrayView1<'_, f32>) -> bool {
    let within = |v: &f32, margin: f32| (-margin..=1.0 + margin).contains(v);
    row.iter().take(4).all(|v| within(v, 0.5)) && row.iter().skip(4).all(|v| within(v, 0.0))
}

fn has_mask_prototypes(batch: &BatchOutputs<'_>) -> bool {
    batch
        .outputs
        .iter()
        .any(|o| o.values.ndim() == 4 && o.values.shape()[1] == MASKS)
}

fn first_row(table: ArrayView3<'_, f32>) -> String {
    let values = table.iter().take(table.dim().2.min(6));
    values
        .map(|v| format!("{v:.3}"))
        .collect::<Vec<_>>()
        .join(", ")
}

fn refusal(batch: &BatchOutputs<'_>, why: &str) -> String {
    let (w, h) = batch.input;
    format!(
        "its outputs {} for an input of {w}x{h} pixels match no layout: {why}; {}",
        batch.shapes(),
        fitting_layouts(batch)
    )
}

/// Lists the layouts whose shapes match the outputs.
fn fitting_layouts(batch: &BatchOutputs<'_>) -> String {
    let six = batch.tables().any(|t| t.dim().2 == 6);
    let fits = |l: &Layout| decode::decode(batch, *l).is_ok() && (*l != Layout::End2end || six);
    let names: Vec<&str> = Layout::ALL
        .into_iter()
        .filter(fits)
        .map(Layout::name)
        .collect();
    if names.is_empty() {
        let all: Vec<&str> = Layout::ALL.into_iter().map(Layout::name).collect();
        let all = all.join(", ");
        return format!(
            "no detector.layout matches these outputs (the layouts are {all}): export the network \
             in one of them"
        );
    }
    format!(
        "set detector.layout as its authors specify; layouts of this shape: {}",
        names.join(", ")
    )
}

/// Finds the number of the class "person" from the class names of the file, or from the number of
/// classes `count` where it is known.
///
/// # Errors
/// Fails when several classes are named and none is a person.
pub(super) fn class(
    names: &BTreeMap<usize, String>,
    count: Option<usize>,
) -> Result<Decision<usize>, String> {
    let person = |name: &str| PEOPLE.contains(&name.to_lowercase().as_str());
    if let Some((number, name)) = names.iter().find(|(_, name)| person(name)) {
        return Ok(Decision::new(
            *number,
            format!("the file, which names it '{name}'"),
        ));
    }
    if names.len() > 1 {
        let all: Vec<String> = names
            .iter()
            .take(20)
            .map(|(i, name)| format!("{i} {name}"))
            .collect();
        let all = all.join(", ");
        return Err(format!(
            "none of its classes is called person ({all}); set detector.class to the number of \
             the class to track"
        ));
    }
    Ok(match count {
        Some(COCO_NUMBERS) => Decision::new(
            1,
            format!("{COCO_NUMBERS} classes, which is COCO's numbering from 1"),
        ),
        _ => Decision::new(0, "the default: the first, as in most networks"),
    })
}

#[cfg(test)]
mod tests;
