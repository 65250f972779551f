//! Time to embed 8 crops on 2 threads, for several networks in alternation, so that changes of the
//! machine's load affect all of them equally:
//!
//!     cargo bench --bench embed_crops -- siamese.onnx omz-reid-0288
//!
//! Prints the median and the lower quartile over the rounds, in milliseconds. A network without
//! metadata gets unchanged pixels (BGR, 0 to 255) at 128x256.

use std::error::Error;
use std::time::Instant;

use twintrack::embed::{Embedder, EmbedderConfig};
use twintrack::frame::Image;
use twintrack::geometry::BBox;
use twintrack::infer::{Device, InputSize, PixelFormat, Runtime, SessionOptions};

const ROUNDS: usize = 60;
const CROPS: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    let named: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let names = if named.is_empty() {
        vec!["siamese.onnx".to_string()]
    } else {
        named
    };
    let runtime = Runtime::load()?;
    let mut networks = Vec::new();
    for name in names {
        let config = EmbedderConfig::default().with_model(name.clone().into());
        let bare = config
            .clone()
            .with_size(InputSize::Fixed(128, 256))
            .with_pixels(Some(PixelFormat::BYTES_BGR));
        let options = SessionOptions::new(Device::Cpu, 2);
        let embedder = Embedder::open(&runtime, &config, options)
            .or_else(|_| Embedder::open(&runtime, &bare, options))?;
        networks.push((name, embedder, Vec::new()));
    }
    let mut rng = fastrand::Rng::with_seed(1);
    let data: Vec<u8> = (0..3 * 640 * 480).map(|_| rng.u8(..)).collect();
    let image = Image::packed(640, 480, data.into());
    let people: Vec<BBox> = (0..CROPS)
        .map(|i| BBox::new(70.0 * i as f32, 50.0 + 10.0 * i as f32, 60.0, 150.0))
        .collect();
    let crops: Vec<(&Image, &BBox)> = people.iter().map(|p| (&image, p)).collect();
    for round in 0..ROUNDS + 5 {
        for (_, embedder, times) in &mut networks {
            let start = Instant::now();
            embedder.embed_crops(&crops)?;
            if round >= 5 {
                times.push(1e3 * start.elapsed().as_secs_f64());
            }
        }
    }
    for (name, _, mut times) in networks {
        times.sort_by(f64::total_cmp);
        eprintln!(
            "{name}: {:.2} ms (lower quartile {:.2})",
            times[ROUNDS / 2],
            times[ROUNDS / 4]
        );
    }
    Ok(())
}
