//! Camera motion between two frames, estimated from the pixels: sparse optical flow (Lucas and
//! Kanade 1981, pyramidal by Bouguet) tracks corners on scaled-down frames, and a similarity
//! transform is fitted robustly to their displacements.

use opencv::core::{
    Mat, MatTraitConst, Point2f, Size, TermCriteria, TermCriteria_COUNT, TermCriteria_EPS, Vector,
};
use opencv::{imgproc, video};

use crate::frame::Image;
use crate::geometry::Affine;
use crate::time::Seconds;
use crate::track::camera_motion::{self, PointPair};

/// Width in pixels to which frames are scaled.
const WIDTH: i32 = 256;
/// Maximum number of corners that are tracked.
const CORNERS: i32 = 80;
/// A camera motion of at most this, in pixels of the scaled frame, is ignored.
const STILL: f32 = 0.2;
/// Time without camera motion after which the estimation becomes idle.
const IDLE_AFTER: Seconds = Seconds(2.0);
/// Interval between comparisons while idle.
const IDLE_INTERVAL: Seconds = Seconds(1.0);

/// Estimates the motion of one camera. While the camera does not move the estimator is idle: to
/// save time it compares one pair of frames per second, until a pair shows motion.
#[derive(Default)]
pub struct CameraFlow {
    /// The previous frame, scaled and grey; None if the next frame need not be compared with it.
    before: Option<Mat>,
    moved_at: Option<Seconds>,
    compared_at: Option<Seconds>,
    /// Number of pairs of frames compared so far.
    compared: u64,
}

impl CameraFlow {
    /// The transform from the previous frame to this one, in pixels of the full frame. None if the
    /// camera does not move, its motion cannot be estimated, or this frame is not compared with the
    /// previous one (the first frame, and most frames while idle).
    ///
    /// # Errors
    /// When OpenCV fails.
    pub fn next(&mut self, image: &Image, pts: Seconds) -> Result<Option<Affine>, opencv::Error> {
        let moved_at = *self.moved_at.get_or_insert(pts);
        let idle = (pts - moved_at).0 > IDLE_AFTER.0;
        let due = self
            .compared_at
            .is_none_or(|at| (pts - at).0 >= IDLE_INTERVAL.0);
        if idle && self.before.is_none() && !due {
            return Ok(None);
        }
        let (grey, scale) = small_grey(image)?;
        let motion = match &self.before {
            Some(before) => {
                self.compared += 1;
                self.compared_at = Some(pts);
                between(before, &grey)?
            }
            None => None,
        };
        let moves = motion.is_some_and(|m| {
            m.shift[0].hypot(m.shift[1]) > STILL
                || (m.scale() - 1.0).abs() * WIDTH as f32 / 2.0 > STILL
        });
        if moves {
            self.moved_at = Some(pts);
        }
        // While idle, no frame is kept between one comparison and the next.
        let keep = !idle || moves || self.before.is_none();
        self.before = keep.then_some(grey);
        Ok(motion.filter(|_| moves).map(|m| Affine {
            shift: m.shift.map(|v| v * scale),
            ..m
        }))
    }

    /// Number of pairs of frames compared so far.
    pub fn compared(&self) -> u64 {
        self.compared
    }
}

/// Scales an image down to [`WIDTH`] and converts it to grey. Also returns the scale: pixels of the
/// image per pixel of the result.
fn small_grey(image: &Image) -> Result<(Mat, f32), opencv::Error> {
    let bytes =
        &image.data[..image.stride * (image.height as usize - 1) + 3 * image.width as usize];
    let packed: std::borrow::Cow<'_, [u8]> = if image.stride == 3 * image.width as usize {
        bytes.into()
    } else {
        let rows: Vec<&[u8]> = (0..image.height as usize).map(|y| image.row(y)).collect();
        rows.concat().into()
    };
    let flat = Mat::from_slice(&packed)?;
    let full = flat.reshape(3, image.height as i32)?;
    let scale = (image.width as f32 / WIDTH as f32).max(1.0);
    let size = Size::new(
        (image.width as f32 / scale).round() as i32,
        (image.height as f32 / scale).round() as i32,
    );
    let (mut small, mut grey) = (Mat::default(), Mat::default());
    imgproc::resize(&full, &mut small, size, 0.0, 0.0, imgproc::INTER_AREA)?;
    imgproc::cvt_color(&small, &mut grey, imgproc::COLOR_BGR2GRAY, 0)?;
    Ok((grey, scale))
}

/// The motion between two scaled frames; None if it cannot be estimated.
fn between(before: &Mat, now: &Mat) -> Result<Option<Affine>, opencv::Error> {
    if before.size()? != now.size()? {
        return Ok(None); // the resolution of the stream has changed
    }
    let mut corners: Vector<Point2f> = Vector::new();
    imgproc::good_features_to_track(
        before,
        &mut corners,
        CORNERS,
        0.01,
        7.0,
        &Mat::default(),
        3,
        false,
        0.04,
    )?;
    if corners.len() < 8 {
        return Ok(None);
    }
    let (mut found, mut status, mut error) = (
        Vector::<Point2f>::new(),
        Vector::<u8>::new(),
        Vector::<f32>::new(),
    );
    let stop = TermCriteria::new(TermCriteria_COUNT + TermCriteria_EPS, 20, 0.03)?;
    video::calc_optical_flow_pyr_lk(
        before,
        now,
        &corners,
        &mut found,
        &mut status,
        &mut error,
        Size::new(11, 11),
        3,
        stop,
        0,
        1e-4,
    )?;
    let followed = corners
        .iter()
        .zip(&found)
        .zip(&status)
        .filter(|(_, ok)| *ok == 1);
    let pairs: Vec<PointPair> = followed
        .map(|((a, b), _)| ([a.x, a.y], [b.x, b.y]))
        .collect();
    Ok(camera_motion::fit_similarity(&pairs))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A window of 640 x 480 pixels at (x, y) of a textured image.
    fn window(x: usize, y: usize) -> Image {
        let (w, h) = (640usize, 480usize);
        let noise = |x: usize, y: usize| {
            let cell = (x / 16)
                .wrapping_mul(2_654_435_761)
                .wrapping_add((y / 16).wrapping_mul(40_503)) as u32;
            ((cell ^ (cell >> 13)).wrapping_mul(0x5bd1_e995) >> 24) as u8
        };
        let data: Vec<u8> = (0..h)
            .flat_map(|r| (0..w).flat_map(move |c| [noise(c + x, r + y); 3]))
            .collect();
        Image::packed(w as u32, h as u32, data.into())
    }

    #[test]
    fn a_pan_is_estimated_in_pixels_of_the_full_frame() {
        let mut flow = CameraFlow::default();
        assert_eq!(
            flow.next(&window(100, 100), Seconds(0.0)).expect("runs"),
            None,
            "one frame has no motion"
        );
        let map = flow
            .next(&window(110, 96), Seconds(0.1))
            .expect("runs")
            .expect("the camera moved");
        assert!(
            (map.shift[0] + 10.0).abs() < 0.6 && (map.shift[1] - 4.0).abs() < 0.6,
            "{map:?}"
        );
        assert!((map.scale() - 1.0).abs() < 0.01);
    }

    #[test]
    fn a_still_camera_is_compared_rarely_and_its_motion_is_noticed() {
        let mut flow = CameraFlow::default();
        for i in 0..200 {
            assert_eq!(
                flow.next(&window(100, 100), Seconds(f64::from(i) * 0.05))
                    .expect("runs"),
                None
            );
        }
        assert!(
            flow.compared() < 60,
            "{} of 200 frames compared",
            flow.compared()
        );
        let woken = (0..60)
            .filter(|&i| {
                flow.next(&window(100 + 4 * i, 100), Seconds(10.0 + i as f64 * 0.05))
                    .expect("runs")
                    .is_some()
            })
            .count();
        assert!(woken > 35, "only {woken} of 60 moves noticed");
    }
}
