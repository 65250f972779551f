//! Passwords: their hashes (argon2id, PHC strings), and a limit on parallel verifications.

use std::sync::{Arc, OnceLock};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::secret::Secret;

/// Least number of characters of a password.
pub const MIN_CHARACTERS: usize = 8;
/// Largest number of bytes of a password.
pub const MAX_BYTES: usize = 1024;

// OWASP's password storage cheat sheet: argon2id with 19 MiB, 2 passes, 1 lane.
const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Verifications at a time; each takes [`MEMORY_KIB`] and about 20 ms of a core.
const PARALLEL: usize = 2;
/// Verifications that may wait; further ones fail with [`Busy`].
const WAITING: usize = 32;

/// A password that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PasswordError {
    /// Too few characters.
    #[error("the password has {0} characters; it needs at least {MIN_CHARACTERS}")]
    TooShort(usize),
    /// Too many bytes.
    #[error("the password has {0} bytes; {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// The hash function failed.
    #[error("cannot hash the password: {0}")]
    Hash(String),
}

fn argon2() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None);
    let params = params.expect("the constants are in argon2's ranges");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

/// The PHC string of a new password, with a random salt.
///
/// # Errors
/// When the password is too short or too long, or the operating system gives no random bits.
pub fn hash(password: &Secret) -> Result<String, PasswordError> {
    let text = password.expose();
    let characters = text.chars().count();
    if characters < MIN_CHARACTERS {
        return Err(PasswordError::TooShort(characters));
    }
    if text.len() > MAX_BYTES {
        return Err(PasswordError::TooLong(text.len()));
    }
    hash_any(text.as_bytes())
}

fn hash_any(password: &[u8]) -> Result<String, PasswordError> {
    argon2()
        .hash_password(password)
        .map(|hash| hash.to_string())
        .map_err(|e| PasswordError::Hash(e.to_string()))
}

/// Whether `phc` is a PHC string of argon2id.
pub fn is_hash(phc: &str) -> bool {
    PasswordHash::new(phc).is_ok_and(|h| h.algorithm.as_str() == "argon2id" && h.hash.is_some())
}

/// Whether the password has this hash. Without a hash, because the user does not exist, a hash of
/// another password is compared, so that the time does not reveal that the user does not exist.
fn verify(password: &[u8], phc: Option<&str>) -> bool {
    static OF_NOBODY: OnceLock<Option<String>> = OnceLock::new();
    let of_nobody = || OF_NOBODY.get_or_init(|| hash_any(b"the password of nobody").ok());
    let text = phc.or_else(|| of_nobody().as_deref());
    let hash = text.and_then(|text| PasswordHash::new(text).ok());
    let same = hash.is_some_and(|h| argon2().verify_password(password, &h).is_ok());
    same && phc.is_some()
}

/// Too many logins at the same time.
#[derive(Debug, PartialEq, Eq)]
pub struct Busy;

/// Verifies passwords on threads for blocking work, at most two at a time.
pub struct PasswordVerifier {
    running: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
}

impl Default for PasswordVerifier {
    fn default() -> Self {
        // The first login of an unknown user must not take longer than later ones.
        verify(b"", None);
        PasswordVerifier {
            running: Arc::new(Semaphore::new(PARALLEL)),
            waiting: Arc::new(Semaphore::new(PARALLEL + WAITING)),
        }
    }
}

impl PasswordVerifier {
    /// Whether the password has the hash `phc`. `phc` is None if the user does not exist: the
    /// result is then false, after the same time. A verification counts until it ends, also if the
    /// caller does not wait for it any more.
    ///
    /// # Errors
    /// [`Busy`] when too many verifications wait.
    pub async fn verify(&self, password: Secret, phc: Option<String>) -> Result<bool, Busy> {
        let waiting = self.waiting.clone().try_acquire_owned().map_err(|_| Busy)?;
        let running = self.running.clone().acquire_owned().await;
        let running = running.map_err(|_| Busy)?;
        let verified = tokio::task::spawn_blocking(move || {
            let _places = (waiting, running);
            verify(password.expose().as_bytes(), phc.as_deref())
        });
        // A panic of the hash function counts as a wrong password.
        Ok(verified.await.unwrap_or(false))
    }

    /// Takes all places, so that verifications fail with [`Busy`] until the result is dropped.
    #[cfg(test)]
    pub async fn occupy(&self) -> tokio::sync::SemaphorePermit<'_> {
        let all = u32::try_from(PARALLEL + WAITING).expect("small");
        self.waiting.acquire_many(all).await.expect("open")
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Future as _, poll_fn};
    use std::task::{Context, Poll};

    use super::*;

    #[test]
    fn a_hash_has_owasp_s_parameters_and_only_its_password_verifies() {
        let phc = hash(&Secret::new("correct horse")).expect("long enough");
        assert!(
            phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$") && is_hash(&phc),
            "{phc}"
        );
        assert_ne!(
            phc,
            hash(&Secret::new("correct horse")).expect("long enough"),
            "salted"
        );
        assert!(verify(b"correct horse", Some(&phc)));
        assert!(!verify(b"correct horsf", Some(&phc)));
        assert!(!verify(b"", Some(&phc)) && !verify(b"x", Some("no hash")));
        assert!(!is_hash("correct horse") && !is_hash("$argon2id$v=19$m=19456,t=2,p=1$"));
    }

    #[test]
    fn the_password_of_nobody_verifies_nobody() {
        assert!(!verify(b"the password of nobody", None));
    }

    #[test]
    fn short_and_huge_passwords_are_rejected() {
        assert_eq!(
            hash(&Secret::new("äöüäöüß")),
            Err(PasswordError::TooShort(7))
        );
        assert!(hash(&Secret::new("äöüäöüßx")).is_ok());
        assert_eq!(
            hash(&Secret::new("x".repeat(1025))),
            Err(PasswordError::TooLong(1025))
        );
    }

    #[tokio::test]
    async fn more_verifications_than_may_wait_are_refused() {
        let verifier = PasswordVerifier::default();
        let all = verifier.occupy().await;
        assert_eq!(verifier.verify(Secret::new("x"), None).await, Err(Busy));
        drop(all);
        assert_eq!(verifier.verify(Secret::new("x"), None).await, Ok(false));
    }

    #[test]
    fn a_verification_counts_although_its_client_has_disconnected() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .expect("started");
        runtime.block_on(async {
            let verifier = PasswordVerifier::default();
            // The only blocking thread is busy, so the verification waits.
            let (release, wait) = std::sync::mpsc::channel::<()>();
            let busy = tokio::task::spawn_blocking(move || wait.recv());
            let mut verifying = Box::pin(verifier.verify(Secret::new("x"), None));
            let once = |cx: &mut Context<'_>| Poll::Ready(verifying.as_mut().poll(cx));
            assert!(poll_fn(once).await.is_pending());
            drop(verifying);
            let places = || verifier.waiting.available_permits();
            assert_eq!(places(), PARALLEL + WAITING - 1);
            drop(release);
            busy.await.expect("ended").expect_err("nothing was sent");
            drop(verifier.occupy().await);
        });
    }
}
