//! Zones, lines and masks in the annotated video.

use opencv::core::{Mat, Point, Point2i, Scalar, Vector};
use opencv::imgproc;

use crate::analytics::{LineView, SceneView, ZoneView};

/// Colours: blue, green and red, each in [0, 255].
const ZONE: Scalar = Scalar::from_array([60.0, 200.0, 60.0, 0.0]);
const OVER_LIMIT: Scalar = Scalar::from_array([60.0, 60.0, 235.0, 0.0]);
const LINE: Scalar = Scalar::from_array([0.0, 200.0, 255.0, 0.0]);
const MASK: Scalar = Scalar::from_array([128.0, 128.0, 128.0, 0.0]);

/// Length in pixels of the arrow that points in the direction `in`, at scale 1.
const ARROW: f64 = 24.0;

/// Draws the shapes with their counts.
pub(super) fn draw(mat: &mut Mat, scene: &SceneView, scale: f64) -> Result<(), opencv::Error> {
    for mask in &scene.masks {
        polyline(mat, mask, true, MASK, 1)?;
    }
    for zone in &scene.zones {
        draw_zone(mat, zone, scale)?;
    }
    for line in &scene.lines {
        draw_line(mat, line, scale)?;
    }
    Ok(())
}

fn draw_zone(mat: &mut Mat, zone: &ZoneView, scale: f64) -> Result<(), opencv::Error> {
    let color = if zone.over { OVER_LIMIT } else { ZONE };
    polyline(mat, &zone.points, true, color, thickness(scale))?;
    let label = format!("{}: {}", zone.name, zone.occupancy);
    let lowest = |a: &&[f64; 2], b: &&[f64; 2]| a[1].total_cmp(&b[1]);
    let at = zone
        .points
        .iter()
        .max_by(lowest)
        .copied()
        .unwrap_or_default();
    super::draw_label(mat, &label, pixel(at), color, scale)
}

fn draw_line(mat: &mut Mat, line: &LineView, scale: f64) -> Result<(), opencv::Error> {
    polyline(mat, &line.points, false, LINE, thickness(scale))?;
    if let [a, b, ..] = line.points[..] {
        let middle = [(a[0] + b[0]) / 2.0, (a[1] + b[1]) / 2.0];
        let (dx, dy) = (b[0] - a[0], b[1] - a[1]);
        let length = dx.hypot(dy).max(1.0) / (ARROW * scale);
        // The right hand of somebody who goes from a to b, with y downwards.
        let tip = [middle[0] - dy / length, middle[1] + dx / length];
        imgproc::arrowed_line(
            mat,
            pixel(middle),
            pixel(tip),
            LINE,
            thickness(scale),
            imgproc::LINE_AA,
            0,
            0.4,
        )?;
    }
    let label = format!("{}: in {} out {}", line.name, line.inwards, line.outwards);
    let at = line.points.first().copied().unwrap_or_default();
    super::draw_label(mat, &label, pixel(at), LINE, scale)
}

fn thickness(scale: f64) -> i32 {
    (2.0 * scale).round() as i32
}

fn pixel([x, y]: [f64; 2]) -> Point {
    Point::new(x.round() as i32, y.round() as i32)
}

fn polyline(
    mat: &mut Mat,
    points: &[[f64; 2]],
    closed: bool,
    color: Scalar,
    thickness: i32,
) -> Result<(), opencv::Error> {
    let points: Vector<Point2i> = points.iter().map(|p| pixel(*p)).collect();
    let lines: Vector<Vector<Point2i>> = Vector::from_iter([points]);
    imgproc::polylines(mat, &lines, closed, color, thickness, imgproc::LINE_AA, 0)
}
