//! The teacher: any ONNX embedder, and its last feature map, if any.

use std::path::{Path, PathBuf};

use ndarray::{Array2, Array4, Axis, Ix4};
use prost::Message;

use crate::frame::Image;
use crate::infer::paths::find_model;
use crate::infer::{Device, InferError, Model, PixelFormat, Runtime, SessionOptions, tensor};
use crate::onnx::graph::untyped;
use crate::onnx::proto::{GraphProto, ModelProto};
use crate::track::appearance::normalise;
use crate::train::distil::config::DistilConfig;
use crate::train::error::TrainError;
use crate::train::tensors::MapSize;

/// Operations whose outputs can be feature maps in float32.
const MAP_OPERATIONS: [&str; 8] = [
    "Conv",
    "Relu",
    "Clip",
    "PRelu",
    "LeakyRelu",
    "HardSwish",
    "BatchNormalization",
    "InstanceNormalization",
];

/// The teacher's output for pictures.
#[derive(Debug, Clone)]
pub struct TeacherOutput {
    /// Unit vectors [n, d].
    pub embeddings: Array2<f32>,
    /// The last feature maps [n, c, h, w], if requested.
    pub maps: Option<Array4<f32>>,
}

/// Maximum number of pictures per run.
const AT_ONCE: usize = 16;

/// An open teacher.
pub struct Teacher {
    model: Model,
    format: PixelFormat,
    /// Width and height of a crop.
    size: (usize, usize),
    dimension: usize,
    map: Option<MapSize>,
}

impl Teacher {
    /// Opens `path`. If the weight of feature maps is above 0, a copy of the file in `dir`, which
    /// has the last map as a second output, is opened instead.
    ///
    /// # Errors
    /// Fails when the file cannot be read or run, when the copy cannot be written, when the crop
    /// size or pixel format is unknown, and when the output is not one vector per crop.
    pub fn open(
        runtime: &Runtime,
        path: &Path,
        config: &DistilConfig,
        dir: &Path,
        threads: usize,
    ) -> Result<Self, TrainError> {
        let options = SessionOptions::new(Device::Auto, threads);
        let plain = Model::open(runtime, &find_model(path)?, options)?;
        let misfit = |problem: String| {
            TrainError::Infer(InferError::ModelShape {
                path: plain.path().to_path_buf(),
                problem,
            })
        };
        let size = match (config.teacher_size, plain.dims(), plain.metadata().size()) {
            (Some([w, h]), _, _) => (w, h),
            (None, [_, _, Some(h), Some(w)], _) => (w, h),
            (None, _, Some(size)) => size,
            _ => {
                return Err(misfit(
                    "its input size is free and its metadata has no twintrack.size; set \
                     distil.teacher_size"
                        .into(),
                ));
            }
        };
        let format = config
            .teacher_pixels
            .or_else(|| plain.metadata().pixel_format());
        let format = format.ok_or_else(|| {
            misfit(
                "its metadata states no pixel format; set distil.teacher_pixels (color, mean, std)"
                    .into(),
            )
        })?;
        let map = if config.map > 0.0 {
            last_map(runtime, plain.path(), dir, size, options)?
        } else {
            None
        };
        let model = match &map {
            None => plain,
            Some((name, _)) => Model::open(
                runtime,
                &with_outputs(
                    plain.path(),
                    std::slice::from_ref(name),
                    dir,
                    "teacher.onnx",
                )?,
                options,
            )?,
        };
        let map = map.map(|(_, size)| size);
        let mut teacher = Teacher {
            model,
            format,
            size,
            dimension: 0,
            map,
        };
        let flat = Image::packed(8, 16, vec![128; 3 * 8 * 16].into());
        teacher.dimension = teacher.embed(&[flat])?.embeddings.ncols();
        Ok(teacher)
    }

    /// Embeds pictures of people, each used as a whole crop.
    ///
    /// # Errors
    /// Fails when a run fails, or its output is not one vector per crop.
    pub fn embed(&mut self, pictures: &[Image]) -> Result<TeacherOutput, TrainError> {
        let (w, h) = self.size;
        let mut rows = Array2::zeros((0, 0));
        let mut maps = self.map.map(|[c, h, w]| Array4::zeros((0, c, h, w)));
        for part in pictures.chunks(AT_ONCE) {
            let mut batch = Array4::zeros((part.len(), 3, h, w));
            for (mut out, picture) in batch.axis_iter_mut(Axis(0)).zip(part) {
                tensor::write_scaled(picture, w, h, &self.format, out.view_mut());
            }
            let outputs = self.model.run(batch.view())?;
            let shapes: Vec<Vec<usize>> =
                outputs.iter().map(|o| o.values.shape().to_vec()).collect();
            let path = self.model.path();
            let misfit = || {
                let problem = format!(
                    "its outputs have shapes {shapes:?}, but one vector for each of {} crops is \
                     needed",
                    batch.dim().0
                );
                TrainError::Infer(InferError::ModelShape {
                    path: path.to_path_buf(),
                    problem,
                })
            };
            let mut outputs = outputs.into_iter();
            let first = outputs.next().ok_or_else(misfit)?.values;
            let n = batch.dim().0;
            if first.shape().first() != Some(&n)
                || first.shape().iter().skip(2).any(|s| *s != 1)
                || first.is_empty()
            {
                return Err(misfit());
            }
            let d = first.len() / n;
            let mut vectors = first.into_shape_with_order((n, d)).map_err(|_| misfit())?;
            vectors
                .rows_mut()
                .into_iter()
                .for_each(|mut row| normalise(row.as_slice_mut().expect("rows of a new array")));
            if rows.is_empty() {
                rows = Array2::zeros((0, d));
            }
            rows.append(Axis(0), vectors.view()).map_err(|_| misfit())?;
            if let Some(maps) = &mut maps {
                let more = outputs
                    .next_back()
                    .and_then(|o| o.values.into_dimensionality::<Ix4>().ok())
                    .ok_or_else(misfit)?;
                maps.append(Axis(0), more.view()).map_err(|_| misfit())?;
            }
        }
        Ok(TeacherOutput {
            embeddings: rows,
            maps,
        })
    }

    /// Dimension of an embedding.
    pub fn dimension(&self) -> usize {
        self.dimension
    }

    /// Size of its last feature map, if used.
    pub fn map_size(&self) -> Option<MapSize> {
        self.map
    }
}

/// Writes a copy of an ONNX file with additional outputs into `dir`. The outputs are appended to
/// the original bytes, because concatenated protocol buffers merge.
fn with_outputs(
    path: &Path,
    names: &[String],
    dir: &Path,
    file: &str,
) -> Result<PathBuf, TrainError> {
    let mut bytes = std::fs::read(path).map_err(|source| TrainError::Read {
        path: path.into(),
        source,
    })?;
    let graph = GraphProto {
        output: names.iter().map(|n| untyped(n)).collect(),
        ..GraphProto::default()
    };
    bytes.extend(
        ModelProto {
            graph: Some(graph),
            ..ModelProto::default()
        }
        .encode_to_vec(),
    );
    let copy = dir.join(file);
    std::fs::write(&copy, bytes).map_err(|e| TrainError::Write {
        path: copy.clone(),
        reason: e.to_string(),
    })?;
    Ok(copy)
}

/// Name and size of the last value of the graph that is a feature map larger than one pixel in both
/// directions. `None` if there is none, as in quantised networks.
fn last_map(
    runtime: &Runtime,
    path: &Path,
    dir: &Path,
    size: (usize, usize),
    options: SessionOptions,
) -> Result<Option<(String, MapSize)>, TrainError> {
    let graph = crate::train::onnx::read(path)?.graph.unwrap_or_default();
    let outputs: Vec<&String> = graph.output.iter().map(|o| &o.name).collect();
    let maps = graph
        .node
        .iter()
        .filter(|n| MAP_OPERATIONS.contains(&n.op_type.as_str()))
        .filter_map(|n| n.output.first());
    let names: Vec<String> = maps.filter(|n| !outputs.contains(n)).cloned().collect();
    let copy = with_outputs(path, &names, dir, "teacher_maps.onnx")?;
    let mut model = Model::open(runtime, &copy, options)?;
    let found = model.run(Array4::zeros((1, 3, size.1, size.0)).view())?;
    std::fs::remove_file(&copy).map_err(|e| TrainError::Write {
        path: copy,
        reason: e.to_string(),
    })?;
    let size = |o: &crate::infer::Output| match *o.values.shape() {
        [_, c, h, w] if h > 1 && w > 1 => Some([c, h, w]),
        _ => None,
    };
    Ok(found
        .iter()
        .rev()
        .find_map(|o| Some((o.name.clone(), size(o)?))))
}
