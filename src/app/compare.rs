//! `twintrack compare A B`: similarity of the people in two pictures.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::app::settings;
use crate::app::show::{self, NO_STRANGER_RATES};
use twintrack::gallery::{GalleryPicture, GalleryReader, Region};
use twintrack::track::appearance::cosine_distance;
use twintrack::track::similarity::FalseAcceptRate;

/// Compare the people in two pictures: print their similarity (0 to 1), how often strangers are at
/// least as similar, and which part of each picture was used.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// A picture cut to one person, or a wider picture, of which the most confidently detected
    /// person is used.
    first: PathBuf,
    /// The other picture.
    second: PathBuf,
    /// Configuration (TOML), of which [embedder] and [detector] are used.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// ONNX file of the embedder (Siamese network): a path (./mine.onnx), the name of a file in a
    /// `models` folder, or the name of an installed network (`twintrack models list`).
    #[arg(long, value_name = "MODEL")]
    embedder: Option<PathBuf>,
    /// Use both pictures as a whole, of any aspect ratio, without detecting people: for networks
    /// trained on letters, signatures or faces.
    #[arg(long)]
    whole: bool,
    /// Print JSON: `similarity`; the cosine `distance`; `stranger_rate`, the share of pairs of
    /// strangers that are at least as similar; `stranger_rate_below`, true if the actual share is
    /// lower than `stranger_rate`, the smallest measured one; and `taken`, the part of each picture
    /// that was used.
    #[arg(long)]
    json: bool,
}

/// Runs the command; returns the text to print.
///
/// # Errors
/// When a picture cannot be read, no person is detected in it, or the embedder is not calibrated.
pub fn run(args: &CompareArgs) -> Result<String> {
    let config = settings::read(args.config.as_deref())?;
    let mut gallery_reader = GalleryReader::open(config, args.embedder.as_deref())?;
    show::embedder(gallery_reader.embedder());
    let calibration = gallery_reader.embedder().calibrated()?;
    let mut read = |path| {
        if args.whole {
            gallery_reader.read_whole(path)
        } else {
            gallery_reader.read(path)
        }
    };
    let (a, b) = (read(&args.first)?, read(&args.second)?);
    let distance = cosine_distance(&a.embedding, &b.embedding).unwrap_or(2.0);
    let similarity = calibration.similarity(distance);
    let rate = gallery_reader
        .embedder()
        .strangers()
        .map(|s| s.rate(distance));
    if args.json {
        return Ok(json(similarity, distance, rate, [&a, &b]).to_string());
    }
    let often = rate.map_or_else(
        || format!("how often strangers are this similar is unknown, {NO_STRANGER_RATES}"),
        |r| format!("strangers are this similar {r}"),
    );
    let regions = [(&args.first, a.region), (&args.second, b.region)]
        .map(|(path, region)| format!("{}: {region}", path.display()));
    Ok(format!("{similarity:.3}\n{often}\n{}", regions.join("\n")))
}

/// The output of `--json`.
fn json(
    similarity: f32,
    distance: f32,
    rate: Option<FalseAcceptRate>,
    pictures: [&GalleryPicture; 2],
) -> Value {
    let number = |v: f32| Value::from((f64::from(v) * 1e4).round() / 1e4);
    // The shortest decimal number of the f32: 0.013, not 0.013000000268.
    let decimal = |v: f32| Value::from(v.to_string().parse::<f64>().unwrap_or(f64::from(v)));
    let mut answer = json!({ "similarity": number(similarity), "distance": number(distance) });
    match rate {
        None => {}
        Some(FalseAcceptRate::About(r)) => answer["stranger_rate"] = decimal(r),
        Some(FalseAcceptRate::Below(r)) => {
            answer["stranger_rate"] = decimal(r);
            answer["stranger_rate_below"] = true.into();
        }
    }
    let region = |p: &GalleryPicture| match p.region {
        Region::Whole => json!({ "whole": true }),
        Region::Person {
            bbox,
            confidence,
            people,
        } => json!({
            "bbox": <[f32; 4]>::from(bbox).map(number),
            "confidence": number(confidence),
            "people": people,
        }),
    };
    answer["taken"] = pictures.map(region).to_vec().into();
    answer
}
