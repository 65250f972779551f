//! `twintrack-train bench`: measures how fast a network trains on this machine.

use std::io::Write as _;
use std::path::PathBuf;

use anyhow::{Result, anyhow};
use burn::tensor::backend::AutodiffBackend;
use clap::Args;
use twintrack::train::body::Network;
use twintrack::train::config::{TrainConfig, TrainPrecision};
use twintrack::train::dataset::Dataset;
use twintrack::train::error::TrainError;
use twintrack::train::kernels::backend::Kernels;
use twintrack::train::readers::DataSpec;
use twintrack::train::speed::{Speed, measure};

use crate::device::{OnDevice, TrainDevice};
use crate::read_config;

/// Measure how many pictures per second a network trains on, with and without the loader.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Training configuration (TOML); `twintrack-train config` prints the defaults.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The network: tiny, residual, residual-wide, mobile or omni; overrides the configuration.
    #[arg(long, value_name = "NAME", value_parser = parse::<Network>)]
    network: Option<Network>,
    /// Number format: float32 or bfloat16; overrides the configuration.
    #[arg(long, value_name = "FORMAT", value_parser = parse::<TrainPrecision>)]
    precision: Option<TrainPrecision>,
    /// Labelled data, KIND:WHERE as for training.
    #[arg(long, value_name = "KIND:WHERE", default_value = "synthetic:100", num_args = 1..)]
    data: Vec<DataSpec>,
    /// Number of steps of each of the two measurements.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..))]
    steps: u32,
    /// Number of steps before each measurement that are not counted.
    #[arg(long, value_name = "N", default_value_t = 5)]
    warm_up: u32,
    /// Device, as for training.
    #[arg(long, value_enum, default_value_t = TrainDevice::Cpu)]
    device: TrainDevice,
}

/// Parses a value as the configuration does.
fn parse<T: serde::de::DeserializeOwned>(word: &str) -> Result<T> {
    serde_json::from_value(word.into()).map_err(|e| anyhow!("{e}"))
}

/// A value as the configuration writes it.
fn word<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_value(value)
        .ok()
        .and_then(|v| v.as_str().map(Into::into))
        .unwrap_or_default()
}

struct Measurement<'a> {
    config: &'a TrainConfig,
    data: Vec<Dataset>,
    counts: (usize, usize),
}

impl OnDevice for Measurement<'_> {
    type Output = Result<(), TrainError>;

    fn run<B: AutodiffBackend<InnerBackend: Kernels> + Kernels>(
        self,
        device: &B::Device,
    ) -> Self::Output {
        let (network, format) = (self.config.network.name(), word(&self.config.precision));
        measure::<B>(self.config, self.data, self.counts, device, |speed| {
            let Speed {
                loader,
                warm_up,
                pictures,
                loss,
            } = speed;
            let batches = if loader { "loader" } else { "prepared" };
            // A closed pipe is not an error.
            let _ = writeln!(
                std::io::stdout(),
                "{network} {format} {batches}: {pictures:.0} pictures/s, warm-up {warm_up:.1} s, \
                 mean loss {loss:.3}"
            );
        })
    }
}

/// Runs the command, which prints one line per measurement.
pub fn bench(args: &BenchArgs) -> Result<String> {
    let mut config = read_config(args.config.as_deref())?;
    config.network = args.network.unwrap_or(config.network);
    config.precision = args.precision.unwrap_or(config.precision);
    config.validate()?;
    let data = args
        .data
        .iter()
        .map(|spec| spec.read(config.seed))
        .collect::<Result<Vec<Dataset>, TrainError>>()?;
    args.device.run(Measurement {
        config: &config,
        data,
        counts: (args.warm_up as usize, args.steps as usize),
    })??;
    Ok(String::new())
}
