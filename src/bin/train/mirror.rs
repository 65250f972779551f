//! `twintrack-train mirror`: averages an embedder over mirror images.

use std::path::PathBuf;

use crate::{outputs, settings};
use anyhow::Result;
use clap::Args;
use twintrack::infer::paths::{find_model, in_working_folder};
use twintrack::train::mirror::mirrored;

/// Write a copy of an ONNX embedder that averages the embeddings of a crop and of its mirror image:
/// more accurate, at twice the time of the network. Calibrate the copy afterwards.
#[derive(Debug, Args)]
pub struct MirrorArgs {
    /// ONNX file of the embedder: a path (./mine.onnx), the name of a file in a `models` folder, or
    /// the name of an installed network (`twintrack models list`); by default the network in
    /// --config, else the shipped siamese.onnx.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The tracker's configuration (TOML), of which [embedder] is used: input size and pixel format
    /// of a third-party network.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the copy (ONNX) to this file.
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
}

/// Runs the command; returns the text to print.
pub fn run(args: &MirrorArgs) -> Result<String> {
    let mut config = settings::read(args.config.as_deref())?.embedder;
    config.model = args.model.clone().unwrap_or(config.model);
    let file = find_model(&config.model)?;
    outputs::prepare([&args.output], std::slice::from_ref(&file))?;
    mirrored(&config, &in_working_folder(&args.output))?;
    Ok(format!(
        "{}: averages over mirror images; it has no calibration (twintrack-train calibrate)",
        args.output.display()
    ))
}
