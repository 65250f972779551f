//! Speed of the networks on a device, batch by batch, without the pipeline:
//!
//!     cargo bench --bench device -- cuda 768x576 [DETECTOR]
//!
//! Writes the median times to standard error, in milliseconds. "bare" is the run of the session, on
//! an input in the device's memory. "whole" also includes copying the frames to the device, scaling
//! them and decoding the detections, or cutting the crops and returning the vectors.

use std::error::Error;
use std::time::Instant;

use twintrack::detect::{Detector, DetectorConfig, Letterbox, Precision};
use twintrack::embed::{Embedder, EmbedderConfig, People};
use twintrack::frame::{Image, Shape};
use twintrack::geometry::BBox;
use twintrack::infer::paths::find_model;
use twintrack::infer::{
    Device, InputSize, Model, PixelFormat, Placement, Preprocessing, Runtime, SessionOptions,
};
use twintrack::prelude::Detection;

/// Number of measured runs.
const RUNS: usize = 30;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1).filter(|a| a != "--bench");
    let device: Device = args.next().as_deref().unwrap_or("cpu").parse()?;
    let size: InputSize = args.next().as_deref().unwrap_or("768x576").parse()?;
    let detector = args.next().unwrap_or("person_detector.onnx".into());
    let InputSize::Fixed(width, height) = size else {
        return Err("the size of the frames is WIDTHxHEIGHT".into());
    };
    let runtime = Runtime::load()?;
    let options = SessionOptions::new(device, 2).with_preprocessing(Preprocessing::Device);
    let mut rng = fastrand::Rng::with_seed(1);
    let data: Vec<u8> = (0..3 * width * height).map(|_| rng.u8(..)).collect();
    let image = Image::packed(width as u32, height as u32, data.into());
    detections(&runtime, options, &image, &detector)?;
    embeddings(&runtime, options, &image)
}

fn detections(
    runtime: &Runtime,
    options: SessionOptions,
    image: &Image,
    name: &str,
) -> Result<(), Box<dyn Error>> {
    let size = (image.width as usize, image.height as usize);
    let config = DetectorConfig::default()
        .with_model(name.into())
        .with_precision(Precision::Fp32)
        .with_size(InputSize::Fixed(size.0, size.1));
    let mut whole = Detector::open(runtime, &config, options)?;
    let mut loader = whole.take_loader().ok_or("frames are prepared here")?;
    let mut bare = Model::open(runtime, &find_model(name.as_ref())?, options)?;
    eprintln!("{name} on {}, {} x {}", bare.provider(), size.0, size.1);
    eprintln!(
        "{:>8} {:>10} {:>10} {:>10} {:>10}",
        "frames", "bare", "load", "whole", "frames/s"
    );
    let letterbox = Letterbox::fit(Shape::square(image.width, image.height), size, false);
    for frames in [1, 2, 4, 8, 16, 32] {
        let images = vec![image; frames];
        let places = vec![(letterbox, (image.width, image.height)); frames];
        let (pictures, _) = loader.load(&images, letterbox.placement())?;
        whole.detect_on_device(&pictures, &places)?;
        let alone = median(|| bare.run_on_device(&pictures).map(drop))?;
        let load = median(|| loader.load(&images, letterbox.placement()).map(drop))?;
        let all = median(|| {
            let (pictures, _) = loader.load(&images, letterbox.placement())?;
            whole.detect_on_device(&pictures, &places).map(drop)
        })?;
        let rate = 1e3 * frames as f64 / all;
        eprintln!("{frames:>8} {alone:>10.3} {load:>10.3} {all:>10.3} {rate:>10.0}");
    }
    Ok(())
}

fn embeddings(
    runtime: &Runtime,
    options: SessionOptions,
    image: &Image,
) -> Result<(), Box<dyn Error>> {
    let mut whole = Embedder::open(runtime, &EmbedderConfig::default(), options)?;
    let path = whole.model().path().to_path_buf();
    let mut bare = Model::open(runtime, &path, options)?;
    let format = PixelFormat::BYTES_BGR;
    let mut cropper = bare
        .cropper(&format, whole.size())?
        .ok_or("crops are cut here")?;
    let here = SessionOptions::new(options.device, 2).with_preprocessing(Preprocessing::Cpu);
    let mut by_cpu = Embedder::open(runtime, &EmbedderConfig::default(), here)?;
    eprintln!("{} on {}", path.display(), bare.provider());
    eprintln!(
        "{:>8} {:>10} {:>10} {:>10}",
        "crops", "bare", "whole", "cut here"
    );
    for crops in [1, 8, 15, 32, 64, 128] {
        let box_of = |i: usize| BBox::new((i * 2 % 256) as f32, (i % 90) as f32, 60.0, 150.0);
        let detections: Vec<Detection> = (0..crops)
            .map(|i| Detection {
                bbox: box_of(i),
                confidence: 0.9,
            })
            .collect();
        let frames = loaded(runtime, options, image)?;
        let people = [People {
            frame: 0,
            size: (image.width, image.height),
            detections: &detections,
        }];
        let regions: Vec<(usize, BBox)> = detections.iter().map(|d| (0, d.bbox)).collect();
        let pictures = cropper.cut(&frames, &regions, bare.padded(crops))?;
        let alone = median(|| bare.run_on_device(&pictures).map(drop))?;
        let all = median(|| whole.embed_on_device(&frames, &people).map(drop))?;
        let cut_here = median(|| by_cpu.embed(image, &detections).map(drop))?;
        eprintln!("{crops:>8} {alone:>10.3} {all:>10.3} {cut_here:>10.3}");
    }
    Ok(())
}

/// The image in the device's memory.
fn loaded(
    runtime: &Runtime,
    options: SessionOptions,
    image: &Image,
) -> Result<twintrack::infer::DeviceFrames, Box<dyn Error>> {
    let model = Model::open(runtime, &find_model("siamese.onnx".as_ref())?, options)?;
    let loader = model.frame_loader(&PixelFormat::BYTES_BGR)?;
    let size = (image.width as usize, image.height as usize);
    let place = Placement {
        content: size,
        input: size,
    };
    Ok(loader
        .ok_or("frames are prepared here")?
        .load(&[image], place)?
        .1)
}

/// Median time of a run, milliseconds. Three runs before are not counted.
fn median<E>(mut run: impl FnMut() -> Result<(), E>) -> Result<f64, E> {
    let mut times = Vec::new();
    for i in 0..RUNS + 3 {
        let start = Instant::now();
        run()?;
        if i >= 3 {
            times.push(1e3 * start.elapsed().as_secs_f64());
        }
    }
    times.sort_by(f64::total_cmp);
    Ok(times[RUNS / 2])
}
