//! The tower of the Siamese network. Both twins are this one set of parameters: a batch holds all pictures of all pairs.
//!
//! It looks at a person in two ways and adds what they say. *Colour*: which colours are worn at which height
//! ([`crate::train::colour`]), of which a linear map learns what matters. *Texture*: a convolutional network ([`crate::train::body`]), averaged over each stripe.
//! The linear map of the texture starts at zero, so that training starts from the colours and adds to them.

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::{Initializer, Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::module::avg_pool2d;
use burn::tensor::{FloatDType, Tensor, TensorData};
use ndarray::Array2;

use crate::train::body::{Body, Network, STRIDE};
use crate::train::colour::{self, COLOURS, STRIPES};
use crate::train::dataset::TrainError;
use crate::train::kernels::backend::{Kernels, cast};
use crate::train::onnx::{Attribute, Graph};

fn constant<B: Backend, const D: usize>(values: &[f32], shape: [usize; D], device: &B::Device) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
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

    /// Embeds crops, given their colour layouts [n, 432] too: those have no weights, so the loader makes them. The body works in
    /// the precision of the crops.
    pub fn forward(&self, crops: Tensor<B, 4>, colours: Tensor<B, 2>) -> Tensor<B, 2>
    where
        B: Kernels,
    {
        let map = cast(self.body.forward(crops), FloatDType::F32);
        let [n, c, h, w] = map.dims();
        let pool = [h / STRIPES, w];
        let stripes = avg_pool2d(map, pool, pool, [0, 0], false, false).reshape([n, c * STRIPES]);
        normalise(self.colour.forward(colours) + self.texture.forward(stripes))
    }

    /// Lets the texture count as much as an untaught one can.
    #[cfg(test)]
    pub(super) fn excite(&mut self, device: &B::Device) {
        self.texture = LinearConfig::new(self.body.channels() * STRIPES, self.dimension()).with_bias(false).init(device);
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
        let colours = colour::export(g, self.size());
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
