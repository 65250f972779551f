//! Copies frames to the networks' device and prepares the networks' inputs on it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ort::memory::Allocator;
use ort::value::{DynValue, Tensor, TensorElementType, ValueType};

use crate::frame::Image;
use crate::geometry::BBox;
use crate::infer::batch::BatchSizes;
use crate::infer::bound::{BoundSession, Memory};
use crate::infer::error::InferError;
use crate::infer::graphs::{
    self, DEVICE_FRAMES, FRAME_OF, FRAMES, PADDING, PICTURES, REGIONS, SIZE,
};
use crate::infer::open::{self, Network};
use crate::infer::options::SessionOptions;
use crate::infer::pixels::PixelFormat;
use crate::infer::runtime::Runtime;

/// Frames of one size, bytes [N, H, W, 3]: in the device's memory if [`FrameLoader::load`] made
/// them, in host memory if [`Cropper::load`] did. Clones share them.
#[derive(Clone)]
pub struct DeviceFrames {
    pub(super) frames: Arc<DynValue>,
    /// Number of frames, without those that pad the batch.
    count: usize,
}

impl DeviceFrames {
    /// Number of frames.
    pub fn count(&self) -> usize {
        self.count
    }
}

/// A network's input in the device's memory: [N, 3, h, w].
pub struct DevicePictures {
    pub(super) pictures: DynValue,
    pub(super) count: usize,
    pub(super) shape: [usize; 4],
}

impl DevicePictures {
    /// Size of a picture in pixels: width, height.
    pub fn size(&self) -> (usize, usize) {
        (self.shape[3], self.shape[2])
    }
}

/// Placement of frames in a network's input, in pixels (width, height).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The part that a frame fills, in the top left corner.
    pub content: (usize, usize),
    /// The whole input.
    pub input: (usize, usize),
}

/// The network for which [`FrameLoader`] or [`Cropper`] prepares inputs.
#[derive(Clone)]
pub(super) struct Target {
    pub runtime: Runtime,
    /// Options with the device on which the network runs.
    pub options: SessionOptions,
    pub path: PathBuf,
    pub format: PixelFormat,
    pub element: TensorElementType,
}

/// Copies frames to the device, and scales and normalises them there.
pub struct FrameLoader {
    graph: DeviceGraph,
    sizes: BatchSizes,
}

impl FrameLoader {
    /// Prepares frames for a network that runs batches of `sizes`.
    ///
    /// # Errors
    /// Fails when the device cannot be used.
    pub(super) fn open(target: &Target, sizes: BatchSizes) -> Result<Self, InferError> {
        let graph = graphs::letterbox(&target.format, target.element);
        let graph = DeviceGraph::open(target, &graph)?;
        Ok(FrameLoader { graph, sizes })
    }

    /// Copies `images`, all of one size, to the device, and scales and normalises them to one batch
    /// of the network's input. Returns the input and the frames.
    ///
    /// # Errors
    /// Fails when the device fails.
    ///
    /// # Panics
    /// When there are no images, more than the network runs in one batch, or they differ in size.
    pub fn load(
        &mut self,
        images: &[&Image],
        place: Placement,
    ) -> Result<(DevicePictures, DeviceFrames), InferError> {
        let count = images.len();
        let padded = self.sizes.padded(count);
        assert!(count <= padded, "{count} frames in a batch of {padded}");
        let fail = {
            let (path, shape) = (
                self.graph.path.clone(),
                vec![padded, 3, place.input.1, place.input.0],
            );
            move |e: ort::Error| InferError::Run {
                path: path.clone(),
                shape: shape.clone(),
                reason: e.to_string(),
            }
        };
        let frames = self
            .graph
            .host
            .filled(images, padded)
            .map_err(&fail)?
            .clone();
        let ((w, h), (cw, ch)) = (place.input, place.content);
        let integers = |values: Vec<usize>| -> ort::Result<DynValue> {
            let values: Vec<i64> = values.into_iter().map(|v| v as i64).collect();
            Ok(Tensor::from_array(([values.len()], values))?.into_dyn())
        };
        let size = integers(vec![padded, 3, ch, cw]).map_err(&fail)?;
        let padding = integers(vec![0, 0, 0, 0, 0, 0, h - ch, w - cw]).map_err(&fail)?;
        let inputs = [(FRAMES, &*frames), (SIZE, &size), (PADDING, &padding)];
        let device = &self.graph.memory.device;
        let outputs = [(PICTURES, device), (DEVICE_FRAMES, device)];
        let mut made = self.graph.session.run(&inputs, &outputs).map_err(&fail)?;
        let (Some(frames), Some(pictures)) = (made.pop(), made.pop()) else {
            unreachable!("a run returns a value for each output")
        };
        let shape = [padded, 3, h, w];
        let frames = Arc::new(frames);
        Ok((
            DevicePictures {
                pictures,
                count,
                shape,
            },
            DeviceFrames { frames, count },
        ))
    }
}

/// Cuts regions out of frames on the device, and scales and normalises them.
pub struct Cropper {
    graph: DeviceGraph,
    size: (usize, usize),
}

impl Cropper {
    /// Prepares for cutting crops of `size` (width, height) for a network.
    ///
    /// # Errors
    /// Fails when the device cannot be used.
    pub(super) fn open(target: &Target, size: (usize, usize)) -> Result<Self, InferError> {
        let graph = graphs::crops(&target.format, size, target.element);
        let graph = DeviceGraph::open(target, &graph)?;
        Ok(Cropper { graph, size })
    }

    /// Copies frames of one size to host memory, from which each [`Cropper::cut`] copies them to
    /// the device.
    ///
    /// # Errors
    /// Fails when the device fails.
    ///
    /// # Panics
    /// When there are no images or they differ in size.
    pub fn load(&mut self, images: &[&Image]) -> Result<DeviceFrames, InferError> {
        let fail = |e: ort::Error| unusable(&self.graph.path, &e);
        let frames = self
            .graph
            .host
            .filled(images, images.len())
            .map_err(fail)?
            .clone();
        let count = images.len();
        Ok(DeviceFrames { frames, count })
    }

    /// Cuts `regions` (index of the frame, box in pixels of the frame) into a batch of `padded`
    /// pictures. A box may lie up to half a pixel outside its frame.
    ///
    /// # Errors
    /// Fails when the device fails.
    ///
    /// # Panics
    /// When there are more regions than `padded`.
    pub fn cut(
        &mut self,
        frames: &DeviceFrames,
        regions: &[(usize, BBox)],
        padded: usize,
    ) -> Result<DevicePictures, InferError> {
        assert!(regions.len() <= padded, "{} regions", regions.len());
        let shape = [padded, 3, self.size.1, self.size.0];
        let fail = |e: ort::Error| InferError::Run {
            path: self.graph.path.clone(),
            shape: shape.to_vec(),
            reason: e.to_string(),
        };
        let edges = |b: &BBox| [b.left, b.top, b.left + b.width, b.top + b.height];
        let mut boxes: Vec<f32> = regions.iter().flat_map(|(_, b)| edges(b)).collect();
        boxes.resize(4 * padded, 1.0);
        let mut frame_of: Vec<i64> = regions.iter().map(|&(frame, _)| frame as i64).collect();
        frame_of.resize(padded, 0);
        let boxes = Tensor::from_array(([padded, 4], boxes)).map_err(fail)?;
        let frame_of = Tensor::from_array(([padded], frame_of)).map_err(fail)?;
        let inputs = [
            (FRAMES, &*frames.frames),
            (REGIONS, &boxes.into_dyn()),
            (FRAME_OF, &frame_of.into_dyn()),
        ];
        let outputs = [(PICTURES, &self.graph.memory.device)];
        let mut made = self.graph.session.run(&inputs, &outputs).map_err(fail)?;
        let Some(pictures) = made.pop() else {
            unreachable!("a run returns a value for each output")
        };
        Ok(DevicePictures {
            pictures,
            count: regions.len(),
            shape,
        })
    }
}

/// A graph that prepares a network's input on its device.
struct DeviceGraph {
    session: BoundSession,
    memory: Memory,
    host: HostFrames,
    /// The network's file, for error messages.
    path: PathBuf,
}

impl DeviceGraph {
    fn open(target: &Target, graph: &[u8]) -> Result<Self, InferError> {
        let network = Network::Bytes(graph, &target.path);
        let (session, provider) = open::session(&target.runtime, network, target.options, &[])?;
        let opened = || {
            let session = BoundSession::new(session)?;
            let memory = Memory::of(provider, target.options.device)?;
            let host = HostFrames::new(memory.host_allocator(&session.session)?);
            let path = target.path.clone();
            Ok(DeviceGraph {
                session,
                memory,
                host,
                path,
            })
        };
        opened().map_err(|e| unusable(&target.path, &e))
    }
}

fn unusable(path: &Path, error: &ort::Error) -> InferError {
    InferError::ModelShape {
        path: path.to_path_buf(),
        problem: format!("its inputs cannot be prepared on its device: {error}"),
    }
}

/// Host memory for frames [N, H, W, 3], which is reused while their size and number do not change.
struct HostFrames {
    allocator: Allocator,
    tensor: Option<Arc<DynValue>>,
}

impl HostFrames {
    fn new(allocator: Allocator) -> Self {
        HostFrames {
            allocator,
            tensor: None,
        }
    }

    /// A tensor of `padded` frames, of which the first are `images`; the pixels of the others are
    /// undefined.
    fn filled(&mut self, images: &[&Image], padded: usize) -> ort::Result<&Arc<DynValue>> {
        let first = images.first().expect("a batch has an image");
        let shape = [padded, first.height as usize, first.width as usize, 3];
        // A tensor to which there is another reference is not reused.
        let mut tensor = match self.tensor.take().and_then(|t| Arc::try_unwrap(t).ok()) {
            Some(tensor) if has_shape(&tensor, shape) => tensor,
            _ => Tensor::<u8>::new(&self.allocator, shape)?.into_dyn(),
        };
        let (_, bytes) = tensor.try_extract_tensor_mut::<u8>()?;
        let size = 3 * first.width as usize * shape[1];
        let pairs: Vec<(&&Image, &mut [u8])> =
            images.iter().zip(bytes.chunks_exact_mut(size)).collect();
        copy(pairs);
        Ok(self.tensor.insert(Arc::new(tensor)))
    }
}

/// Number of threads that copy a large batch; one thread does not use the full speed of the memory.
const COPY_THREADS: usize = 4;

/// Copies each image into its packed bytes.
fn copy(mut pairs: Vec<(&&Image, &mut [u8])>) {
    let one = |(image, bytes): &mut (&&Image, &mut [u8])| {
        let row = 3 * image.width as usize;
        assert_eq!(
            bytes.len(),
            row * image.height as usize,
            "images of one size"
        );
        for (y, to) in bytes.chunks_exact_mut(row).enumerate() {
            to.copy_from_slice(image.row(y));
        }
    };
    let share = pairs.len().div_ceil(COPY_THREADS);
    if share == 1 {
        pairs.iter_mut().for_each(one);
        return;
    }
    std::thread::scope(|scope| {
        for part in pairs.chunks_mut(share) {
            scope.spawn(move || part.iter_mut().for_each(one));
        }
    });
}

fn has_shape(tensor: &DynValue, shape: [usize; 4]) -> bool {
    match tensor.dtype() {
        ValueType::Tensor { shape: dims, .. } => {
            dims.iter().map(|&d| d as usize).eq(shape.iter().copied())
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
