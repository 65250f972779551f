//! SHA-256 and SHA-384 checksums of downloaded files.

use std::io::Read;

use serde::Deserialize;
use sha2::{Digest as _, Sha256, Sha384};

/// The expected hash of a file, in lower-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Digest {
    /// SHA-256.
    Sha256(String),
    /// SHA-384.
    Sha384(String),
}

impl Digest {
    /// Name of the algorithm.
    pub fn kind(&self) -> &'static str {
        match self {
            Digest::Sha256(_) => "SHA-256",
            Digest::Sha384(_) => "SHA-384",
        }
    }

    /// The hexadecimal digits.
    pub fn hex(&self) -> &str {
        match self {
            Digest::Sha256(hex) | Digest::Sha384(hex) => hex,
        }
    }

    /// Whether the hash has the right number of lower-case hexadecimal digits.
    pub fn is_valid(&self) -> bool {
        let digits = match self {
            Digest::Sha256(_) => 64,
            Digest::Sha384(_) => 96,
        };
        self.hex().len() == digits
            && self
                .hex()
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }

    /// Starts a hash computation with the same algorithm.
    pub fn start(&self) -> Hasher {
        match self {
            Digest::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Digest::Sha384(_) => Hasher::Sha384(Sha384::new()),
        }
    }
}

/// A hash computation in progress.
#[derive(Debug, Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-384.
    Sha384(Sha384),
}

impl Hasher {
    /// Hashes more bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(s) => s.update(bytes),
            Hasher::Sha384(s) => s.update(bytes),
        }
    }

    /// Hashes at most `limit` bytes of the rest of `reader`; returns their number.
    ///
    /// # Errors
    /// Fails when reading fails.
    pub fn update_from(&mut self, reader: &mut impl Read, limit: u64) -> std::io::Result<u64> {
        let mut buffer = vec![0; 1 << 16];
        let mut reader = reader.take(limit);
        let mut count = 0;
        loop {
            match reader.read(&mut buffer)? {
                0 => return Ok(count),
                n => {
                    self.update(&buffer[..n]);
                    count += n as u64;
                }
            }
        }
    }

    /// The hash in hexadecimal.
    pub fn finish(self) -> String {
        match self {
            Hasher::Sha256(s) => hex::encode(s.finalize()),
            Hasher::Sha384(s) => hex::encode(s.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_of_abc_matches_the_standard() {
        // FIPS 180-2, appendices B.1 and D.1.
        let sums = [
            Digest::Sha256(
                "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into(),
            ),
            Digest::Sha384(
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
                 8086072ba1e7cc2358baeca134c825a7"
                    .into(),
            ),
        ];
        for wanted in sums {
            assert!(wanted.is_valid());
            let mut sum = wanted.start();
            assert_eq!(sum.update_from(&mut &b"abcdef"[..], 3).expect("read"), 3);
            assert_eq!(sum.finish(), wanted.hex());
        }
        assert!(!Digest::Sha384("ba78".into()).is_valid());
    }
}
