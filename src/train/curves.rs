//! The learning curve as a table and a plot.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use crate::train::error::TrainError;

/// Measurements at one validation; loss, active and speed are averages since the previous
/// validation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// Number of completed steps.
    pub step: usize,
    /// Loss.
    pub loss: f64,
    /// Share of labelled pictures whose triplet violates the margin.
    pub active: Option<f64>,
    /// Learning rate.
    pub rate: f64,
    /// Mean average precision on held-out people, in [0, 1].
    pub map: Option<f64>,
    /// Mean cosine between the student's and the teacher's embeddings of held-out pictures.
    pub agreement: Option<f64>,
    /// Pictures per second.
    pub speed: f64,
}

/// A line of the plot: name, colour, value at a point.
type Line = (&'static str, RGBColor, fn(&CurvePoint) -> Option<f64>);

/// The measurements of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Curve(pub Vec<CurvePoint>);

impl Curve {
    /// Writes `curve.csv` and `curve.svg`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), TrainError> {
        let mut text =
            String::from("step,loss,active,learning_rate,map,agreement,images_per_second\n");
        for p in &self.0 {
            let [active, map, agreement] = [p.active, p.map, p.agreement]
                .map(|v| v.map_or(String::new(), |v| format!("{v:.5}")));
            writeln!(
                text,
                "{},{:.6},{active},{:.3e},{map},{agreement},{:.1}",
                p.step, p.loss, p.rate, p.speed
            )
            .expect("writing to a string cannot fail");
        }
        let path = dir.join("curve.csv");
        fs::write(&path, text).map_err(|e| TrainError::Write {
            path,
            reason: e.to_string(),
        })?;
        let path = dir.join("curve.svg");
        self.plot(&path)
            .map_err(|reason| TrainError::Write { path, reason })
    }

    fn plot(&self, path: &Path) -> Result<(), String> {
        let last = self.0.last().map_or(1, |p| p.step) as f64;
        let root = SVGBackend::new(path, (800, 420)).into_drawing_area();
        let drawn = (|| {
            root.fill(&WHITE)?;
            let mut chart = ChartBuilder::on(&root)
                .margin(16)
                .x_label_area_size(32)
                .y_label_area_size(44)
                .build_cartesian_2d(0.0..last, 0.0..1.0)?;
            chart.configure_mesh().x_desc("step").draw()?;
            let lines: [Line; 4] = [
                ("loss", RED, |p| Some(p.loss.min(1.0))),
                ("active triplets", BLUE, |p| p.active),
                ("mAP, people held out", GREEN, |p| p.map),
                ("cosine to the teacher", MAGENTA, |p| p.agreement),
            ];
            for (name, color, of) in lines {
                let line = LineSeries::new(
                    self.0.iter().filter_map(|p| Some((p.step as f64, of(p)?))),
                    color.stroke_width(2),
                );
                chart.draw_series(line)?.label(name).legend(move |(x, y)| {
                    PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2))
                });
            }
            chart
                .configure_series_labels()
                .position(SeriesLabelPosition::LowerLeft)
                .border_style(BLACK)
                .background_style(WHITE)
                .draw()?;
            root.present()
        })();
        drawn.map_err(|e: DrawingAreaErrorKind<_>| e.to_string())
    }
}
