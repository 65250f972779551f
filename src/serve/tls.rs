//! TLS of the web server by certificate files, which are read again when they change.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use thiserror::Error;

use crate::serve::access::accounts_file::FileStamp;

/// The certificate cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or is not PEM.
    #[error("cannot read {what} {path}: {reason}")]
    Read {
        /// `the certificate` or `the key`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        reason: String,
    },
    /// Certificate and key do not belong together, or the key is of a kind that is not supported.
    #[error("the certificate {certificate} cannot be used with the key {key}: {source}")]
    Pair {
        /// File of the certificate.
        certificate: PathBuf,
        /// File of the key.
        key: PathBuf,
        /// The cause.
        source: rustls::Error,
    },
    /// The provider of cryptography has no usable cipher suite or key exchange.
    #[error("TLS is not available: {0}")]
    Unavailable(rustls::Error),
}

/// The files of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those of its issuers, PEM.
    pub certificate: PathBuf,
    /// The private key, PEM.
    pub key: PathBuf,
}

impl TlsFiles {
    fn stamps(&self) -> [Option<FileStamp>; 2] {
        [&self.certificate, &self.key].map(|path| FileStamp::of(path))
    }

    fn read(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let failed = |what, path: &Path, reason: String| TlsError::Read {
            what,
            path: path.into(),
            reason,
        };
        let chain = CertificateDer::pem_file_iter(&self.certificate)
            .and_then(|all| all.collect::<Result<Vec<_>, _>>())
            .map_err(|e| failed("the certificate", &self.certificate, e.to_string()))?;
        if chain.is_empty() {
            let reason = "it has no PEM section CERTIFICATE".into();
            return Err(failed("the certificate", &self.certificate, reason));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|e| failed("the key", &self.key, e.to_string()))?;
        CertifiedKey::from_der(chain, key, provider).map_err(|source| TlsError::Pair {
            certificate: self.certificate.clone(),
            key: self.key.clone(),
            source,
        })
    }
}

/// The certificate of the running service.
#[derive(Debug)]
pub struct Certificate {
    files: TlsFiles,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<CertifiedKey>>,
    /// Stamps of the files when they were last read.
    stamps: Mutex<[Option<FileStamp>; 2]>,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// When a file cannot be read, or the two do not belong together.
    pub fn open(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let provider = Arc::new(default_provider());
        let (stamps, current) = (files.stamps(), files.read(&provider)?);
        Ok(Arc::new(Certificate {
            files,
            provider,
            current: RwLock::new(Arc::new(current)),
            stamps: Mutex::new(stamps),
        }))
    }

    /// Settings of connections: TLS 1.2 and 1.3, HTTP/1.1. A handshake uses the certificate that
    /// was read last.
    ///
    /// # Errors
    /// When the provider of cryptography has no cipher suite for these versions, or no key exchange
    /// for one of its suites; ring has both.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<ServerConfig>, TlsError> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unavailable)?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// Reads the files again if one has changed, or in any case if `force`. A pair that cannot be
    /// used is logged, and the previous one stays in use.
    pub fn reload(&self, force: bool) {
        let stamps = self.files.stamps();
        {
            let mut seen = self.stamps.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == stamps && !force {
                return;
            }
            *seen = stamps;
        }
        match self.files.read(&self.provider) {
            Ok(pair) => {
                let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
                *current = Arc::new(pair);
                tracing::warn!("the certificate has been read again");
            }
            Err(error) => tracing::error!(
                %error, "cannot read the certificate again; the previous one stays in use"
            ),
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some(current.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes a new pair to the files.
    fn write(files: &TlsFiles) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_string()]).expect("made");
        std::fs::write(&files.certificate, made.cert.pem()).expect("written");
        std::fs::write(&files.key, made.signing_key.serialize_pem()).expect("written");
    }

    #[test]
    fn a_new_pair_is_used_and_a_bad_one_is_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let files = TlsFiles {
            certificate: dir.path().join("cert.pem"),
            key: dir.path().join("key.pem"),
        };
        let missing = Certificate::open(files.clone())
            .expect_err("missing")
            .to_string();
        assert!(missing.contains("cert.pem"), "{missing}");
        write(&files);
        let certificate = Certificate::open(files.clone()).expect("valid");
        certificate.server_config().expect("valid");
        let der = || certificate.current.read().expect("no panic").cert[0].clone();
        let first = der();
        certificate.reload(false);
        assert_eq!(der(), first);
        write(&files);
        certificate.reload(false);
        let second = der();
        assert_ne!(second, first);
        // The key of another certificate.
        let before = std::fs::read(&files.certificate).expect("there");
        write(&files);
        std::fs::write(&files.certificate, before).expect("written");
        certificate.reload(false);
        assert_eq!(der(), second);
        let error = Certificate::open(files.clone())
            .expect_err("no pair")
            .to_string();
        assert!(error.contains("key.pem"), "{error}");
        std::fs::write(&files.certificate, "no PEM").expect("written");
        certificate.reload(true);
        assert_eq!(der(), second);
        assert!(Certificate::open(files).is_err());
    }
}
