//! Compares the graphs, on the CPU provider, with [`tensor`], which they replace on a GPU.

use std::path::Path;

use half::f16;
use ndarray::{Array3, Array4, Axis};

use super::*;
use crate::infer::pixels::ColorOrder;
use crate::infer::{Device, tensor};

/// Largest accepted difference from [`tensor`], in units of the format's standard deviation.
const TOLERANCE: f32 = 1e-3;

const RGB: PixelFormat = PixelFormat {
    color: ColorOrder::Rgb,
    mean: [120.0, 110.0, 100.0],
    std: [58.0, 57.0, 56.0],
};

fn target(format: PixelFormat, element: TensorElementType) -> Target {
    Target {
        runtime: Runtime::load().expect("ONNX Runtime, from `make setup`"),
        options: SessionOptions::new(Device::Cpu, 1),
        path: Path::new("a.onnx").into(),
        format,
        element,
    }
}

/// A picture of noise, whose stride is larger than 3 times its width.
fn picture(width: u32, height: u32, seed: u64) -> Image {
    let mut random = fastrand::Rng::with_seed(seed);
    let stride = 3 * width as usize + 5;
    let data: Vec<u8> = (0..stride * height as usize)
        .map(|_| random.u8(..))
        .collect();
    Image {
        width,
        height,
        stride,
        data: data.into(),
        pixel_aspect: 1.0,
    }
}

fn values(pictures: &DevicePictures) -> Array4<f32> {
    let array = pictures.pictures.try_extract_array::<f32>();
    let array = array.expect("float32 in the CPU's memory").to_owned();
    array.into_dimensionality().expect("four axes")
}

fn largest_difference(a: &Array3<f32>, b: &Array3<f32>) -> f32 {
    assert_eq!(a.dim(), b.dim());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn frames_are_scaled_and_padded_as_on_the_cpu() {
    for (format, frame, content, input) in [
        (PixelFormat::IMAGENET_BGR, (64, 48), (64, 48), (64, 64)),
        (RGB, (97, 61), (64, 40), (64, 64)),
        (PixelFormat::UNIT_RGB, (31, 50), (62, 96), (64, 96)),
        (PixelFormat::IMAGENET_RGB, (40, 40), (64, 32), (64, 32)),
    ] {
        let target = target(format, TensorElementType::Float32);
        let mut loader = FrameLoader::open(&target, BatchSizes::Powers).expect("opened");
        let images: Vec<Image> = (0..3).map(|i| picture(frame.0, frame.1, i)).collect();
        let images: Vec<&Image> = images.iter().collect();
        let (pictures, frames) = loader
            .load(&images, Placement { content, input })
            .expect("loaded");
        assert_eq!((pictures.shape[0], pictures.count), (4, 3));
        assert_eq!((frames.count(), pictures.size()), (3, input));
        let there = values(&pictures);
        for (image, there) in images.iter().zip(there.axis_iter(Axis(0))) {
            let mut here = Array3::zeros((3, input.1, input.0));
            tensor::write_scaled(image, content.0, content.1, &format, here.view_mut());
            let difference = largest_difference(&here, &there.to_owned());
            assert!(difference < TOLERANCE, "{format} {frame:?}: {difference}");
        }
    }
}

#[test]
fn crops_are_cut_as_on_the_cpu() {
    let target = target(RGB, TensorElementType::Float32);
    let mut cropper = Cropper::open(&target, (16, 32)).expect("opened");
    let images = [picture(70, 90, 1), picture(70, 90, 2)];
    let frames = cropper.load(&[&images[0], &images[1]]).expect("loaded");
    let regions = [
        (0, BBox::new(0.0, 0.0, 70.0, 90.0)),
        (1, BBox::new(10.3, 20.7, 21.9, 55.1)),
        (0, BBox::new(60.0, 80.0, 10.0, 10.0)),
        (1, BBox::new(33.3, 44.4, 0.5, 0.8)),
        (0, BBox::new(0.0, 0.0, 3.0, 3.0)),
    ];
    let pictures = cropper.cut(&frames, &regions, 8).expect("cut");
    assert_eq!((pictures.shape[0], pictures.count), (8, 5));
    let there = values(&pictures);
    for ((frame, region), there) in regions.iter().zip(there.axis_iter(Axis(0))) {
        let mut here = Array3::zeros((3, 32, 16));
        tensor::write_crop(&images[*frame], region, &RGB, here.view_mut());
        let difference = largest_difference(&here, &there.to_owned());
        assert!(difference < TOLERANCE, "{region:?}: {difference}");
    }
}

#[test]
fn frames_in_use_are_not_overwritten_by_the_next_ones() {
    let target = target(PixelFormat::BYTES_BGR, TensorElementType::Float32);
    let mut loader = FrameLoader::open(&target, BatchSizes::Any).expect("opened");
    let mut cropper = Cropper::open(&target, (20, 20)).expect("opened");
    let (first, second) = (picture(20, 20, 1), picture(20, 20, 2));
    let whole = [(0, BBox::new(0.0, 0.0, 20.0, 20.0))];
    let place = Placement {
        content: (20, 20),
        input: (32, 32),
    };
    let (_, by_loader) = loader.load(&[&first], place).expect("loaded");
    let by_cropper = cropper.load(&[&first]).expect("loaded");
    loader.load(&[&second], place).expect("loaded");
    cropper.load(&[&second]).expect("loaded");
    let mut expected = Array3::zeros((3, 20, 20));
    tensor::write_scaled(&first, 20, 20, &PixelFormat::BYTES_BGR, expected.view_mut());
    for frames in [by_loader, by_cropper] {
        let cut = values(&cropper.cut(&frames, &whole, 1).expect("cut"));
        let cut = cut.index_axis(Axis(0), 0).to_owned();
        assert!(largest_difference(&expected, &cut) < TOLERANCE);
    }
}

#[test]
fn a_network_of_float16_gets_float16() {
    let target = target(PixelFormat::UNIT_RGB, TensorElementType::Float16);
    let mut loader = FrameLoader::open(&target, BatchSizes::Any).expect("opened");
    let place = Placement {
        content: (8, 8),
        input: (8, 8),
    };
    let image = Image::packed(8, 8, vec![255; 192].into());
    let (pictures, _) = loader.load(&[&image], place).expect("loaded");
    let values = pictures.pictures.try_extract_array::<f16>();
    assert!(values.expect("float16").iter().all(|v| *v == f16::ONE));
}
