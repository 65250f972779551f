//! Where people were: person-seconds in the cells of a grid over a camera's frame, from the paths
//! of ended tracks.

use serde::Serialize;

use crate::store::database::Database;
use crate::store::error::StoreError;
use crate::store::query::TrackFilter;
use crate::store::tracks::{Plan, conditions, numbers};
use crate::time::Timestamp;

/// Largest number of columns.
pub const MAX_COLUMNS: u32 = 256;
/// Most tracks that are read; of more, the newest.
const MAX_TRACKS: i64 = 20_000;
/// Number of steps per cell in which the points of a path are sampled.
const STEPS: f64 = 4.0;

/// Which tracks are counted, and the resolution.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatMapQuery {
    /// Name of the camera.
    pub camera: String,
    /// Tracks that were there at this time or later.
    pub from: Option<Timestamp>,
    /// Tracks that began before this time.
    pub to: Option<Timestamp>,
    /// Number of columns, 1 to [`MAX_COLUMNS`]; cells are squares.
    pub columns: u32,
}

/// Person-seconds by place.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
pub struct HeatMap {
    /// Name of the camera.
    pub camera: String,
    /// Width and height of the frame in pixels; [0, 0] without tracks.
    pub frame: [u32; 2],
    /// Number of columns.
    pub columns: u32,
    /// Number of rows.
    pub rows: u32,
    /// Number of tracks in it.
    pub tracks: u64,
    /// Whether there are more tracks, older than those in it.
    pub truncated: bool,
    /// Seconds that foot points were in each cell, row by row from the top.
    pub seconds: Vec<Vec<f32>>,
}

/// Computes a heat map of the ended tracks. Tracks of frames of another size are scaled.
///
/// # Errors
/// When the number of columns is not allowed, or the database fails.
pub fn heat_map(db: &mut dyn Database, query: &HeatMapQuery) -> Result<HeatMap, StoreError> {
    if !(1..=MAX_COLUMNS).contains(&query.columns) {
        return Err(StoreError::Argument {
            argument: "columns",
            reason: format!("it must be from 1 to {MAX_COLUMNS}"),
        });
    }
    let mut map = HeatMap {
        camera: query.camera.clone(),
        frame: [0, 0],
        columns: query.columns,
        rows: 0,
        tracks: 0,
        truncated: false,
        seconds: Vec::new(),
    };
    let filter = TrackFilter {
        camera: Some(query.camera.clone()),
        from: query.from,
        to: query.to,
        ..TrackFilter::default()
    };
    let Some(mut all) = conditions(db, &filter, Plan::Time)? else {
        return Ok(map);
    };
    let sql = format!(
        "SELECT t.width, t.height, p.path FROM tracks t JOIN paths p ON p.track_id = t.id
         WHERE {} ORDER BY t.first_time DESC, t.id DESC LIMIT ?",
        all.text()
    );
    all.values.push((MAX_TRACKS + 1).into());
    let mut rows = db.query(&sql, &all.values)?;
    map.truncated = rows.len() as i64 > MAX_TRACKS;
    rows.truncate(MAX_TRACKS as usize);
    for row in rows {
        let (width, height) = (row.int(0)?, row.int(1)?);
        if width > 0 && height > 0 {
            let path = numbers::<3>(&row.text(2)?)?;
            map.add((width as f64, height as f64), &path);
        }
    }
    Ok(map)
}

impl HeatMap {
    /// Adds a path of [pts, x, y] in a frame of this size.
    fn add(&mut self, (width, height): (f64, f64), path: &[[f64; 3]]) {
        if self.seconds.is_empty() {
            self.frame = [width as u32, height as u32];
            let rows = (height * f64::from(self.columns) / width).ceil();
            self.rows = rows.clamp(1.0, f64::from(16 * MAX_COLUMNS)) as u32;
            self.seconds = vec![vec![0.0; self.columns as usize]; self.rows as usize];
        }
        self.tracks += 1;
        let (columns, rows) = (f64::from(self.columns), f64::from(self.rows));
        // In cells. A person's foot point can be a little below the frame.
        let place = |[_, x, y]: &[f64; 3]| (x / width * columns, y / height * rows);
        for pair in path.windows(2) {
            let ((x0, y0), (x1, y1)) = (place(&pair[0]), place(&pair[1]));
            let seconds = pair[1][0] - pair[0][0];
            if !seconds.is_finite() || seconds <= 0.0 {
                continue;
            }
            let cells = (x1 - x0).abs().max((y1 - y0).abs()).min(columns + rows);
            let steps = (STEPS * cells).ceil().max(1.0);
            for n in 0..steps as u32 {
                let at = (f64::from(n) + 0.5) / steps;
                let column = (x0 + at * (x1 - x0)).clamp(0.0, columns - 1.0) as usize;
                let row = (y0 + at * (y1 - y0)).clamp(0.0, rows - 1.0) as usize;
                self.seconds[row][column] += (seconds / steps) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(columns: u32) -> HeatMap {
        HeatMap {
            camera: "gate".into(),
            frame: [0, 0],
            columns,
            rows: 0,
            tracks: 0,
            truncated: false,
            seconds: Vec::new(),
        }
    }

    #[test]
    fn the_cells_have_the_seconds_of_the_paths() {
        let mut map = map(4);
        // Along the middle of the upper row for 4 s, then a stay of 2 s.
        map.add(
            (400.0, 200.0),
            &[[0.0, 0.0, 50.0], [4.0, 400.0, 50.0], [6.0, 400.0, 50.0]],
        );
        assert_eq!((map.frame, map.rows, map.tracks), ([400, 200], 2, 1));
        assert_eq!(map.seconds, [[1.0, 1.0, 1.0, 3.0], [0.0; 4]]);
        // In a frame of half the size, below its bottom edge, backwards in time, and of one point.
        map.add(
            (200.0, 100.0),
            &[[0.0, 10.0, 110.0], [2.0, 10.0, 110.0], [1.0, 0.0, 0.0]],
        );
        map.add((200.0, 100.0), &[[0.0, 10.0, 10.0]]);
        assert_eq!(map.seconds, [[1.0, 1.0, 1.0, 3.0], [2.0, 0.0, 0.0, 0.0]]);
        assert_eq!(map.tracks, 3);
    }
}
