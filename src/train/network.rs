//! The tower of the Siamese network. Both branches are the same tower, so a batch holds the
//! pictures of all pairs.
//!
//! A convolutional network ([`crate::train::body`]) maps a crop to feature maps, and a
//! [`TowerHead`] maps these to a vector. If [`Design::colours`] is set, a linear map of the colour
//! layout ([`crate::train::colour`]) is added, and the head is initialised with zero, so that
//! training starts from the colours alone.

mod head;
mod neck;

use std::path::Path;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::backend::Backend;
use burn::tensor::{FloatDType, Tensor, TensorData};
use ndarray::{Array2, Array4, Axis};
use serde::{Deserialize, Serialize};

use crate::infer::{ColorOrder, PixelFormat};
use crate::onnx::graph::encode_graph;
use crate::train::body::{Body, Network};
use crate::train::colour::{self, COLOURS};
use crate::train::error::TrainError;
use crate::train::graph::network::{GraphNetwork, GraphOutputs};
use crate::train::graph::plan::Plan;
use crate::train::graph::write;
use crate::train::kernels::backend::{Kernels, cast};
use crate::train::network::neck::Neck;
use crate::train::onnx::{Attribute, Graph};
use crate::train::tensors::{MapSize, export_linear, normalise};

pub use self::head::{ReadOut, TowerHead};

/// Added to the variance of a channel before division by the standard deviation (pixels in [0, 1]),
/// so that a uniform crop stays uniform.
const EPSILON: f32 = 1.0 / (255.0 * 255.0);

fn constant<B: Backend, const D: usize>(
    values: &[f32],
    shape: [usize; D],
    device: &B::Device,
) -> Tensor<B, D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

/// Method by which feature maps become a vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadKind {
    /// The mean of each of eight horizontal stripes, then a linear map.
    Stripes,
    /// A sum over the map with separate weights for each channel, then a linear map and a
    /// parametric rectifier.
    ReadOut,
}

/// Architecture of the tower.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Design {
    /// The convolutional network.
    pub network: Network,
    /// Method by which the feature maps become a vector.
    pub head: HeadKind,
    /// Whether the colour layout is added.
    pub colours: bool,
    /// Whether each channel of a crop is normalised to mean 0 and standard deviation 1 (instance
    /// normalisation, Ulyanov et al. 2016), which removes exposure and colour cast.
    pub normalise: bool,
    /// Height and width of a crop in pixels.
    pub size: (usize, usize),
    /// Dimension of an embedding.
    pub dimension: usize,
    /// Number of channels that a read-out reads.
    pub channels: usize,
    /// Whether a head without colours is followed by a batch normalisation (Luo et al. 2019).
    pub neck: bool,
    /// Pixel format of the file from which the body was started, if any.
    pub pixels: Option<PixelFormat>,
}

impl Design {
    /// Whether a new head gets a neck. With colours the neck would only scale the sum of head and
    /// colours.
    fn has_neck(&self) -> bool {
        self.neck && !self.colours
    }

    /// Prepares the tower's inputs from crops [n, 3, h, w] (RGB in [0, 1]).
    pub fn inputs(&self, mut crops: Array4<f32>) -> Inputs {
        let colours = self.colours.then(|| colour::layouts(&crops));
        if let Some(format) = &self.pixels {
            reformat(&mut crops, format);
        }
        if self.normalise {
            normalise_crops(&mut crops);
        }
        Inputs { crops, colours }
    }
}

/// Converts crops to another network's pixel format.
fn reformat(crops: &mut Array4<f32>, format: &PixelFormat) {
    for mut crop in crops.outer_iter_mut() {
        if format.color == ColorOrder::Bgr {
            crop.invert_axis(Axis(0));
            let turned = crop.to_owned();
            crop.invert_axis(Axis(0));
            crop.assign(&turned);
        }
        for (c, mut plane) in crop.outer_iter_mut().enumerate() {
            plane.mapv_inplace(|v| (v * 255.0 - format.mean[c]) / format.std[c]);
        }
    }
}

/// Inputs of a tower. The loader prepares them before the step, including all computations without
/// weights.
#[derive(Debug, Clone)]
pub struct Inputs {
    /// Crops [n, 3, h, w]: RGB in [0, 1], or normalised, or in the pixel format of the file from
    /// which the body was started.
    pub crops: Array4<f32>,
    /// Colour layouts [n, 432], if the tower uses them.
    pub colours: Option<Array2<f32>>,
}

fn normalise_crops(crops: &mut Array4<f32>) {
    let pixels = (crops.dim().2 * crops.dim().3) as f32;
    for mut plane in crops
        .outer_iter_mut()
        .flat_map(|crop| crop.into_outer_iter_mut())
    {
        let mean = plane.sum() / pixels;
        let variance = plane.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / pixels;
        let factor = 1.0 / (variance + EPSILON).sqrt();
        plane.mapv_inplace(|v| (v - mean) * factor);
    }
}

/// Output of a tower.
#[derive(Debug)]
pub struct TowerOutput<B: Backend> {
    /// Unit vectors [n, d].
    pub embeddings: Tensor<B, 2>,
    /// The last feature maps [n, c, h, w], which distillation compares.
    pub maps: Tensor<B, 4>,
}

/// The tower: maps crops [n, 3, h, w] (RGB in [0, 1]) to unit vectors [n, d].
#[derive(Module, Debug)]
pub struct Tower<B: Backend> {
    body: Body<B>,
    colour: Option<Linear<B>>,
    /// Absent if the body is a complete graph that ends in an embedding.
    head: Option<TowerHead<B>>,
    neck: Option<Neck<B>>,
    #[module(skip)]
    design: Design,
}

impl<B: Backend> Tower<B> {
    /// Creates a tower with random weights. The linear map of the colour layout is initialised with
    /// the principal components of `colours` [samples, 432], the layouts of training pictures.
    pub fn new(design: Design, colours: &Array2<f32>, device: &B::Device) -> Self {
        let body = Body::new(design.network, device);
        let colour = design.colours.then(|| {
            let mut colour = LinearConfig::new(COLOURS, design.dimension).init(device);
            let (axes, mean) = principal_components(colours, design.dimension);
            let offset = -mean.dot(&axes);
            colour.weight = Param::from_tensor(constant(
                &axes.iter().copied().collect::<Vec<_>>(),
                [COLOURS, design.dimension],
                device,
            ));
            colour.bias = Some(Param::from_tensor(constant(
                &offset.to_vec(),
                [design.dimension],
                device,
            )));
            colour
        });
        let head = Some(TowerHead::new(&design, body.map_size(design.size), device));
        let neck = design
            .has_neck()
            .then(|| Neck::new(design.dimension, device));
        Tower {
            body,
            colour,
            head,
            neck,
            design,
        }
    }

    /// Creates a tower whose body is the graph of an ONNX file. With `cut` the graph ends at that
    /// value and a new head follows; otherwise the whole graph is the tower. A convolution whose
    /// output would be smaller than 1/`stride` of the crop, per side, gets stride 1; with `stride`
    /// 0 there is no limit.
    ///
    /// # Errors
    /// Fails when the file cannot be read, trained, or run on crops of the design's size.
    pub fn from_graph(
        path: &Path,
        cut: Option<&str>,
        stride: usize,
        design: Design,
        device: &B::Device,
    ) -> Result<Self, TrainError>
    where
        B: Kernels,
    {
        let graph = GraphNetwork::new(Plan::read(path, cut)?, design.size, stride, device)?;
        let end = graph.end_size();
        let body = Body::Graph(graph);
        if cut.is_some() {
            let head = Some(TowerHead::new(&design, end, device));
            let neck = design
                .has_neck()
                .then(|| Neck::new(design.dimension, device));
            return Ok(Tower {
                body,
                colour: None,
                head,
                neck,
                design,
            });
        }
        if end[1] * end[2] != 1 {
            return Err(TrainError::Setting(format!(
                "{} ends in maps of {}x{} pixels, not in a vector; set cut to add a head",
                path.display(),
                end[2],
                end[1]
            )));
        }
        Ok(Tower {
            body,
            colour: None,
            head: None,
            neck: None,
            design: Design {
                dimension: end[0],
                ..design
            },
        })
    }

    /// Embeds crops prepared by [`Design::inputs`], [n, 3, h, w], with their colour layouts [n,
    /// 432] if used. The body computes in the precision of the crops.
    ///
    /// # Panics
    /// When the tower uses colour layouts and there are none.
    pub fn forward(&self, crops: Tensor<B, 4>, colours: Option<Tensor<B, 2>>) -> TowerOutput<B>
    where
        B: Kernels,
    {
        let Some(head) = &self.head else {
            let Body::Graph(graph) = &self.body else {
                unreachable!("only a graph has no head")
            };
            let GraphOutputs { end, map } = graph.forward(cast(crops, FloatDType::F32));
            let [n, d, ..] = end.dims();
            return TowerOutput {
                maps: map.unwrap_or_else(|| end.clone()),
                embeddings: normalise(end.reshape([n, d])),
            };
        };
        let (texture, maps) = head.forward(cast(self.body.forward(crops), FloatDType::F32));
        let texture = match &self.neck {
            Some(neck) => neck.forward(texture),
            None => texture,
        };
        let embeddings = normalise(match &self.colour {
            None => texture,
            Some(linear) => {
                linear.forward(colours.expect("a tower with colours needs layouts")) + texture
            }
        });
        TowerOutput { embeddings, maps }
    }

    /// Gives the head random weights, so that the convolutional network has an effect.
    #[cfg(test)]
    pub(super) fn randomise_head(&mut self, device: &B::Device) {
        let design = Design {
            colours: false,
            ..self.design
        };
        self.head = Some(TowerHead::new(
            &design,
            self.body.map_size(design.size),
            device,
        ));
    }

    /// Size of the feature maps that distillation compares.
    pub fn map_size(&self) -> MapSize {
        let [c, h, w] = match &self.body {
            Body::Graph(graph) if self.head.is_none() => graph.map_size(),
            body => body.map_size(self.design.size),
        };
        [
            if let Some(TowerHead::ReadOut(_)) = self.head {
                self.design.channels
            } else {
                c
            },
            h,
            w,
        ]
    }

    /// The convolutional network.
    #[cfg(test)]
    pub(super) fn body(&self) -> &Body<B> {
        &self.body
    }

    /// The architecture.
    pub fn design(&self) -> &Design {
        &self.design
    }

    /// Size of a crop: height, width.
    pub fn size(&self) -> (usize, usize) {
        self.design.size
    }

    /// Encodes the tower as an ONNX file with folded normalisations and the L2 norm as its last
    /// node; a complete graph is written unchanged. `metadata` is written under `twintrack.*`.
    pub fn to_onnx(&self, metadata: &[(String, String)]) -> Vec<u8>
    where
        B: Kernels,
    {
        let ((h, w), mut g) = (self.size(), Graph::default());
        let input = if self.design.normalise {
            let (scale, bias) = (
                g.constant("input.scale", &[3], &[1.0; 3]),
                g.constant("input.bias", &[3], &[0.0; 3]),
            );
            g.node(
                "InstanceNormalization",
                &["crops", &scale, &bias],
                "input",
                &[("epsilon", Attribute::Float(EPSILON))],
            )
        } else {
            "crops".to_string()
        };
        let map = match (&self.body, &self.head) {
            (Body::Graph(graph), None) => {
                return encode_graph(write::graph(graph, (h, w)), graph.plan().opset, metadata);
            }
            (Body::Graph(graph), Some(_)) => {
                let mut part = write::graph(graph, (h, w));
                let end = write::rename(&mut part, "start.", &input, &graph.plan().end);
                g.adopt(part, graph.plan().opset);
                end
            }
            // The body is exported first, because other training runs may start from its
            // convolutions in this order.
            (body, _) => body.export(&mut g, &input),
        };
        let colours = self.colour.as_ref().map(|linear| {
            let layout = colour::export(&mut g, (h, w));
            export_linear(&mut g, linear, &layout, "colour")
        });
        let [_, map_h, map_w] = self.map_size();
        let head = self
            .head
            .as_ref()
            .expect("a tower without a head is a complete graph, handled above");
        let mut texture = head.export(&mut g, &map, (map_h, map_w));
        if let Some(neck) = &self.neck {
            texture = neck.export(&mut g, &texture);
        }
        let sum = colours.map_or_else(
            || texture.clone(),
            |colour| g.node("Add", &[&colour, &texture], "sum", &[]),
        );
        g.node(
            "LpNormalization",
            &[&sum],
            "embedding",
            &[("axis", Attribute::Int(1)), ("p", Attribute::Int(2))],
        );
        g.finish(
            "siamese_tower",
            ("crops", [3, h, w]),
            ("embedding", self.design.dimension),
            metadata,
        )
    }
}

/// The `count` axes [features, count] of largest variance, and the mean row.
fn principal_components(rows: &Array2<f32>, count: usize) -> (Array2<f32>, ndarray::Array1<f32>) {
    let mean = rows
        .mean_axis(ndarray::Axis(0))
        .unwrap_or_else(|| ndarray::Array1::zeros(rows.ncols()));
    let centred = rows - &mean;
    let covariance = centred.t().dot(&centred);
    let n = rows.ncols();
    let eigen = nalgebra::SymmetricEigen::new(nalgebra::DMatrix::from_fn(n, n, |i, j| {
        f64::from(covariance[[i, j]])
    }));
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    (
        Array2::from_shape_fn((n, count), |(i, k)| {
            eigen.eigenvectors[(i, order[k])] as f32
        }),
        mean,
    )
}
