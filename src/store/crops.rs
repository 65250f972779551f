//! The best crops of a track: clear, large, and apart in time.

use std::sync::Arc;

use crate::frame::Image;
use crate::store::rows::{CropRow, Picture};
use crate::time::Timestamp;
use crate::trajectory::TrackEvent;

/// Most crops of a track.
const MOST: usize = 3;
/// Least time between two of them, in seconds.
const APART: f64 = 1.0;
/// By how much a crop must be better to replace another.
const BETTER: f64 = 1.1;
/// Share of a box that others may cover.
const COVERED: f64 = 0.3;

/// The crops chosen so far.
#[derive(Debug, Clone, Default)]
pub struct BestCrops(Vec<CropRow>);

impl BestCrops {
    /// Offers a crop. It is cut by `cut` only if it is chosen; None: it cannot be cut.
    pub fn offer(&mut self, pts: f64, score: f64, cut: impl FnOnce() -> Option<CropRow>) {
        let near = |c: &CropRow| (c.pts - pts).abs() < APART;
        let best_near = self
            .0
            .iter()
            .filter(|c| near(c))
            .map(|c| c.score)
            .reduce(f64::max);
        let beaten = match best_near {
            Some(best) => score > BETTER * best,
            None if self.0.len() < MOST => true,
            None => self.0.iter().any(|c| score > BETTER * c.score),
        };
        if !beaten || score <= 0.0 {
            return;
        }
        let Some(crop) = cut() else { return };
        self.0.retain(|c| !near(c));
        self.0.push(crop);
        if self.0.len() > MOST {
            self.0.sort_by(|a, b| b.score.total_cmp(&a.score));
            self.0.truncate(MOST);
        }
    }

    /// The chosen crops, from the best.
    pub fn take(mut self) -> Vec<CropRow> {
        self.0.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.0
    }
}

/// How good the crop of a track is in a frame of this size, in [0, 1]; 0: not usable. Other boxes,
/// the border of the frame, low confidence and a height below `height` pixels lower it.
pub fn score(track: &TrackEvent, all: &[TrackEvent], frame: (u32, u32), height: u32) -> f64 {
    let [left, top, w, h] = track.bbox;
    if w < 4.0 || h < 8.0 {
        return 0.0;
    }
    let common = |l: f64, t: f64, width: f64, high: f64| {
        let across = (left + w).min(l + width) - left.max(l);
        let down = (top + h).min(t + high) - top.max(t);
        across.max(0.0) * down.max(0.0) / (w * h)
    };
    let others = all.iter().filter(|o| o.id != track.id);
    let covered = others
        .map(|o| common(o.bbox[0], o.bbox[1], o.bbox[2], o.bbox[3]))
        .fold(0.0, f64::max);
    if covered > COVERED {
        return 0.0;
    }
    let inside = common(0.0, 0.0, f64::from(frame.0), f64::from(frame.1));
    let size = (h / f64::from(height)).min(1.0).sqrt();
    track.confidence * (1.0 - covered) * inside * inside * size
}

/// Cuts a box out of a frame, at most `height` pixels high: a higher one is scaled down by a whole
/// factor, each pixel the mean of a square. None if the box is not in the frame.
pub fn cut(
    image: &Image,
    bbox: [f64; 4],
    height: u32,
    at: (f64, Timestamp, f64),
) -> Option<CropRow> {
    let edge = |v: f64, most: u32| v.round().clamp(0.0, f64::from(most)) as usize;
    let (left, right) = (
        edge(bbox[0], image.width),
        edge(bbox[0] + bbox[2], image.width),
    );
    let (top, bottom) = (
        edge(bbox[1], image.height),
        edge(bbox[1] + bbox[3], image.height),
    );
    if right <= left || bottom <= top {
        return None;
    }
    let factor = (bottom - top).div_ceil(height.max(1) as usize).max(1);
    let (w, h) = ((right - left) / factor, (bottom - top) / factor);
    if w == 0 || h == 0 {
        return None;
    }
    let mut pixels = Vec::with_capacity(3 * w * h);
    let mut sums = vec![0u32; 3 * w];
    for y in 0..h {
        sums.fill(0);
        for dy in 0..factor {
            let row = &image.row(top + y * factor + dy)[3 * left..];
            for (x, sum) in sums.chunks_exact_mut(3).enumerate() {
                for pixel in row[3 * x * factor..][..3 * factor].chunks_exact(3) {
                    for (channel, value) in pixel.iter().enumerate() {
                        sum[channel] += u32::from(*value);
                    }
                }
            }
        }
        let area = (factor * factor) as u32;
        pixels.extend(sums.iter().map(|sum| ((sum + area / 2) / area) as u8));
    }
    let (pts, time, score) = at;
    Some(CropRow {
        pts,
        time,
        score,
        size: (w as u32, h as u32),
        picture: Picture::Pixels(Image::packed(w as u32, h as u32, Arc::from(pixels))),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rows::timestamp;
    use crate::track::TrackState;

    fn row(pts: f64, score: f64) -> Option<CropRow> {
        let image = Image::packed(1, 1, vec![0; 3].into());
        Some(CropRow {
            pts,
            time: timestamp(0),
            score,
            size: (1, 1),
            picture: Picture::Pixels(image),
        })
    }

    #[test]
    fn the_best_crops_are_apart_in_time() {
        let mut best = BestCrops::default();
        let mut cuts = 0;
        for (pts, score) in [
            (0.0, 0.5),
            (0.5, 0.52), // near the first, and hardly better
            (0.6, 0.9),  // replaces it
            (2.0, 0.4),
            (4.0, 0.3),
            (6.0, 0.31), // hardly better than the worst
            (8.0, 0.6),  // replaces the worst
            (9.0, 0.0),
        ] {
            best.offer(pts, score, || {
                cuts += 1;
                row(pts, score)
            });
        }
        let chosen: Vec<f64> = best.take().iter().map(|c| c.pts).collect();
        assert_eq!(chosen, [0.6, 8.0, 2.0]);
        assert_eq!(cuts, 5, "only chosen crops are cut");
    }

    fn person(id: u64, bbox: [f64; 4], confidence: f64) -> TrackEvent {
        TrackEvent {
            id,
            state: TrackState::Confirmed,
            bbox,
            confidence,
            age: 1.0,
            unseen: None,
            hits: 9,
            velocity: [0.0; 2],
            foot: [0.0; 2],
            identity: None,
            zones: Vec::new(),
            ground: None,
        }
    }

    #[test]
    fn covered_cut_small_and_doubtful_people_score_lower() {
        let clear = person(1, [100.0, 100.0, 50.0, 128.0], 0.9);
        let of = |t: &TrackEvent, others: &[TrackEvent]| score(t, others, (640, 480), 128);
        let best = of(&clear, &[]);
        assert_eq!(best, 0.9);
        assert_eq!(of(&clear, std::slice::from_ref(&clear)), best, "no other");
        for (worse, others) in [
            (
                clear.clone(),
                vec![person(2, [140.0, 100.0, 50.0, 128.0], 0.9)],
            ),
            (person(1, [-25.0, 100.0, 50.0, 128.0], 0.9), vec![]),
            (person(1, [100.0, 100.0, 25.0, 64.0], 0.9), vec![]),
            (person(1, [100.0, 100.0, 50.0, 128.0], 0.5), vec![]),
        ] {
            let score = of(&worse, &others);
            assert!(
                score > 0.0 && score < 0.8 * best + 0.1,
                "{worse:?}: {score}"
            );
        }
        let hidden = person(3, [110.0, 90.0, 60.0, 150.0], 0.9);
        assert_eq!(of(&clear, &[hidden]), 0.0);
    }

    #[test]
    fn a_crop_has_the_pixels_of_the_box_scaled_by_a_whole_factor() {
        let data: Vec<u8> = (0..8u8)
            .flat_map(|y| (0..6u8).flat_map(move |x| [10 * x, 20 * y, 7]))
            .collect();
        let image = Image::packed(6, 8, data.into());
        let at = (1.0, timestamp(0), 0.5);
        let pixels = |crop: Option<CropRow>| match crop.expect("in the frame").picture {
            Picture::Pixels(image) => image,
            Picture::Jpeg(_) => unreachable!("not encoded"),
        };
        let whole = pixels(cut(&image, [1.0, 2.0, 3.0, 4.0], 100, at));
        assert_eq!((whole.width, whole.height), (3, 4));
        assert_eq!(&whole.row(1)[..6], [10, 60, 7, 20, 60, 7]);
        let half = pixels(cut(&image, [2.0, 0.0, 100.0, 8.0], 4, at));
        assert_eq!((half.width, half.height), (2, 4));
        assert_eq!(half.row(0), [25, 10, 7, 45, 10, 7]);
        assert!(cut(&image, [6.0, 0.0, 5.0, 5.0], 100, at).is_none());
    }
}
