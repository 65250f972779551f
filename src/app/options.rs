//! Types and parsers of option values that several commands share.

use clap::ValueEnum;

use twintrack::detect::Precision;
use twintrack::eval::Benchmark;
use twintrack::time::Timestamp;

/// Benchmark whose rules apply: which classes are evaluated, and which are distractors.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Rules {
    /// 2D MOT 2015: rows of all classes are evaluated, and there are no distractors.
    Mot15,
    /// MOT16.
    Mot16,
    /// MOT17.
    Mot17,
    /// MOT20: non-motorised vehicles are also distractors.
    Mot20,
}

impl From<Rules> for Benchmark {
    fn from(rules: Rules) -> Self {
        match rules {
            Rules::Mot15 => Benchmark::Mot15,
            Rules::Mot16 => Benchmark::Mot16,
            Rules::Mot17 => Benchmark::Mot17,
            Rules::Mot20 => Benchmark::Mot20,
        }
    }
}

/// Parses a number format of the detector.
///
/// # Errors
/// The message states what is expected.
pub fn parse_precision(s: &str) -> Result<Precision, String> {
    match s {
        "auto" => Ok(Precision::Auto),
        "fp32" => Ok(Precision::Fp32),
        "int8" => Ok(Precision::Int8),
        _ => Err("use auto, fp32 or int8".into()),
    }
}

/// Parses a time in seconds, zero or more.
///
/// # Errors
/// The message states what is expected.
pub fn parse_seconds(s: &str) -> Result<f64, String> {
    s.parse()
        .ok()
        .filter(|v: &f64| v.is_finite() && *v >= 0.0)
        .ok_or_else(|| "use a number of seconds, zero or more".into())
}

/// Parses a divisor in [1e-6, 1e6].
///
/// # Errors
/// The message states what is expected.
pub fn parse_scale(s: &str) -> Result<f64, String> {
    s.parse()
        .ok()
        .filter(|v: &f64| (1e-6..=1e6).contains(v))
        .ok_or_else(|| "use a number from 0.000001 to 1000000".into())
}

/// Parses a frame rate in frames per second.
///
/// # Errors
/// The message states what is expected.
pub fn parse_rate(s: &str) -> Result<f64, String> {
    s.parse()
        .ok()
        .filter(|v: &f64| (0.01..=1000.0).contains(v))
        .ok_or_else(|| "use a number of frames per second from 0.01 to 1000".into())
}

/// Parses a date and time by RFC 3339.
///
/// # Errors
/// The message states what is expected.
pub fn parse_time(s: &str) -> Result<Timestamp, String> {
    s.parse()
        .map(Timestamp)
        .map_err(|e| format!("{e}; use RFC 3339, such as 2026-11-24T12:00:00Z"))
}
