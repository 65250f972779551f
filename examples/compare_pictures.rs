//! Embeds two pictures of people and prints how similar the people are.
//!
//! ```text
//! cargo run --release --example compare_pictures -- a.jpg b.jpg
//! ```
//!
//! Each picture must be cut to one person. Pictures of scenes need a detector first.

#![allow(clippy::print_stdout, reason = "the output of a program")]

use std::error::Error;
use std::path::Path;

use twintrack::prelude::*;
use twintrack::source::image_folder;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(a), Some(b)) = (args.next(), args.next()) else {
        return Err("usage: compare_pictures PICTURE PICTURE".into());
    };
    let config = Config::default();
    let mut embedder = Embedder::open(&Runtime::load()?, &config.embedder, config.session())?;

    let pictures = [
        image_folder::read(Path::new(&a))?,
        image_folder::read(Path::new(&b))?,
    ];
    let whole = pictures
        .each_ref()
        .map(|p| BBox::new(0.0, 0.0, p.width as f32, p.height as f32));
    // Embeddings, [2, d], unit length.
    let embeddings =
        embedder.embed_crops(&[(&pictures[0], &whole[0]), (&pictures[1], &whole[1])])?;
    let distance = 1.0 - embeddings.row(0).dot(&embeddings.row(1));

    println!("distance {distance:.3} (1 - cosine, in [0, 2])");
    match embedder.calibration() {
        Some(calibration) => println!(
            "similarity {:.3} (in [0, 1])",
            calibration.similarity(distance)
        ),
        None => {
            println!("no similarity: the network is not calibrated (twintrack-train calibrate)")
        }
    }
    Ok(())
}
