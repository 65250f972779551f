//! What can go wrong between a catalogue and a network that can be used.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a network of the catalogue is not there, or is not what it should be.
#[derive(Debug, Error)]
pub enum ModelsError {
    /// The catalogue is wrong.
    #[error("the catalogue {name} is wrong: {reason}")]
    Catalogue {
        /// Its file, or "of this program".
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no such entry.
    #[error("the catalogue has no network '{name}'; it has {known}")]
    Unknown {
        /// The name asked for.
        name: String,
        /// The names there are.
        known: String,
    },
    /// No folder to keep networks in.
    #[error(
        "there is no folder to keep networks in: neither TWINTRACK_DATA, XDG_DATA_HOME nor HOME is set; set TWINTRACK_DATA to a folder"
    )]
    NoFolder,
    /// The server cannot be reached.
    #[error(
        "cannot download {address}: {reason}; check the network (a proxy is taken from HTTPS_PROXY), or download it on another machine, put it at \
         {} and run this command again: it is checked there and installed",
        part.display()
    )]
    Unreachable {
        /// What was asked for.
        address: String,
        /// Why.
        reason: String,
        /// Where the file may be put by hand.
        part: PathBuf,
    },
    /// The server answers something else.
    #[error(
        "cannot download {address}: the server answered {answer}; nothing was installed. The file may have moved: look for a newer twintrack"
    )]
    Refused {
        /// What was asked for.
        address: String,
        /// Status, or length.
        answer: String,
    },
    /// The download ended too early.
    #[error(
        "the download of {address} broke off after {have} of {bytes} bytes ({reason}); run the same command again and it goes on from there"
    )]
    Interrupted {
        /// What was asked for.
        address: String,
        /// Bytes that are there.
        have: u64,
        /// Bytes there should be.
        bytes: u64,
        /// Why.
        reason: String,
    },
    /// The bytes are others than the catalogue's.
    #[error(
        "what came from {address} is not what the catalogue names: {kind} {found} instead of {wanted}; it was deleted. Run the command again; if that \
         does not help, the file at that address has changed and is not to be trusted"
    )]
    WrongHash {
        /// Where it came from.
        address: String,
        /// Kind of hash.
        kind: &'static str,
        /// Hash of what came.
        found: String,
        /// The catalogue's.
        wanted: String,
    },
    /// The disk is full.
    #[error(
        "the disk that holds {} is full; what had been downloaded was deleted. Free {} or set TWINTRACK_DATA to a folder on another disk",
        path.display(),
        size(*bytes)
    )]
    DiskFull {
        /// What was written.
        path: PathBuf,
        /// Size of the whole file.
        bytes: u64,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Somebody else downloads the same file.
    #[error("{} is being written by another twintrack; wait for it to end", .0.display())]
    Busy(PathBuf),
    /// An installed file is not what was installed.
    #[error("{} is damaged: {reason}; repair it with `twintrack models get {name}`", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
        /// The entry's name.
        name: String,
    },
    /// An OpenVINO network cannot be imported.
    #[error("cannot import the OpenVINO network {}: {reason}", path.display())]
    Import {
        /// The XML file.
        path: PathBuf,
        /// What it has that is not understood.
        reason: String,
    },
}

impl ModelsError {
    /// Writing `path`, a file of `bytes` bytes, failed.
    pub fn write(path: &Path, bytes: u64, source: std::io::Error) -> Self {
        match source.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
                ModelsError::DiskFull {
                    path: path.into(),
                    bytes,
                }
            }
            _ => ModelsError::File {
                action: "write",
                path: path.into(),
                source,
            },
        }
    }

    /// Reading `path` failed.
    pub fn read(path: &Path, source: std::io::Error) -> Self {
        ModelsError::File {
            action: "read",
            path: path.into(),
            source,
        }
    }
}

/// A number of bytes for people.
pub fn size(bytes: u64) -> String {
    if bytes < 100_000 {
        format!("{:.1} kB", bytes as f64 / 1e3)
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}
