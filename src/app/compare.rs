//! `twintrack compare A B`: are these the same person?

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use crate::app::show::{self, UNKNOWN};
use crate::config::Config;
use crate::gallery::Portraitist;
use crate::track::appearance::cosine_distance;
use crate::track::similarity::StrangerRate;

/// Compare the people in two pictures: prints their similarity, 0 to 1, and how often strangers reach it.
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
    /// Print JSON: similarity, cosine distance, and the share of pairs of strangers who are as similar (`stranger_rate`;
    /// with `stranger_rate_below` it is smaller than that, the smallest that was measured).
    #[arg(long)]
    json: bool,
}

/// Compares; returns what is to be printed.
///
/// # Errors
/// When a picture cannot be read or shows nobody, or the embedder is not calibrated.
pub fn run(args: &CompareArgs) -> Result<String> {
    let config = args.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
    let mut portraitist = Portraitist::open(config, args.embedder.as_deref())?;
    show::embedder(portraitist.embedder());
    let calibration = portraitist.embedder().calibrated()?;
    let mut look = |path| if args.whole { portraitist.look_whole(path) } else { portraitist.look(path) };
    let (a, b) = (look(&args.first)?, look(&args.second)?);
    let distance = cosine_distance(&a, &b).unwrap_or(2.0);
    let similarity = calibration.similarity(distance);
    let rate = portraitist.embedder().strangers().map(|s| s.rate(distance));
    if args.json {
        let rate = match rate {
            None => String::new(),
            Some(StrangerRate::About(r)) => format!(r#","stranger_rate":{r}"#),
            Some(StrangerRate::Below(r)) => format!(r#","stranger_rate":{r},"stranger_rate_below":true"#),
        };
        return Ok(format!(r#"{{"similarity":{similarity:.4},"distance":{distance:.4}{rate}}}"#));
    }
    let often = rate.map_or_else(|| format!("how often strangers are this similar is not known, {UNKNOWN}"), |r| format!("strangers are this similar {r}"));
    Ok(format!("{similarity:.3}\n{often}"))
}
