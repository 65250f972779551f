//! Shape of a convolution, and the runs of pixels with which each weight of a kernel is multiplied.

use crate::train::kernels::activation::Activation;

/// Shape of a convolution. The border is padded with zeros by half the kernel, rounded down.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// Channels in and out.
    pub channels: (usize, usize),
    /// Side of the kernel.
    pub kernel: usize,
    /// Stride.
    pub stride: usize,
    /// Whether each channel is convolved separately. The numbers of input and output channels are
    /// then equal.
    pub depthwise: bool,
}

impl Shape {
    /// 3x3 over all channels.
    pub fn full(from: usize, to: usize, stride: usize) -> Self {
        Shape {
            channels: (from, to),
            kernel: 3,
            stride,
            depthwise: false,
        }
    }

    /// 1x1 over all channels.
    pub fn point(from: usize, to: usize) -> Self {
        Shape {
            channels: (from, to),
            kernel: 1,
            stride: 1,
            depthwise: false,
        }
    }

    /// 3x3 for each channel separately.
    pub fn depthwise(channels: usize, stride: usize) -> Self {
        Shape {
            channels: (channels, channels),
            kernel: 3,
            stride,
            depthwise: true,
        }
    }

    /// Number of groups of channels.
    pub fn groups(&self) -> usize {
        if self.depthwise { self.channels.0 } else { 1 }
    }

    /// Rows and columns of zeros on each side.
    pub fn padding(&self) -> usize {
        self.kernel / 2
    }

    /// The convolution on pictures of a size (height, width).
    pub fn on(self, size: (usize, usize)) -> ConvGeometry {
        let out = |side: usize| (side + 2 * self.padding() - self.kernel) / self.stride + 1;
        ConvGeometry {
            shape: self,
            size,
            out: (out(size.0), out(size.1)),
        }
    }
}

/// Bias and activation, which are applied while the maps are in the cache.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a> {
    /// Added to each channel.
    pub bias: &'a [f32],
    /// The activation.
    pub activation: Activation,
}

/// Output of a convolution with an [`Epilogue`], from which its derivatives are computed.
#[derive(Debug, Clone, Copy)]
pub struct ConvOutput<'a> {
    /// The maps.
    pub maps: &'a [f32],
    /// The activation that was applied.
    pub activation: Activation,
}

/// The derivatives of a convolution.
#[derive(Debug)]
pub struct ConvGradients {
    /// With respect to the input, if requested.
    pub by_x: Option<Vec<f32>>,
    /// With respect to the weights.
    pub by_weight: Vec<f32>,
    /// With respect to the bias, if there is one.
    pub by_bias: Vec<f32>,
}

/// A convolution on pictures of one size.
#[derive(Debug, Clone, Copy)]
pub struct ConvGeometry {
    /// The convolution.
    pub shape: Shape,
    /// Height and width of a picture.
    pub size: (usize, usize),
    /// Height and width of the output.
    pub out: (usize, usize),
}

/// Pixels of a row with which one weight of the kernel is multiplied: `output[to..to + count]`
/// depends on `input[from], input[from + stride], ...`.
#[derive(Debug, Clone, Copy)]
pub struct KernelRun {
    /// Index of the weight, row-major.
    pub tap: usize,
    /// First pixel in a plane of the output.
    pub to: usize,
    /// First pixel in a plane of the input.
    pub from: usize,
    /// Number of pixels.
    pub count: usize,
}

impl ConvGeometry {
    /// Pixels per plane of the input.
    pub fn pixels_in(&self) -> usize {
        self.size.0 * self.size.1
    }

    /// Pixels per plane of the output.
    pub fn pixels_out(&self) -> usize {
        self.out.0 * self.out.1
    }

    /// All runs of all weights, without pixels outside the picture.
    pub fn runs(&self) -> Vec<KernelRun> {
        let (k, stride, pad) = (self.shape.kernel, self.shape.stride, self.shape.padding());
        // Outputs o with 0 <= o * stride + tap - pad < side.
        let inside = |tap: usize, side: usize, out: usize| {
            let first = pad.saturating_sub(tap).div_ceil(stride);
            let last = (side + pad)
                .checked_sub(tap + 1)
                .map_or(0, |v| v / stride + 1)
                .min(out);
            first..last.max(first)
        };
        let mut runs = Vec::new();
        for (y, x) in (0..k * k).map(|tap| (tap / k, tap % k)) {
            let columns = inside(x, self.size.1, self.out.1);
            if columns.is_empty() {
                continue;
            }
            let first = columns.start * stride + x - pad;
            runs.extend(inside(y, self.size.0, self.out.0).map(|row| KernelRun {
                tap: y * k + x,
                to: row * self.out.1 + columns.start,
                from: (row * stride + y - pad) * self.size.1 + first,
                count: columns.len(),
            }));
        }
        runs
    }
}
