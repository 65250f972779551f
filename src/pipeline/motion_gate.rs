//! The motion gate: while nothing moves, the networks are skipped and their last results reused.

use crate::frame::Image;
use crate::time::Seconds;

/// Side of a cell in pixels: small enough for a distant person, large enough to average out noise.
const CELL: usize = 16;
/// Sampling stride in x and y in pixels.
const STRIDE: usize = 4;
/// A cell has changed if its mean (of 0 to 255) differs by more than this from the reference,
/// relative to the change of the whole picture.
const CHANGE: f32 = 5.0;
/// Maximum time for which the gate stays closed.
const REFRESH: Seconds = Seconds(2.0);

/// Compares each frame with the last one that the networks processed, so that slow changes add up.
#[derive(Debug, Default)]
pub struct MotionGate {
    /// The last frame processed: mean green of its cells, its size, its time.
    reference: Option<(Vec<f32>, (u32, u32), Seconds)>,
}

impl MotionGate {
    /// Whether the networks should process this frame, which then becomes the reference.
    pub fn opens(&mut self, image: &Image, now: Seconds) -> bool {
        let cells = cells(image);
        let size = (image.width, image.height);
        if let Some((before, old, at)) = &self.reference
            && *old == size
            && (0.0..REFRESH.0).contains(&(now - *at).0)
            && !changed(before, &cells)
        {
            return false;
        }
        self.reference = Some((cells, size, now));
        true
    }
}

fn cells(image: &Image) -> Vec<f32> {
    let (columns, rows) = (
        (image.width as usize).div_ceil(CELL),
        (image.height as usize).div_ceil(CELL),
    );
    let (mut sums, mut counts) = (vec![0u32; columns * rows], vec![0u32; columns * rows]);
    for y in (0..image.height as usize).step_by(STRIDE) {
        for (i, pixel) in image.row(y).chunks_exact(3 * STRIDE).enumerate() {
            let cell = y / CELL * columns + i * STRIDE / CELL;
            sums[cell] += u32::from(pixel[1]);
            counts[cell] += 1;
        }
    }
    sums.iter()
        .zip(&counts)
        .map(|(&sum, &count)| sum as f32 / count.max(1) as f32)
        .collect()
}

/// Whether a cell has changed. A change of light or exposure affects all cells: the median change
/// is subtracted.
fn changed(before: &[f32], now: &[f32]) -> bool {
    let differences: Vec<f32> = before.iter().zip(now).map(|(b, n)| n - b).collect();
    let mut sorted = differences.clone();
    let middle = sorted.len() / 2;
    let Some(median) =
        (!sorted.is_empty()).then(|| *sorted.select_nth_unstable_by(middle, f32::total_cmp).1)
    else {
        return false;
    };
    differences.iter().any(|d| (d - median).abs() > CHANGE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A noisy grey picture with a darker person of 12x36 pixels; `light` is added to all pixels.
    fn picture(seed: u64, person: Option<(usize, usize)>, light: u8) -> Image {
        let mut rng = fastrand::Rng::with_seed(seed);
        let (w, h) = (160, 120);
        let mut data = Vec::with_capacity(3 * w * h);
        for i in 0..w * h {
            let (x, y) = (i % w, i / w);
            let inside =
                person.is_some_and(|(l, t)| (l..l + 12).contains(&x) && (t..t + 36).contains(&y));
            let v = if inside { 60 } else { 120 } + rng.u8(0..9) + light;
            data.extend([v; 3]);
        }
        Image::packed(w as u32, h as u32, data.into())
    }

    #[test]
    fn noise_and_light_do_not_open_the_gate_and_a_step_does() {
        let mut gate = MotionGate::default();
        assert!(
            gate.opens(&picture(1, Some((60, 40)), 0), Seconds(0.0)),
            "the first frame"
        );
        assert!(
            !gate.opens(&picture(2, Some((60, 40)), 0), Seconds(0.1)),
            "noise"
        );
        assert!(
            !gate.opens(&picture(3, Some((60, 40)), 20), Seconds(0.2)),
            "light"
        );
        assert!(
            gate.opens(&picture(4, Some((64, 40)), 0), Seconds(0.3)),
            "a step of four pixels"
        );
        assert!(gate.opens(&picture(5, None, 0), Seconds(0.4)), "gone");
    }

    #[test]
    fn slow_motion_adds_up_and_the_gate_opens_regularly() {
        let mut gate = MotionGate::default();
        let opened = (0..10)
            .filter(|&i| {
                gate.opens(
                    &picture(i as u64, Some((60 + i, 40)), 0),
                    Seconds(0.1 * i as f64),
                )
            })
            .count();
        assert!((2..=10).contains(&opened), "{opened}");
        let mut gate = MotionGate::default();
        let opened: Vec<u32> = (0..50)
            .filter(|&i| gate.opens(&picture(u64::from(i), None, 0), Seconds(0.1 * f64::from(i))))
            .collect();
        assert_eq!(opened, [0, 20, 40]);
    }

    #[test]
    fn another_picture_size_opens_the_gate() {
        let mut gate = MotionGate::default();
        assert!(gate.opens(&picture(1, None, 0), Seconds(0.0)));
        assert!(gate.opens(
            &Image::packed(32, 32, vec![120; 3 * 32 * 32].into()),
            Seconds(0.1)
        ));
    }
}
