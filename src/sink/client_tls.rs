//! Files of a TLS client, and its cryptography.

use std::path::{Path, PathBuf};

/// The contents of a TLS client's files (PEM).
pub(super) struct ClientTls {
    /// CA certificate with which the server's certificate is verified.
    pub ca: Option<Vec<u8>>,
    /// Certificate of the client, and its key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// A message, when a file cannot be read, or only one of certificate and key is given.
    pub fn read(
        ca: &Option<PathBuf>,
        certificate: &Option<PathBuf>,
        key: &Option<PathBuf>,
    ) -> Result<Self, String> {
        let client = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            (None, None) => None,
            _ => return Err("certificate_file and key_file must be set together".into()),
        };
        Ok(ClientTls {
            ca: ca.as_deref().map(read).transpose()?,
            client,
        })
    }
}

fn read(path: impl AsRef<Path>) -> Result<Vec<u8>, String> {
    let path = path.as_ref();
    std::fs::read(path).map_err(|e| format!("cannot read {}: {e}", path.display()))
}

/// Makes ring the process's provider of TLS's cryptography. An error is ignored: it means that
/// another part of the program has installed a provider already.
pub(super) fn install_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}
