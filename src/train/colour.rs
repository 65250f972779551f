//! The colour layout: a histogram of lightness and hue with soft votes in eight horizontal stripes,
//! as in `scripts/build_colour_layout.py` (similar to Farenzena et al. 2010). It has no trained
//! weights. This module computes it and adds it to ONNX graphs.

use ndarray::{Array2, Array4, ArrayView3, Axis};

use crate::train::onnx::{Attribute, Graph};

pub(super) const STRIPES: usize = 8;
const LIGHTNESS: [f32; 6] = [0.1, 0.27, 0.44, 0.61, 0.78, 0.95];
const LIGHTNESS_WIDTH: f32 = 0.11;
const HUES: usize = 8;
const BINS: usize = HUES + 1;
const SATURATION: f32 = 0.09;
const CHROMA_WIDTH: f32 = 0.035;
/// Standard deviation of the columns' Gaussian weights, in crop widths. Columns at the edges have
/// low weights, because they show the background.
const COLUMN_WIDTH: f32 = 0.22;
/// Dimension of the colour layout: stripes x lightness bins x hue bins.
pub const COLOURS: usize = STRIPES * LIGHTNESS.len() * BINS;

/// Matrix from red, green, blue to luma (BT.601), from which the lightness is computed, red minus
/// green, yellow minus blue.
const OPPONENT: [[f32; 3]; 3] = [[0.299, 0.587, 0.114], [0.7, -0.7, 0.0], [0.3, 0.3, -0.6]];

/// Centres of the hue bins in the plane of the two opponent colours: grey, then points on a circle.
fn hue_centres() -> [Vec<f32>; 2] {
    let angle = |i: usize| 2.0 * std::f32::consts::PI * i as f32 / HUES as f32;
    let on = |f: fn(f32) -> f32| {
        std::iter::once(0.0)
            .chain((0..HUES).map(|i| SATURATION * f(angle(i))))
            .collect()
    };
    [on(f32::cos), on(f32::sin)]
}

/// Weights of the columns of the half-size crop; the weights of all pixels of a stripe add up to 1.
fn column(h: usize, w: usize) -> Vec<f32> {
    let raw: Vec<f32> = (0..w)
        .map(|x| {
            (-0.5 * ((x as f32 - (w as f32 - 1.0) / 2.0) / (w as f32 * COLUMN_WIDTH)).powi(2)).exp()
        })
        .collect();
    let sum: f32 = raw.iter().sum::<f32>() * (h / STRIPES) as f32;
    raw.into_iter().map(|v| v / sum).collect()
}

/// A vote counts as zero if the logarithm of its ratio to the largest vote is below this (a ratio
/// of about 1e-8).
const FAINT: f32 = -18.5;

/// The votes for the bins, whose sum is 1: the softmax of `-halves`, where `halves` are half the
/// squared distances to the bins' centres in standard deviations.
fn vote<const N: usize>(halves: [f32; N]) -> [f32; N] {
    let least = halves.iter().copied().fold(f32::INFINITY, f32::min);
    let votes = halves.map(|h| {
        if least - h < FAINT {
            0.0
        } else {
            (least - h).exp()
        }
    });
    let sum: f32 = votes.iter().sum();
    votes.map(|v| v / sum)
}

/// Computes the colour layout of a crop [3, h, w] (RGB in [0, 1]), of unit length.
pub fn layout(crop: ArrayView3<'_, f32>, out: &mut [f32]) {
    let (_, height, width) = crop.dim();
    let (h, w) = (height / 2, width / 2);
    let (columns, [first, second]) = (column(h, w), hue_centres());
    out.fill(0.0);
    for y in 0..h {
        let stripe = &mut out[y * STRIPES / h * LIGHTNESS.len() * BINS..][..LIGHTNESS.len() * BINS];
        for x in 0..w {
            let pixel: [f32; 3] = std::array::from_fn(|c| {
                let at = |dy: usize, dx: usize| crop[[c, 2 * y + dy, 2 * x + dx]];
                (at(0, 0) + at(0, 1) + at(1, 0) + at(1, 1)) / 4.0
            });
            let [light, a, b] =
                OPPONENT.map(|row| row.iter().zip(pixel).map(|(r, p)| r * p).sum::<f32>());
            let scale = 0.35 / (light + 0.15);
            let light = (light + 0.05).ln() / 3.0 + 1.0;
            let half = |d: f32, width: f32| d / (2.0 * width * width);
            let lightness =
                vote(LIGHTNESS.map(|centre| half((light - centre).powi(2), LIGHTNESS_WIDTH)));
            let hue: [f32; BINS] = vote(std::array::from_fn(|k| {
                half(
                    (a * scale - first[k]).powi(2) + (b * scale - second[k]).powi(2),
                    CHROMA_WIDTH,
                )
            }));
            for (row, vote) in stripe.chunks_exact_mut(BINS).zip(lightness) {
                row.iter_mut()
                    .zip(hue)
                    .for_each(|(o, hue)| *o += vote * columns[x] * hue);
            }
        }
    }
    out.iter_mut().for_each(|v| *v = (*v + 1e-8).sqrt());
    let length = out.iter().map(|v| v * v).sum::<f32>().sqrt();
    out.iter_mut().for_each(|v| *v /= length);
}

/// Computes the colour layouts, [n, 432], of crops [n, 3, h, w].
pub fn layouts(crops: &Array4<f32>) -> Array2<f32> {
    let mut out = Array2::zeros((crops.len_of(Axis(0)), COLOURS));
    out.rows_mut()
        .into_iter()
        .zip(crops.outer_iter())
        .for_each(|(mut row, crop)| layout(crop, row.as_slice_mut().expect("rows of a new array")));
    out
}

/// Adds the colour layout of the value `crops` to the graph; returns its output.
pub fn export(g: &mut Graph, (height, width): (usize, usize)) -> String {
    let two = |v: i64| Attribute::Ints(vec![v; 2]);
    let small = g.node(
        "AveragePool",
        &["crops"],
        "small",
        &[("kernel_shape", two(2)), ("strides", two(2))],
    );
    let opponent = g.constant("opponent", &[3, 3, 1, 1], OPPONENT.as_flattened());
    let channels = g.node(
        "Conv",
        &[&small, &opponent],
        "channels",
        &[("kernel_shape", two(1))],
    );
    let ones = g.integers("ones", &[1, 1, 1]);
    g.node_of(
        "Split",
        &[&channels, &ones],
        &["y", "a", "b"],
        &[("axis", Attribute::Int(1))],
    );
    let scalar = |g: &mut Graph, name: &str, v: f32| g.constant(name, &[1], &[v]);
    let with = |g: &mut Graph, op: &str, input: &str, name: &str, v: f32| {
        let c = scalar(g, &format!("{name}.value"), v);
        g.node(op, &[input, &c], name, &[])
    };
    let dark = with(g, "Add", "y", "y_dark", 0.05);
    let log = g.node("Log", &[&dark], "log_y", &[]);
    let third = with(g, "Div", &log, "log_third", 3.0);
    let light = with(g, "Add", &third, "light", 1.0);
    let floor = with(g, "Add", "y", "y_floor", 0.15);
    let recip = g.node("Reciprocal", &[&floor], "y_recip", &[]);
    let scale = with(g, "Mul", &recip, "scale", 0.35);
    let squared = |g: &mut Graph, input: &str, name: &str, centres: &[f32]| {
        let c = g.constant(
            &format!("{name}.centres"),
            &[1, centres.len(), 1, 1],
            centres,
        );
        let off = g.node("Sub", &[input, &c], &format!("{name}.off"), &[]);
        g.node("Mul", &[&off, &off], &format!("{name}.squared"), &[])
    };
    let vote = |g: &mut Graph, d: &str, name: &str, width: f32| {
        let scaled = with(
            g,
            "Mul",
            d,
            &format!("{name}.scaled"),
            -0.5 / (width * width),
        );
        g.node("Softmax", &[&scaled], name, &[("axis", Attribute::Int(1))])
    };
    let light = squared(g, &light, "lightness", &LIGHTNESS);
    let lightness = vote(g, &light, "lightness_votes", LIGHTNESS_WIDTH);
    let column = g.constant(
        "column",
        &[1, 1, 1, width / 2],
        &column(height / 2, width / 2),
    );
    let weighted = g.node("Mul", &[&lightness, &column], "weighted", &[]);
    let distances: Vec<String> = ["a", "b"]
        .iter()
        .zip(hue_centres())
        .map(|(c, centres)| {
            let relative = g.node("Mul", &[c, &scale], &format!("{c}_relative"), &[]);
            squared(g, &relative, &format!("chroma_{c}"), &centres)
        })
        .collect();
    let distance = g.node(
        "Add",
        &[&distances[0], &distances[1]],
        "chroma_distance",
        &[],
    );
    let hue = vote(g, &distance, "hue_votes", CHROMA_WIDTH);
    let stripes = |g: &mut Graph, input: &str, bins: usize, order: [i64; 4], name: &str| {
        let shape = g.integers(
            &format!("{name}.shape"),
            &[
                0,
                bins as i64,
                STRIPES as i64,
                (height / 2 / STRIPES * width / 2) as i64,
            ],
        );
        let cut = g.node("Reshape", &[input, &shape], &format!("{name}.cut"), &[]);
        g.node(
            "Transpose",
            &[&cut],
            name,
            &[("perm", Attribute::Ints(order.to_vec()))],
        )
    };
    let lightness = stripes(
        g,
        &weighted,
        LIGHTNESS.len(),
        [0, 2, 1, 3],
        "lightness_stripes",
    );
    let hue = stripes(g, &hue, BINS, [0, 2, 3, 1], "hue_stripes");
    let joint = g.node("MatMul", &[&lightness, &hue], "joint", &[]);
    let tiny = with(g, "Add", &joint, "joint_tiny", 1e-8);
    let root = g.node("Sqrt", &[&tiny], "root", &[]);
    let flat = g.node("Flatten", &[&root], "colour_flat", &[]);
    g.node(
        "LpNormalization",
        &[&flat],
        "colour_layout",
        &[("axis", Attribute::Int(1)), ("p", Attribute::Int(2))],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(rgb: [f32; 3]) -> Array2<f32> {
        layouts(&Array4::from_shape_fn((1, 3, 128, 64), |(_, c, _, _)| {
            rgb[c]
        }))
    }

    #[test]
    fn a_plain_colour_fills_the_same_bin_of_every_stripe() {
        let red = plain([0.8, 0.1, 0.1]);
        assert_eq!(red.dim(), (1, COLOURS));
        assert!((red.dot(&red.t())[[0, 0]] - 1.0).abs() < 1e-5);
        let per_stripe = COLOURS / STRIPES;
        let best = |stripe: usize| {
            (0..per_stripe).max_by(|&a, &b| {
                red[[0, stripe * per_stripe + a]].total_cmp(&red[[0, stripe * per_stripe + b]])
            })
        };
        assert!((1..STRIPES).all(|s| best(s) == best(0)));
        // Grey is the first hue bin.
        let grey = plain([0.5; 3]);
        let heaviest = (0..per_stripe)
            .max_by(|&a, &b| grey[[0, a]].total_cmp(&grey[[0, b]]))
            .expect("bins");
        assert_eq!(heaviest % BINS, 0);
        let cos = |a: &Array2<f32>, b: &Array2<f32>| a.dot(&b.t())[[0, 0]];
        assert!(
            cos(&red, &plain([0.75, 0.12, 0.1])) > 0.9 && cos(&red, &grey) < 0.3,
            "{} {}",
            cos(&red, &plain([0.75, 0.12, 0.1])),
            cos(&red, &grey)
        );
    }
}
