//! The file of `--config`, which one file can be for every command.

use std::path::Path;

use crate::config::{Config, ConfigError};

/// The settings of the file at `path`, or the defaults without one. The sections of `serve` (`serve`, `cameras`, `mqtt`,
/// `webhook`) are checked and left alone, so that one file can be for `track`, `tune` and `serve`.
///
/// # Errors
/// When the file cannot be read, is not TOML, or has an unknown key or a value out of range.
pub fn read(path: Option<&Path>) -> Result<Config, ConfigError> {
    path.map_or_else(|| Ok(Config::default()), of_file)
}

#[cfg(feature = "serve")]
fn of_file(path: &Path) -> Result<Config, ConfigError> {
    Ok(crate::serve::ServiceConfig::sections(path)?.1)
}

#[cfg(not(feature = "serve"))]
fn of_file(path: &Path) -> Result<Config, ConfigError> {
    Config::read(path)
}
