//! Reads the configuration of `--config`, which can be the same file for every command. Shared with
//! the program `twintrack-train`.

use std::path::Path;

use twintrack::config::{Config, ConfigError};

/// Reads the configuration at `path`, or returns the defaults without one. The sections of `serve`
/// (`serve`, `cameras`, `mqtt`, `webhook`) are checked and otherwise ignored.
///
/// # Errors
/// When the file cannot be read, is not TOML, or has an unknown key or a value out of range.
pub fn read(path: Option<&Path>) -> Result<Config, ConfigError> {
    path.map_or_else(|| Ok(Config::default()), of_file)
}

#[cfg(feature = "serve")]
fn of_file(path: &Path) -> Result<Config, ConfigError> {
    Ok(twintrack::serve::ServiceConfig::read_partial(path)?.1)
}

#[cfg(not(feature = "serve"))]
fn of_file(path: &Path) -> Result<Config, ConfigError> {
    Config::read(path)
}
