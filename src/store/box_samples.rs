//! The boxes of a track at some of its frames, from which those between are interpolated.

/// Least time in seconds between two boxes.
const INTERVAL: f64 = 0.2;
/// Maximum number of kept boxes of a track; beyond it every second box is removed, and the interval
/// doubles.
const MAX_BOXES: usize = 1024;

/// Frame, left, top, width, height.
pub type BoxSample = [f32; 5];

/// The boxes of a track so far.
#[derive(Debug)]
pub struct BoxSamples {
    kept: Vec<BoxSample>,
    /// The last box, if it is not among those kept.
    last: Option<BoxSample>,
    /// Presentation time in seconds from which the next box is kept.
    due: f64,
    interval: f64,
}

impl Default for BoxSamples {
    fn default() -> Self {
        BoxSamples {
            kept: Vec::new(),
            last: None,
            due: f64::NEG_INFINITY,
            interval: INTERVAL,
        }
    }
}

impl BoxSamples {
    /// Adds the box `[left, top, width, height]` in a frame. Frame numbers beyond 2^24 are rounded.
    pub fn add(&mut self, frame: u64, pts: f64, [left, top, width, height]: [f64; 4]) {
        let rounded = [left, top, width, height].map(|v| (10.0 * v).round() as f32 / 10.0);
        let [left, top, width, height] = rounded;
        let sample = [frame as f32, left, top, width, height];
        if pts < self.due {
            self.last = Some(sample);
            return;
        }
        self.last = None;
        self.kept.push(sample);
        if self.kept.len() > MAX_BOXES {
            let mut n = 0;
            self.kept.retain(|_| {
                n += 1;
                n % 2 == 1
            });
            self.interval *= 2.0;
        }
        self.due = pts + self.interval - 1e-6;
    }

    /// The boxes, with the first and the last one.
    pub fn take(mut self) -> Vec<BoxSample> {
        self.kept.extend(self.last);
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_the_last_and_five_boxes_a_second_are_kept() {
        let mut samples = BoxSamples::default();
        for n in 0..=37 {
            let left = f64::from(n);
            samples.add(n as u64 + 1, f64::from(n) / 25.0, [left, 1.04, 30.0, 60.0]);
        }
        let boxes = samples.take();
        let frames: Vec<f32> = boxes.iter().map(|b| b[0]).collect();
        assert_eq!(frames, [1.0, 6.0, 11.0, 16.0, 21.0, 26.0, 31.0, 36.0, 38.0]);
        assert_eq!(boxes[8], [38.0, 37.0, 1.0, 30.0, 60.0]);
    }

    #[test]
    fn the_number_of_boxes_is_bounded() {
        let mut samples = BoxSamples::default();
        for n in 0..100_000_u32 {
            samples.add(n.into(), f64::from(n), [0.0; 4]);
        }
        let boxes = samples.take();
        assert!(boxes.len() > MAX_BOXES / 2 && boxes.len() <= MAX_BOXES + 1);
        assert_eq!((boxes[0][0], boxes[boxes.len() - 1][0]), (0.0, 99_999.0));
    }
}
