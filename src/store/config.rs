//! Settings of the history.

use std::path::{Path, PathBuf};

use derive_setters::Setters;
use serde::{Deserialize, Serialize};

use crate::range::{OutOfRange, within};
use crate::secret::Secret;
use crate::store::error::StoreError;

/// Section `[history]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct HistoryConfig {
    /// Address of a PostgreSQL database with pgvector, postgres://user:password@host/database.
    /// Absent: the SQLite file `history.sqlite` in the state folder. Prefer `url_env` or
    /// `url_file`, which keep the password out of this file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<Secret>,
    /// Environment variable that holds the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_env: Option<String>,
    /// File whose first line is the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// CA certificate (PEM) with which PostgreSQL's certificate is verified. Absent: Mozilla's list
    /// of CAs. A server on this machine is reached without TLS unless this is set or the address
    /// says `sslmode=require`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Seconds, 1 to 3600, after which a track that goes on is stored again. With a lower value, what
    /// is stored is more recent, and less is lost if the program is killed, but there are more
    /// writes.
    pub update_every: f64,
    /// Store the mean embedding of each track, for search by picture or track. Other outputs get
    /// embeddings only by `output.embeddings`.
    pub embeddings: bool,
    /// Store up to three crops of each track, JPEG.
    pub crops: bool,
    /// Maximum height of a stored crop in pixels, 32 to 1024; higher ones are scaled down.
    pub crop_height: u32,
    /// Days after which data are deleted, by kind.
    pub keep_days: KeepDays,
    /// Size in bytes, from 1048576, beyond which the oldest tracks and events are deleted; 0: no
    /// limit. SQLite: of the file without its free pages; PostgreSQL: of the stored values.
    pub max_bytes: u64,
    /// Memory in bytes, from 1048576, for the search among one embedder's embeddings in SQLite. An
    /// embedding takes 36 bytes plus 1 byte per dimension. If there are more embeddings, the newest
    /// that fit are searched.
    pub search_memory: u64,
}

/// Days, 0 to 36500, after which data are deleted; 0: never.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, Setters)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
#[setters(prefix = "with_")]
#[non_exhaustive]
pub struct KeepDays {
    /// Tracks, counted from their end, with everything about them.
    pub tracks: f64,
    /// Zone events, line events and changes of cameras' states.
    pub events: f64,
    /// Crops.
    pub crops: f64,
    /// Embeddings of tracks. Those of enrolled identities are kept until the identity is deleted.
    pub embeddings: f64,
}

impl Default for KeepDays {
    fn default() -> Self {
        KeepDays {
            tracks: 30.0,
            events: 90.0,
            crops: 7.0,
            embeddings: 30.0,
        }
    }
}

impl Default for HistoryConfig {
    fn default() -> Self {
        HistoryConfig {
            url: None,
            url_env: None,
            url_file: None,
            ca_file: None,
            update_every: 5.0,
            embeddings: false,
            crops: false,
            crop_height: 256,
            keep_days: KeepDays::default(),
            max_bytes: 10 << 30,
            search_memory: 512 << 20,
        }
    }
}

/// Smallest limit of size and memory in bytes.
const MIN_BYTES: u64 = 1 << 20;

impl HistoryConfig {
    /// Checks that every value is in its range.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), OutOfRange> {
        within("history.update_every", self.update_every, 1.0, 3600.0)?;
        within("history.crop_height", self.crop_height, 32, 1024)?;
        for (key, days) in [
            ("tracks", self.keep_days.tracks),
            ("events", self.keep_days.events),
            ("crops", self.keep_days.crops),
            ("embeddings", self.keep_days.embeddings),
        ] {
            within(&format!("history.keep_days.{key}"), days, 0.0, 36_500.0)?;
        }
        if self.max_bytes > 0 {
            within("history.max_bytes", self.max_bytes, MIN_BYTES, u64::MAX)?;
        }
        within(
            "history.search_memory",
            self.search_memory,
            MIN_BYTES,
            1 << 50,
        )
    }

    /// Where the data are: PostgreSQL if an address is given, else a file in the folder `state`.
    ///
    /// # Errors
    /// When the address cannot be read or parsed, or the CA's file cannot be read.
    pub fn location(&self, state: &Path) -> Result<Location, StoreError> {
        let settings = StoreError::Settings;
        let url = Secret::find_strong("url", &self.url, &self.url_env, &self.url_file)
            .map_err(settings)?;
        let Some(url) = url else {
            return Ok(Location::File(state.join("history.sqlite")));
        };
        crate::store::postgres::parse(&url).map_err(settings)?;
        if self.ca_file.is_some() {
            crate::store::postgres::tls(self.ca_file.as_deref()).map_err(settings)?;
        }
        Ok(Location::Server {
            url,
            ca_file: self.ca_file.clone(),
        })
    }

    /// Checks the settings, and that the address and the CA's file can be read, without opening a
    /// database.
    ///
    /// # Errors
    /// The first invalid setting, or a file that cannot be read.
    pub fn check(&self) -> Result<(), StoreError> {
        self.location(Path::new("")).map(drop)
    }
}

/// Where the data are.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Location {
    /// An SQLite file.
    File(PathBuf),
    /// A PostgreSQL database.
    Server {
        /// Its address, with the password.
        url: Secret,
        /// CA certificate.
        ca_file: Option<PathBuf>,
    },
}
