//! Figure atlases: rendered people with a label of the body part for every pixel
//! (`models/render_figures.py`). A sheet is a PNG of cells of 64x128 pixels, one person each. Red
//! is the label of the body part ([`BodyPart::of_label`]). Green is the shade: 128 times the linear
//! luminance divided by its mean over the part's group (skin; top and sleeves; legs; other parts
//! alone), at most 255. Blue is the coverage by the person (255: full).

use std::path::Path;

use crate::source::image_folder;
use crate::train::error::TrainError;
use crate::train::probe::figure::{BodyPart, Figure};
use crate::train::probe::footage::Footage;
use crate::train::probe::grid::{Grid, Mask, Picture};

/// Width and height of a cell in pixels.
const CELL: (usize, usize) = (64, 128);
/// A cell whose mean coverage, in [0, 1], is below this is empty.
const EMPTY: f32 = 0.05;

/// Reads the sheets `*.png` of a folder as figures of `size` (width, height) in pixels.
///
/// # Errors
/// Fails when the folder or a sheet cannot be read, the size of a sheet is not a multiple of the
/// size of a cell, or there is no figure.
pub fn read(dir: &Path, size: (usize, usize)) -> Result<Footage, TrainError> {
    let misfit = |problem: String| TrainError::Data {
        name: dir.display().to_string(),
        problem,
    };
    let entries = std::fs::read_dir(dir).map_err(|source| TrainError::Read {
        path: dir.into(),
        source,
    })?;
    let mut sheets: Vec<_> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.extension().is_some_and(|e| e == "png"))
        .collect();
    sheets.sort();
    let mut figures = Vec::new();
    for path in &sheets {
        let sheet = image_folder::read(path)?;
        let (columns, rows) = (
            sheet.width as usize / CELL.0,
            sheet.height as usize / CELL.1,
        );
        if columns * CELL.0 != sheet.width as usize || rows * CELL.1 != sheet.height as usize {
            return Err(misfit(format!(
                "{} has {}x{} pixels, which is not a multiple of the {}x{} pixels of a cell",
                path.display(),
                sheet.width,
                sheet.height,
                CELL.0,
                CELL.1
            )));
        }
        for cell in 0..columns * rows {
            let (left, top) = (cell % columns * CELL.0, cell / columns * CELL.1);
            // The picture is BGR; a cell's pixels are red, green, blue.
            let bytes: Vec<[u8; 3]> = (0..CELL.1)
                .flat_map(|y| {
                    sheet.row(top + y)[3 * left..3 * (left + CELL.0)]
                        .chunks_exact(3)
                        .map(|p| [p[2], p[1], p[0]])
                })
                .collect();
            figures.extend(figure(&bytes, size));
        }
    }
    if figures.is_empty() {
        return Err(misfit(
            "it contains no PNG sheet with figures; create sheets with models/render_figures.py"
                .into(),
        ));
    }
    Ok(Footage {
        figures,
        scenes: Vec::new(),
    })
}

/// The figure of a cell, which holds [red, green, blue] by row, scaled to `size` (width, height) in
/// pixels; `None` if the cell is empty.
fn figure(cell: &[[u8; 3]], size: (usize, usize)) -> Option<Figure> {
    let grid = |channel: usize| Grid {
        width: CELL.0,
        height: CELL.1,
        values: cell.iter().map(|p| p[channel]).collect::<Vec<u8>>(),
    };
    let coverage: Mask = Grid {
        width: CELL.0,
        height: CELL.1,
        values: cell.iter().map(|p| f32::from(p[2]) / 255.0).collect(),
    };
    if coverage.values.iter().sum::<f32>() < EMPTY * coverage.values.len() as f32 {
        return None;
    }
    let shade: Picture = Grid {
        width: CELL.0,
        height: CELL.1,
        values: cell.iter().map(|p| [f32::from(p[1]) / 255.0; 3]).collect(),
    };
    let labels = grid(0);
    // Labels cannot be interpolated: the nearest one is used.
    let nearest = |i: usize| {
        labels.values[(i / size.0) * CELL.1 / size.1 * CELL.0 + (i % size.0) * CELL.0 / size.0]
    };
    let parts = (0..size.0 * size.1)
        .map(|i| BodyPart::of_label(nearest(i)))
        .collect();
    Some(Figure::new(
        &shade.resized(size),
        &coverage.resized(size),
        Some(parts),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_gives_labels_shade_and_coverage_and_an_empty_one_no_figure() {
        let cell: Vec<[u8; 3]> = (0..64 * 128)
            .map(|i| {
                if i / 64 < 64 {
                    [3, 128, 255]
                } else {
                    [5, 64, 255]
                }
            })
            .collect();
        let figure = figure(&cell, (32, 64)).expect("covered");
        let parts = figure.parts().expect("an atlas has labels");
        assert_eq!(
            (parts[0], parts[63 * 32]),
            (BodyPart::Top, BodyPart::Thighs)
        );
        assert!(
            (figure.picture().at(3, 3)[0] - 0.5).abs() < 0.01 && figure.coverage().at(3, 3) > 0.99
        );
        assert!(super::figure(&vec![[0, 0, 0]; 64 * 128], (32, 64)).is_none());
    }
}
