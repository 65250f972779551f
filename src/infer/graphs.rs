//! ONNX graphs that prepare the networks' inputs on their device. They compute the same as
//! [`crate::infer::tensor`] does on the CPU.

use ort::value::TensorElementType;

use crate::infer::pixels::{ColorOrder, PixelFormat};
use crate::onnx::proto::{FLOAT, FLOAT16, INT64, UINT8};
use crate::onnx::{Attribute, Graph};

/// Frames [N, H, W, 3], bytes in the order blue, green, red.
pub(super) const FRAMES: &str = "frames";
/// Size of the scaled frames: N, 3, height, width; int64 [4].
pub(super) const SIZE: &str = "size";
/// Padding of the scaled frames as the operator Pad takes it; int64 [8].
pub(super) const PADDING: &str = "padding";
/// Regions of frames: left, top, right, bottom in pixels; float32 [M, 4].
pub(super) const REGIONS: &str = "regions";
/// For each region, the index of its frame; int64 [M].
pub(super) const FRAME_OF: &str = "frame_of";
/// A network's input: [N, 3, h, w] or [M, 3, h, w].
pub(super) const PICTURES: &str = "pictures";
/// A copy of the frames in the device's memory.
pub(super) const DEVICE_FRAMES: &str = "device_frames";

/// Shape of [`FRAMES`]; 0 is a free dimension.
const FRAME_SHAPE: [usize; 4] = [0, 0, 0, 3];

/// Graph with the inputs [`FRAMES`], [`SIZE`] and [`PADDING`] and the outputs [`PICTURES`] and
/// [`DEVICE_FRAMES`]. Scales the frames bilinearly, pads them with black at the bottom and on the
/// right, and normalises them.
pub(super) fn letterbox(format: &PixelFormat, element: TensorElementType) -> Vec<u8> {
    let mut g = Graph::default();
    g.node("Identity", &[FRAMES], DEVICE_FRAMES, &[]);
    let planes = planes(&mut g);
    let linear = [
        ("mode", Attribute::Text("linear")),
        (
            "coordinate_transformation_mode",
            Attribute::Text("half_pixel"),
        ),
    ];
    let scaled = g.node("Resize", &[&planes, "", "", SIZE], "scaled", &linear);
    let padded = g.node("Pad", &[&scaled, PADDING], "padded", &[]);
    let pictures = normalised(&mut g, &padded, format, element);
    let inputs = [
        (FRAMES, UINT8, &FRAME_SHAPE[..]),
        (SIZE, INT64, &[4]),
        (PADDING, INT64, &[8]),
    ];
    let outputs = [
        (PICTURES, pictures, &[0, 3, 0, 0][..]),
        (DEVICE_FRAMES, UINT8, &FRAME_SHAPE),
    ];
    g.finish_with("letterbox", &inputs, &outputs)
}

/// Graph with the inputs [`FRAMES`], [`REGIONS`] and [`FRAME_OF`] and the output [`PICTURES`] of
/// `size` (width, height). Samples each region bilinearly at the centres of the output's pixels,
/// and normalises it. A frame's edge is repeated up to one pixel outside the frame.
pub(super) fn crops(
    format: &PixelFormat,
    (width, height): (usize, usize),
    element: TensorElementType,
) -> Vec<u8> {
    let mut g = Graph::default();
    let planes = planes(&mut g);
    let sampling = [
        ("output_height", Attribute::Int(height as i64)),
        ("output_width", Attribute::Int(width as i64)),
        ("sampling_ratio", Attribute::Int(1)),
        (
            "coordinate_transformation_mode",
            Attribute::Text("half_pixel"),
        ),
    ];
    let inputs = [planes.as_str(), REGIONS, FRAME_OF];
    let cut = g.node("RoiAlign", &inputs, "cut", &sampling);
    let pictures = normalised(&mut g, &cut, format, element);
    let inputs = [
        (FRAMES, UINT8, &FRAME_SHAPE[..]),
        (REGIONS, FLOAT, &[0, 4]),
        (FRAME_OF, INT64, &[0]),
    ];
    let outputs = [(PICTURES, pictures, &[0, 3, height, width][..])];
    g.finish_with("crops", &inputs, &outputs)
}

/// The frames as float32 [N, 3, H, W].
fn planes(g: &mut Graph) -> String {
    let to = [("to", Attribute::Int(i64::from(FLOAT)))];
    let floats = g.node("Cast", &[FRAMES], "floats", &to);
    let order = [("perm", Attribute::Ints(vec![0, 3, 1, 2]))];
    g.node("Transpose", &[&floats], "planes", &order)
}

/// Adds the nodes that put planes (blue, green, red) into the format's order and normalise them,
/// with the output [`PICTURES`]. Returns the element type of that output.
fn normalised(
    g: &mut Graph,
    planes: &str,
    format: &PixelFormat,
    element: TensorElementType,
) -> i32 {
    let ordered = match format.color {
        ColorOrder::Bgr => planes.to_string(),
        ColorOrder::Rgb => {
            let reversed = g.integers("reversed", &[2, 1, 0]);
            let axis = [("axis", Attribute::Int(1))];
            g.node("Gather", &[planes, &reversed], "ordered", &axis)
        }
    };
    let (mut factors, mut offsets) = ([0.0; 3], [0.0; 3]);
    for (plane, factor, offset) in format.planes() {
        (factors[plane], offsets[plane]) = (factor, offset);
    }
    let factors = g.constant("factors", &[1, 3, 1, 1], &factors);
    let offsets = g.constant("offsets", &[1, 3, 1, 1], &offsets);
    let scaled = g.node("Mul", &[&ordered, &factors], "multiplied", &[]);
    let element = if element == TensorElementType::Float16 {
        FLOAT16
    } else {
        FLOAT
    };
    let shifted = g.node("Add", &[&scaled, &offsets], "shifted", &[]);
    let to = [("to", Attribute::Int(i64::from(element)))];
    g.node("Cast", &[&shifted], PICTURES, &to);
    element
}
