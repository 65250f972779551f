//! Errors of the catalogue, of downloads and of imports.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// Why a network of the catalogue cannot be listed, installed or verified.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ModelsError {
    /// The catalogue is invalid.
    #[error("the catalogue {name} is invalid: {reason}")]
    Catalogue {
        /// The catalogue's file, or "of this program".
        name: String,
        /// Description of the fault.
        reason: String,
    },
    /// The catalogue has no such entry.
    #[error("the catalogue has no network '{name}'; it has {known}")]
    Unknown {
        /// The requested name.
        name: String,
        /// The known names.
        known: String,
    },
    /// No folder for networks is configured.
    #[error(
        "there is no folder for networks: neither TWINTRACK_DATA, XDG_DATA_HOME nor HOME is set; \
         set TWINTRACK_DATA to a folder"
    )]
    NoFolder,
    /// The server cannot be reached.
    #[error(
        "cannot download {address}: {reason}; check the network (a proxy is taken from \
         HTTPS_PROXY), or download that address on another machine, save it as {} and run this \
         command again, which verifies and installs the file",
        part.display()
    )]
    Unreachable {
        /// The requested address.
        address: String,
        /// The reason.
        reason: String,
        /// Path for a manually downloaded file.
        part: PathBuf,
    },
    /// The server answered with something other than the expected file.
    #[error(
        "cannot download {address}: the server answered {answer}; nothing was installed. The file \
         may have moved: look for a newer twintrack"
    )]
    UnexpectedAnswer {
        /// The requested address.
        address: String,
        /// The status, or how the answer differs.
        answer: String,
    },
    /// The connection ended too early.
    #[error(
        "the download of {address} was interrupted after {have} of {bytes} bytes ({reason}); run \
         the same command again to resume it"
    )]
    Interrupted {
        /// The requested address.
        address: String,
        /// Bytes received so far.
        have: u64,
        /// Expected bytes.
        bytes: u64,
        /// The reason.
        reason: String,
    },
    /// The downloaded file's hash differs from the catalogue's.
    #[error(
        "the file from {address} does not match the catalogue: {kind} {found} instead of \
         {wanted}; it was deleted. Run the command again; if that does not help, the file at that \
         address has changed and is not to be trusted"
    )]
    WrongHash {
        /// Address of the download.
        address: String,
        /// Hash algorithm.
        kind: &'static str,
        /// Hash of the downloaded file.
        found: String,
        /// Hash in the catalogue.
        wanted: String,
    },
    /// The disk is full.
    #[error(
        "the disk that holds {} is full; the partial download was deleted. Free {} or set \
         TWINTRACK_DATA to a folder on another disk",
        path.display(),
        size(*bytes)
    )]
    DiskFull {
        /// The file that was written.
        path: PathBuf,
        /// Size of the complete file in bytes.
        bytes: u64,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    File {
        /// The attempted operation.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The reason.
        source: std::io::Error,
    },
    /// Another process downloads the same file.
    #[error("{} is being written by another twintrack; wait for it to end", .0.display())]
    Busy(PathBuf),
    /// An installed file differs from what was installed.
    #[error(
        "{} is damaged: {reason}; repair it with `twintrack models get {name}`",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The difference.
        reason: String,
        /// The entry's name.
        name: String,
    },
    /// An OpenVINO network cannot be imported.
    #[error("cannot import the OpenVINO network {}: {reason}", path.display())]
    Import {
        /// The XML file.
        path: PathBuf,
        /// The unsupported feature.
        reason: String,
    },
}

impl ModelsError {
    /// Error for writing `path`, a file of `bytes` bytes.
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

    /// Error for reading `path`.
    pub fn read(path: &Path, source: std::io::Error) -> Self {
        ModelsError::File {
            action: "read",
            path: path.into(),
            source,
        }
    }
}

/// Formats a number of bytes for messages.
pub fn size(bytes: u64) -> String {
    if bytes < 100_000 {
        format!("{:.1} kB", bytes as f64 / 1e3)
    } else {
        format!("{:.1} MB", bytes as f64 / 1e6)
    }
}
