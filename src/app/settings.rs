//! Reads the file given by `--config`; the same file works for every command except training. The
//! program `twintrack-train` includes this module too.

use std::path::Path;

use twintrack::config::{Config, ConfigError};

/// Reads the configuration at `path`; if `path` is `None`, returns the defaults. With the feature
/// `serve`, the sections of `serve` (`serve`, `cameras`, `mqtt`, `nats`, `webhook`, `history`,
/// `multi_camera`, `fleet`) are checked and otherwise ignored; without it they are rejected as
/// unknown.
///
/// # Errors
/// When the file cannot be read, is not TOML, or has an unknown key or an invalid value.
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
