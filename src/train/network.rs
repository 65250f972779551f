//! The tower of the Siamese network. Both twins are this one set of parameters: a batch holds all pictures of all pairs.
//!
//! It looks at a person in two ways and adds what they say. *Colour*: which colours are worn at which height, the
//! layout of `scripts/build_colour_layout.py` (soft votes for lightness and hue in eight stripes; Farenzena et al. 2010 stand on
//! the same idea), of which a linear map learns what matters. *Texture*: a convolutional network ([`crate::train::body`]), averaged over each stripe.
//! The linear map of the texture starts at zero, so that training starts from the colours and adds to them.

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::module::avg_pool2d;
use burn::tensor::{Tensor, TensorData, activation};
use ndarray::Array2;

use crate::train::body::{Body, Network, STRIDE};
use crate::train::dataset::TrainError;
use crate::train::onnx::{Attribute, Graph};

const STRIPES: usize = 8;
const LIGHTNESS: [f32; 6] = [0.1, 0.27, 0.44, 0.61, 0.78, 0.95];
const LIGHTNESS_WIDTH: f32 = 0.11;
const HUES: usize = 8;
const BINS: usize = HUES + 1;
const SATURATION: f32 = 0.09;
const CHROMA_WIDTH: f32 = 0.035;
/// Standard deviation of the weight of a column, crop widths: the edges show the background.
const COLUMN_WIDTH: f32 = 0.22;
/// Length of the colour layout: stripes x lightness x hue.
pub const COLOURS: usize = STRIPES * LIGHTNESS.len() * BINS;

/// Lightness (BT.601), red against green, yellow against blue, of red, green and blue.
const OPPONENT: [[f32; 3]; 3] = [[0.299, 0.587, 0.114], [0.7, -0.7, 0.0], [0.3, 0.3, -0.6]];

/// Centres of the hue bins in the plane of the two opponent colours: grey, then a circle.
fn hue_centres() -> [Vec<f32>; 2] {
    let angle = |i: usize| 2.0 * std::f32::consts::PI * i as f32 / HUES as f32;
    let on = |f: fn(f32) -> f32| std::iter::once(0.0).chain((0..HUES).map(|i| SATURATION * f(angle(i)))).collect();
    [on(f32::cos), on(f32::sin)]
}

/// The weight of each column of the halved crop; over a stripe all weights sum to one.
fn column(h: usize, w: usize) -> Vec<f32> {
    let raw: Vec<f32> = (0..w).map(|x| (-0.5 * ((x as f32 - (w as f32 - 1.0) / 2.0) / (w as f32 * COLUMN_WIDTH)).powi(2)).exp()).collect();
    let sum: f32 = raw.iter().sum::<f32>() * (h / STRIPES) as f32;
    raw.into_iter().map(|v| v / sum).collect()
}

fn constant<B: Backend, const D: usize>(values: &[f32], shape: [usize; D], device: &B::Device) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// The colour layout of crops [n, 3, h, w] (RGB in [0, 1]): [n, 432], of unit length.
pub fn colour_layout<B: Backend>(crops: Tensor<B, 4>) -> Tensor<B, 2> {
    let (device, [n, _, h, w]) = (crops.device(), crops.dims());
    let small = avg_pool2d(crops, [2, 2], [2, 2], [0, 0], false, false);
    let (h, w) = (h / 2, w / 2);
    let channel = |row: [f32; 3]| (small.clone() * constant(&row, [1, 3, 1, 1], &device)).sum_dim(1);
    let [y, a, b] = OPPONENT.map(channel);
    let light = (y.clone() + 0.05).log() / 3.0 + 1.0;
    let scale = (y + 0.15).recip() * 0.35;
    let squared = |v: Tensor<B, 4>, centres: &[f32]| (v - constant(centres, [1, centres.len(), 1, 1], &device)).powi_scalar(2);
    // A softmax over -d^2 / 2s^2 shares each pixel among the bins as Gaussians of equal height would.
    let vote = |d: Tensor<B, 4>, width: f32| activation::softmax(d * (-0.5 / (width * width)), 1);
    let lightness = vote(squared(light, &LIGHTNESS), LIGHTNESS_WIDTH) * constant(&column(h, w), [1, 1, 1, w], &device);
    let [first, second] = hue_centres();
    let hue = vote(squared(a * scale.clone(), &first) + squared(b * scale, &second), CHROMA_WIDTH);
    let stripe = h / STRIPES * w;
    let lightness = lightness.reshape([n, LIGHTNESS.len(), STRIPES, stripe]).swap_dims(1, 2);
    let hue = hue.reshape([n, BINS, STRIPES, stripe]).swap_dims(1, 2).swap_dims(2, 3);
    normalise((lightness.matmul(hue) + 1e-8).sqrt().reshape([n, COLOURS]))
}

/// Rows of unit length.
pub fn normalise<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    let length = (x.clone().powi_scalar(2).sum_dim(1) + 1e-12).sqrt();
    x / length
}

/// The tower: crops [n, 3, h, w] (RGB in [0, 1]) to unit vectors [n, d].
#[derive(Module, Debug)]
pub struct Tower<B: Backend> {
    body: Body<B>,
    colour: Linear<B>,
    texture: Linear<B>,
    height: usize,
}

impl<B: Backend> Tower<B> {
    /// A new tower with embeddings of length `dimension` of crops `height` high and half as wide. `colours` [samples, 432]
    /// are colour layouts of the people it will learn from: the colour map starts as their principal components, which keep
    /// the most of their differences.
    pub fn new(network: Network, height: usize, dimension: usize, colours: &Array2<f32>, device: &B::Device) -> Self {
        let body = Body::new(network, device);
        let mut colour = LinearConfig::new(COLOURS, dimension).init(device);
        let (axes, mean) = principal_components(colours, dimension);
        let offset = -mean.dot(&axes);
        colour.weight = Param::from_tensor(constant(&axes.iter().copied().collect::<Vec<_>>(), [COLOURS, dimension], device));
        colour.bias = Some(Param::from_tensor(constant(&offset.to_vec(), [dimension], device)));
        let texture = LinearConfig::new(body.channels() * STRIPES, dimension).with_bias(false).with_initializer(Initializer::Zeros).init(device);
        Tower { body, colour, texture, height }
    }

    /// Starts the body from an ONNX file of ImageNet weights.
    ///
    /// # Errors
    /// When the file does not fit, or the network is not `mobile`.
    pub fn load(&mut self, path: &Path, device: &B::Device) -> Result<(), TrainError> {
        match &mut self.body {
            Body::Mobile(m) => m.load(path, device),
            _ => Err(TrainError::Setting("train.start_from: only the network 'mobile' starts from a file".into())),
        }
    }

    /// Embeds crops.
    pub fn forward(&self, crops: Tensor<B, 4>) -> Tensor<B, 2> {
        let colours = colour_layout(crops.clone());
        let map = self.body.forward(crops);
        let [n, c, h, w] = map.dims();
        let pool = [h / STRIPES, w];
        let stripes = avg_pool2d(map, pool, pool, [0, 0], false, false).reshape([n, c * STRIPES]);
        normalise(self.colour.forward(colours) + self.texture.forward(stripes))
    }

    /// Length of an embedding.
    pub fn dimension(&self) -> usize {
        self.colour.weight.dims()[1]
    }

    /// Size of a crop: height, width.
    pub fn size(&self) -> (usize, usize) {
        (self.height, self.height / 2)
    }

    /// Writes the tower as a graph from `crops` to `embedding`, normalisation folded and the L2 norm as its last node.
    pub fn export(&self, g: &mut Graph) {
        // The body first: another may start from its convolutions, in their order.
        let map = self.body.export(g);
        let colours = export_colours(g, self.size());
        let (h, w) = self.size();
        let pool = || Attribute::Ints(vec![(h / STRIDE / STRIPES) as i64, (w / STRIDE) as i64]);
        let mean = g.node("AveragePool", &[&map], "stripe_means", &[("kernel_shape", pool()), ("strides", pool())]);
        let flat = g.node("Flatten", &[&mean], "texture_flat", &[]);
        let (colour, texture) = (export_linear(g, &self.colour, &colours, "colour"), export_linear(g, &self.texture, &flat, "texture"));
        let sum = g.node("Add", &[&colour, &texture], "sum", &[]);
        g.node("LpNormalization", &[&sum], "embedding", &[("axis", Attribute::Int(1)), ("p", Attribute::Int(2))]);
    }
}

/// Writes a linear map; returns its output.
pub(super) fn export_linear<B: Backend>(g: &mut Graph, l: &Linear<B>, input: &str, name: &str) -> String {
    let w = l.weight.val().into_data().convert::<f32>().to_vec::<f32>().expect("float32 was asked for");
    let w = g.constant(&format!("{name}.weight"), &l.weight.dims(), &w);
    let Some(bias) = &l.bias else { return g.node("MatMul", &[input, &w], name, &[]) };
    let b = bias.val().into_data().convert::<f32>().to_vec::<f32>().expect("float32 was asked for");
    let b = g.constant(&format!("{name}.bias"), &bias.dims(), &b);
    g.node("Gemm", &[input, &w, &b], name, &[])
}

/// `colour_layout` as ONNX nodes; returns the name of its output.
fn export_colours(g: &mut Graph, (height, width): (usize, usize)) -> String {
    let two = |v: i64| Attribute::Ints(vec![v; 2]);
    let small = g.node("AveragePool", &["crops"], "small", &[("kernel_shape", two(2)), ("strides", two(2))]);
    let opponent = g.constant("opponent", &[3, 3, 1, 1], OPPONENT.as_flattened());
    let channels = g.node("Conv", &[&small, &opponent], "channels", &[("kernel_shape", two(1))]);
    let ones = g.integers("ones", &[1, 1, 1]);
    g.node_of("Split", &[&channels, &ones], &["y", "a", "b"], &[("axis", Attribute::Int(1))]);
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
        let c = g.constant(&format!("{name}.centres"), &[1, centres.len(), 1, 1], centres);
        let off = g.node("Sub", &[input, &c], &format!("{name}.off"), &[]);
        g.node("Mul", &[&off, &off], &format!("{name}.squared"), &[])
    };
    let vote = |g: &mut Graph, d: &str, name: &str, width: f32| {
        let scaled = with(g, "Mul", d, &format!("{name}.scaled"), -0.5 / (width * width));
        g.node("Softmax", &[&scaled], name, &[("axis", Attribute::Int(1))])
    };
    let light = squared(g, &light, "lightness", &LIGHTNESS);
    let lightness = vote(g, &light, "lightness_votes", LIGHTNESS_WIDTH);
    let column = g.constant("column", &[1, 1, 1, width / 2], &column(height / 2, width / 2));
    let weighted = g.node("Mul", &[&lightness, &column], "weighted", &[]);
    let distances: Vec<String> = ["a", "b"]
        .iter()
        .zip(hue_centres())
        .map(|(c, centres)| {
            let relative = g.node("Mul", &[c, &scale], &format!("{c}_relative"), &[]);
            squared(g, &relative, &format!("chroma_{c}"), &centres)
        })
        .collect();
    let distance = g.node("Add", &[&distances[0], &distances[1]], "chroma_distance", &[]);
    let hue = vote(g, &distance, "hue_votes", CHROMA_WIDTH);
    let stripes = |g: &mut Graph, input: &str, bins: usize, order: [i64; 4], name: &str| {
        let shape = g.integers(&format!("{name}.shape"), &[0, bins as i64, STRIPES as i64, (height / 2 / STRIPES * width / 2) as i64]);
        let cut = g.node("Reshape", &[input, &shape], &format!("{name}.cut"), &[]);
        g.node("Transpose", &[&cut], name, &[("perm", Attribute::Ints(order.to_vec()))])
    };
    let lightness = stripes(g, &weighted, LIGHTNESS.len(), [0, 2, 1, 3], "lightness_stripes");
    let hue = stripes(g, &hue, BINS, [0, 2, 3, 1], "hue_stripes");
    let joint = g.node("MatMul", &[&lightness, &hue], "joint", &[]);
    let tiny = with(g, "Add", &joint, "joint_tiny", 1e-8);
    let root = g.node("Sqrt", &[&tiny], "root", &[]);
    let flat = g.node("Flatten", &[&root], "colour_flat", &[]);
    g.node("LpNormalization", &[&flat], "colour_layout", &[("axis", Attribute::Int(1)), ("p", Attribute::Int(2))])
}

/// The `count` axes [features, count] along which the rows vary most, and the mean row.
fn principal_components(rows: &Array2<f32>, count: usize) -> (Array2<f32>, ndarray::Array1<f32>) {
    let mean = rows.mean_axis(ndarray::Axis(0)).unwrap_or_else(|| ndarray::Array1::zeros(rows.ncols()));
    let centred = rows - &mean;
    let covariance = centred.t().dot(&centred);
    let n = rows.ncols();
    let eigen = nalgebra::SymmetricEigen::new(nalgebra::DMatrix::from_fn(n, n, |i, j| f64::from(covariance[[i, j]])));
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    (Array2::from_shape_fn((n, count), |(i, k)| eigen.eigenvectors[(i, order[k])] as f32), mean)
}
