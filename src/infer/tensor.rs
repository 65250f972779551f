//! Writes pixels into tensors: scales and normalises them and separates the planes in one pass over
//! the bytes.

use ndarray::ArrayViewMut3;

use crate::frame::Image;
use crate::geometry::BBox;
use crate::infer::pixels::PixelFormat;

/// Linear interpolation along one axis: for each target position, the two neighbouring source
/// positions and the weight of the second.
struct Taps(Vec<(usize, usize, f32)>);

impl Taps {
    /// Weights for `count` targets over the source span [start, start + length), with positions
    /// clamped to 0..limit. Samples as OpenCV's INTER_LINEAR does, with pixel centres at .5.
    fn new(count: usize, start: f32, length: f32, limit: usize) -> Self {
        let step = length / count as f32;
        let last = (limit - 1) as f32;
        Taps(
            (0..count)
                .map(|i| {
                    let at = (start + (i as f32 + 0.5) * step - 0.5).clamp(0.0, last);
                    let low = at.floor();
                    (low as usize, (low as usize + 1).min(limit - 1), at - low)
                })
                .collect(),
        )
    }
}

/// Writes `image`, scaled to `width` by `height`, into the top left of the planes `out` [3, h, w]
/// and fills the rest with black.
///
/// # Panics
/// When `width` by `height` is larger than the planes.
pub fn write_scaled(
    image: &Image,
    width: usize,
    height: usize,
    format: &PixelFormat,
    out: ArrayViewMut3<'_, f32>,
) {
    let whole = BBox::new(0.0, 0.0, image.width as f32, image.height as f32);
    write_region(image, &whole, width, height, format, out);
}

/// Fills the planes `out` [3, h, w] with the part `region` of `image`. Outside the image its edge
/// pixels are repeated.
pub fn write_crop(image: &Image, region: &BBox, format: &PixelFormat, out: ArrayViewMut3<'_, f32>) {
    let (_, h, w) = out.dim();
    write_region(image, region, w, h, format, out);
}

fn write_region(
    image: &Image,
    region: &BBox,
    width: usize,
    height: usize,
    format: &PixelFormat,
    mut out: ArrayViewMut3<'_, f32>,
) {
    let (_, plane_height, plane_width) = out.dim();
    assert!(
        width <= plane_width && height <= plane_height,
        "{width}x{height} pixels do not fit planes of {plane_width}x{plane_height}"
    );
    let planes = format.planes();
    let columns = Taps::new(width, region.left, region.width, image.width as usize);
    let rows = Taps::new(height, region.top, region.height, image.height as usize);
    let first = columns.0.first().map_or(0, |t| t.0);
    let last = columns.0.last().map_or(0, |t| t.1);
    let unscaled = columns.0.iter().all(|t| t.2 == 0.0) && columns.0.len() == last - first + 1;
    let mut blended = vec![0.0f32; 3 * (last - first + 1)];
    for (y, &(y0, y1, share)) in rows.0.iter().enumerate() {
        // Interpolates between rows first, over the interleaved bytes, because the compiler
        // vectorises this loop best.
        let (upper, lower) = (
            &image.row(y0)[3 * first..3 * (last + 1)],
            &image.row(y1)[3 * first..3 * (last + 1)],
        );
        if share == 0.0 {
            blended
                .iter_mut()
                .zip(upper)
                .for_each(|(o, &u)| *o = f32::from(u));
        } else {
            blended
                .iter_mut()
                .zip(upper.iter().zip(lower))
                .for_each(|(o, (&u, &l))| {
                    *o = f32::from(u) + share * (f32::from(l) - f32::from(u))
                });
        }
        for (channel, &(plane, factor, offset)) in planes.iter().enumerate() {
            let mut line = out.slice_mut(ndarray::s![plane, y, ..width]);
            let line = line
                .as_slice_mut()
                .expect("the last axis of the planes is contiguous");
            if unscaled {
                line.iter_mut()
                    .zip(blended.chunks_exact(3))
                    .for_each(|(o, p)| *o = p[channel] * factor + offset);
            } else {
                for (o, &(x0, x1, share)) in line.iter_mut().zip(&columns.0) {
                    let (a, b) = (
                        blended[3 * (x0 - first) + channel],
                        blended[3 * (x1 - first) + channel],
                    );
                    *o = (a + share * (b - a)) * factor + offset;
                }
            }
        }
    }
    for &(plane, _, black) in &planes {
        out.slice_mut(ndarray::s![plane, ..height, width..])
            .fill(black);
        out.slice_mut(ndarray::s![plane, height.., ..]).fill(black);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infer::pixels::ColorOrder;
    use ndarray::Array3;

    /// 4x2 pixels, blue = 10 x, green = 100 + y, red = 200.
    fn picture() -> Image {
        let data: Vec<u8> = (0..2u8)
            .flat_map(|y| (0..4u8).flat_map(move |x| [10 * x, 100 + y, 200]))
            .collect();
        Image::packed(4, 2, data.into())
    }

    #[test]
    fn an_unscaled_picture_keeps_its_values() {
        let mut out = Array3::from_elem((3, 2, 4), -1.0);
        write_scaled(&picture(), 4, 2, &PixelFormat::BYTES_BGR, out.view_mut());
        assert_eq!(out[[0, 1, 3]], 30.0);
        assert_eq!(out[[1, 1, 0]], 101.0);
        assert_eq!(out[[2, 0, 0]], 200.0);
    }

    #[test]
    fn rgb_format_puts_normalised_red_first() {
        let format = PixelFormat {
            color: ColorOrder::Rgb,
            mean: [100.0, 0.0, 0.0],
            std: [50.0, 1.0, 1.0],
        };
        let mut out = Array3::zeros((3, 2, 4));
        write_scaled(&picture(), 4, 2, &format, out.view_mut());
        assert_eq!(out[[0, 0, 0]], 2.0);
        assert_eq!(out[[2, 0, 2]], 20.0);
    }

    #[test]
    fn the_rest_of_the_planes_is_black() {
        let format = PixelFormat {
            color: ColorOrder::Bgr,
            mean: [50.0; 3],
            std: [10.0; 3],
        };
        let mut out = Array3::zeros((3, 4, 6));
        write_scaled(&picture(), 4, 2, &format, out.view_mut());
        assert_eq!(out[[1, 3, 0]], -5.0);
        assert_eq!(out[[1, 0, 5]], -5.0);
    }

    #[test]
    fn scaling_by_two_interpolates_between_pixel_centres() {
        let mut out = Array3::zeros((3, 4, 8));
        write_scaled(&picture(), 8, 4, &PixelFormat::BYTES_BGR, out.view_mut());
        let blue: Vec<f32> = out.slice(ndarray::s![0, 0, ..]).to_vec();
        assert_eq!(blue, [0.0, 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 30.0]);
    }

    #[test]
    fn a_crop_beyond_the_edge_repeats_the_edge() {
        let mut out = Array3::zeros((3, 2, 4));
        write_crop(
            &picture(),
            &BBox::new(2.0, 0.0, 4.0, 2.0),
            &PixelFormat::BYTES_BGR,
            out.view_mut(),
        );
        assert_eq!(
            out.slice(ndarray::s![0, 0, ..]).to_vec(),
            [20.0, 30.0, 30.0, 30.0]
        );
    }
}
