//! `twintrack compare A B`: are these the same person?

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};

use crate::app::settings;
use crate::app::show::{self, UNKNOWN};
use crate::gallery::{GalleryReader, Portrait, Taken};
use crate::track::appearance::cosine_distance;
use crate::track::similarity::FalseAcceptRate;

/// Compare the people in two pictures: prints their similarity, 0 to 1, how often strangers reach it, and which person of
/// each picture was taken.
#[derive(Debug, Args)]
pub struct CompareArgs {
    /// A picture of a person, cut to the person, or a photo in which the surest person is taken.
    first: PathBuf,
    /// Another.
    second: PathBuf,
    /// Configuration (TOML), of which [embedder] and [detector] count.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Siamese network: an ONNX file, or a name from `twintrack models list` that is installed.
    #[arg(long, value_name = "MODEL")]
    embedder: Option<PathBuf>,
    /// Take both pictures whole, whatever their shape, and look for no person in them: for networks trained on letters,
    /// signatures or faces.
    #[arg(long)]
    whole: bool,
    /// Print JSON: similarity, cosine distance, the share of pairs of strangers who are as similar (`stranger_rate`; with
    /// `stranger_rate_below` it is smaller than that, the smallest that was measured), and what of each picture was taken
    /// (`taken`).
    #[arg(long)]
    json: bool,
}

/// Compares; returns what is to be printed.
///
/// # Errors
/// When a picture cannot be read or shows nobody, or the embedder is not calibrated.
pub fn run(args: &CompareArgs) -> Result<String> {
    let config = settings::read(args.config.as_deref())?;
    let mut gallery_reader = GalleryReader::open(config, args.embedder.as_deref())?;
    show::embedder(gallery_reader.embedder());
    let calibration = gallery_reader.embedder().calibrated()?;
    let mut look = |path| {
        if args.whole {
            gallery_reader.look_whole(path)
        } else {
            gallery_reader.look(path)
        }
    };
    let (a, b) = (look(&args.first)?, look(&args.second)?);
    let distance = cosine_distance(&a.look, &b.look).unwrap_or(2.0);
    let similarity = calibration.similarity(distance);
    let rate = gallery_reader
        .embedder()
        .strangers()
        .map(|s| s.rate(distance));
    if args.json {
        return Ok(json(similarity, distance, rate, [&a, &b]).to_string());
    }
    let often = rate.map_or_else(
        || format!("how often strangers are this similar is not known, {UNKNOWN}"),
        |r| format!("strangers are this similar {r}"),
    );
    let taken = [(&args.first, a.taken), (&args.second, b.taken)]
        .map(|(path, taken)| format!("{}: {taken}", path.display()));
    Ok(format!("{similarity:.3}\n{often}\n{}", taken.join("\n")))
}

/// The answer for programs.
fn json(
    similarity: f32,
    distance: f32,
    rate: Option<FalseAcceptRate>,
    portraits: [&Portrait; 2],
) -> Value {
    let number = |v: f32| Value::from((f64::from(v) * 1e4).round() / 1e4);
    // As short as it was stored: 0.013, not 0.013000000268.
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
    let taken = |p: &Portrait| match p.taken {
        Taken::Whole => json!({ "whole": true }),
        Taken::Person {
            bbox,
            confidence,
            of,
        } => {
            json!({ "bbox": <[f32; 4]>::from(bbox).map(number), "confidence": number(confidence), "people": of })
        }
    };
    answer["taken"] = portraits.map(taken).to_vec().into();
    answer
}
