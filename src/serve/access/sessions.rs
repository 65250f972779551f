//! Sessions of users, in memory: a restart of the service ends them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use crate::secret::Secret;

/// SHA-256 of something secret.
pub type Hash = [u8; 32];

/// SHA-256 of a text.
pub fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

/// 256 random bits as hexadecimal digits.
///
/// # Errors
/// When the operating system gives no random bits.
pub fn random_secret() -> Result<Secret, String> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits).map_err(|e| format!("cannot make a random number: {e}"))?;
    Ok(Secret::new(hex::encode(bits)))
}

/// Largest number of sessions of one user; a further login ends the one that was used longest ago.
const PER_USER: usize = 64;

/// A session, without its id.
struct Session {
    user: Arc<str>,
    /// Hash of the user's password hash: another password ends the session.
    stamp: Hash,
    started: Instant,
    used: Instant,
    ended: CancellationToken,
    lease: Arc<()>,
}

/// A session that was found.
pub struct Found {
    /// Name of the user.
    pub user: Arc<str>,
    /// The stamp with which the session was started.
    pub stamp: Hash,
    /// Cancelled when the session ends.
    pub ended: CancellationToken,
    /// While a clone exists, the session is not idle.
    pub lease: Arc<()>,
}

/// The sessions, by the hash of their id. Times are given, so that tests need not wait.
pub struct Sessions {
    /// A session ends after this time with neither requests nor open streams.
    idle: Duration,
    /// A session ends after this time in any case.
    lifetime: Duration,
    all: Mutex<BTreeMap<Hash, Session>>,
}

impl Sessions {
    /// No sessions yet.
    pub fn new(idle: Duration, lifetime: Duration) -> Self {
        Sessions {
            idle,
            lifetime,
            all: Mutex::default(),
        }
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Hash, Session>> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a session of a user; returns its id.
    ///
    /// # Errors
    /// When the operating system gives no random bits.
    pub fn start(&self, user: &str, stamp: Hash, now: Instant) -> Result<Secret, String> {
        let id = random_secret()?;
        let mut all = self.all();
        let mut own: Vec<(Instant, Hash)> = all
            .iter()
            .filter(|(_, s)| *s.user == *user)
            .map(|(key, s)| (s.used, *key))
            .collect();
        own.sort_unstable();
        let surplus = (own.len() + 1).saturating_sub(PER_USER);
        for (_, key) in own.iter().take(surplus) {
            remove(&mut all, key);
        }
        let session = Session {
            user: user.into(),
            stamp,
            started: now,
            used: now,
            ended: CancellationToken::new(),
            lease: Arc::default(),
        };
        all.insert(hash(id.expose()), session);
        Ok(id)
    }

    /// The session with this id, which counts as used. None if it does not exist or has expired.
    pub fn find(&self, id: &str, now: Instant) -> Option<Found> {
        let mut all = self.all();
        let key = hash(id);
        if self.is_over(all.get(&key)?, now) {
            remove(&mut all, &key);
            return None;
        }
        let session = all.get_mut(&key)?;
        session.used = now;
        Some(Found {
            user: session.user.clone(),
            stamp: session.stamp,
            ended: session.ended.clone(),
            lease: session.lease.clone(),
        })
    }

    /// Ends the session with this id, if it exists.
    pub fn end(&self, id: &str) {
        remove(&mut self.all(), &hash(id));
    }

    /// Ends the sessions that have expired, and those that `is_valid` (user, stamp) rejects.
    pub fn sweep(&self, now: Instant, is_valid: impl Fn(&str, &Hash) -> bool) {
        let mut all = self.all();
        for session in all.values_mut() {
            // This list holds one; an open stream holds another.
            if Arc::strong_count(&session.lease) > 1 {
                session.used = now;
            }
        }
        let over: Vec<Hash> = all
            .iter()
            .filter(|(_, s)| self.is_over(s, now) || !is_valid(&s.user, &s.stamp))
            .map(|(key, _)| *key)
            .collect();
        over.iter().for_each(|key| remove(&mut all, key));
    }

    fn is_over(&self, session: &Session, now: Instant) -> bool {
        now.saturating_duration_since(session.used) >= self.idle
            || now.saturating_duration_since(session.started) >= self.lifetime
    }
}

fn remove(all: &mut BTreeMap<Hash, Session>, key: &Hash) {
    if let Some(session) = all.remove(key) {
        session.ended.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn sessions() -> (Sessions, Instant) {
        (Sessions::new(10 * MINUTE, 60 * MINUTE), Instant::now())
    }

    #[test]
    fn a_session_ends_when_it_is_idle_or_old() {
        let (sessions, start) = sessions();
        let id = sessions.start("anna", [1; 32], start).expect("random");
        assert_eq!(id.expose().len(), 64);
        let found = |minutes: u32| sessions.find(id.expose(), start + minutes * MINUTE);
        for minute in (9..60).step_by(9) {
            assert_eq!(&*found(minute).expect("used").user, "anna");
        }
        assert!(found(60).is_none(), "60 minutes old");
        let idle = sessions.start("anna", [1; 32], start).expect("random");
        assert!(sessions.find(idle.expose(), start + 10 * MINUTE).is_none());
        assert!(sessions.find(idle.expose(), start).is_none(), "it is gone");
        assert!(sessions.find("", start).is_none());
    }

    #[test]
    fn ending_a_session_ends_its_streams() {
        let (sessions, start) = sessions();
        let id = sessions.start("anna", [1; 32], start).expect("random");
        let ended = sessions.find(id.expose(), start).expect("found").ended;
        sessions.sweep(start, |user, stamp| user == "anna" && *stamp == [1; 32]);
        assert!(!ended.is_cancelled());
        sessions.sweep(start, |_, stamp| *stamp == [2; 32]);
        assert!(ended.is_cancelled(), "another password");
        let id = sessions.start("anna", [1; 32], start).expect("random");
        let ended = sessions.find(id.expose(), start).expect("found").ended;
        sessions.end(id.expose());
        assert!(ended.is_cancelled() && sessions.find(id.expose(), start).is_none());
    }

    #[test]
    fn an_open_stream_keeps_a_session_in_use_until_its_lifetime_ends() {
        let (sessions, start) = sessions();
        let id = sessions.start("anna", [1; 32], start).expect("random");
        let stream = sessions.find(id.expose(), start).expect("found");
        for minute in 1..60 {
            sessions.sweep(start + minute * MINUTE, |_, _| true);
            assert!(!stream.ended.is_cancelled(), "minute {minute}");
        }
        sessions.sweep(start + 60 * MINUTE, |_, _| true);
        assert!(stream.ended.is_cancelled());
    }

    #[test]
    fn the_sessions_of_a_user_are_limited() {
        let (sessions, start) = sessions();
        let of = |user: &str, n: u32| {
            sessions
                .start(user, [0; 32], start + Duration::from_secs(n.into()))
                .expect("random")
        };
        let other = of("berta", 0);
        let ids: Vec<_> = (0..70).map(|n| of("anna", n)).collect();
        let now = start + MINUTE;
        let alive = |id: &Secret| sessions.find(id.expose(), now).is_some();
        assert!(alive(&other));
        assert_eq!(ids.iter().filter(|id| alive(id)).count(), PER_USER);
        assert!(!alive(&ids[5]) && alive(&ids[6]));
    }
}
