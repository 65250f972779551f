//! Embeds crops with a tower on the training backend.

use burn::tensor::{Tensor, TensorData};
use ndarray::{Array2, Array4, Axis};

use crate::train::batch::write_plain;
use crate::train::dataset::Crop;
use crate::train::kernels::backend::Kernels;
use crate::train::network::{Inputs, Tower};
use crate::train::retrieval::PictureLabel;

/// Prepares crops without augmentation, in batches of up to 64.
pub(super) fn plain(
    crops: &[&Crop],
    (height, width): (usize, usize),
) -> impl Iterator<Item = Array4<f32>> {
    crops.chunks(64).map(move |part| {
        let mut batch = Array4::zeros((part.len(), 3, height, width));
        batch
            .axis_iter_mut(Axis(0))
            .zip(part)
            .for_each(|(out, c)| write_plain(c, out));
        batch
    })
}

/// Puts the rows of all matrices into one matrix.
pub(super) fn stacked(parts: impl Iterator<Item = Array2<f32>>) -> Array2<f32> {
    let parts: Vec<_> = parts.collect();
    ndarray::concatenate(Axis(0), &parts.iter().map(|p| p.view()).collect::<Vec<_>>())
        .unwrap_or_default()
}

/// Returns the embeddings, [n, d], of prepared crops, [n, 3, h, w].
pub fn embed_batch<B: Kernels>(
    tower: &Tower<B>,
    batch: Array4<f32>,
    device: &B::Device,
) -> Array2<f32> {
    let Inputs { crops, colours } = tower.design().inputs(batch);
    let out = tower
        .forward(tensor(crops, device), colours.map(|c| matrix(c, device)))
        .embeddings;
    let dims = out.dims();
    Array2::from_shape_vec(
        dims,
        out.into_data()
            .convert::<f32>()
            .to_vec::<f32>()
            .expect("converted to float32"),
    )
    .expect("n rows of d")
}

/// Returns the embeddings of crops, [n, d].
pub fn embed<B: Kernels>(tower: &Tower<B>, crops: &[&Crop], device: &B::Device) -> Array2<f32> {
    stacked(plain(crops, tower.size()).map(|batch| embed_batch(tower, batch, device)))
}

pub(super) fn matrix<B: Kernels>(rows: Array2<f32>, device: &B::Device) -> Tensor<B, 2> {
    let (n, d) = rows.dim();
    B::upload(
        TensorData::new(rows.into_raw_vec_and_offset().0, [n, d]),
        device,
    )
}

pub(super) fn tensor<B: Kernels>(batch: Array4<f32>, device: &B::Device) -> Tensor<B, 4> {
    let (n, c, h, w) = batch.dim();
    B::upload(
        TensorData::new(batch.into_raw_vec_and_offset().0, [n, c, h, w]),
        device,
    )
}

/// Labels of crops for evaluation.
pub fn labels(crops: &[Crop]) -> Vec<PictureLabel> {
    crops
        .iter()
        .map(|c| PictureLabel {
            identity: c.identity,
            camera: c.camera,
            frame: c.frame,
        })
        .collect()
}
