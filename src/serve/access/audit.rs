//! The audit log: who logged in, saw, searched, enrolled, deleted or changed what.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::Value;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

use crate::serve::access::audit_file::AuditFile;
use crate::serve::access::client::Client;
use crate::serve::access::principal::{Principal, PrincipalKind};
use crate::serve::access::role::Role;
use crate::time::Timestamp;

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuditAction {
    /// A user logged in, or tried to.
    Login,
    /// A user logged out.
    Logout,
    /// Pictures of a camera were seen.
    PictureSeen,
    /// Live events were received.
    LiveSeen,
    /// People were searched.
    Search,
    /// A person was enrolled or renamed.
    Enrol,
    /// Something was deleted.
    Delete,
    /// Zones or lines were changed.
    ZonesChanged,
    /// Cameras of the fleet were added, changed or removed.
    CamerasChanged,
    /// Data were exported.
    Export,
    /// A user was added, removed or changed.
    UserChanged,
    /// A token was added or removed.
    TokenChanged,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum AuditResult {
    /// It was done.
    Ok,
    /// It was refused, for example for a wrong password.
    Refused,
    /// It failed.
    Failed,
}

/// An entry of the log.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditEntry {
    schema: &'static str,
    /// Unique; entries of one run are ordered by it.
    id: uuid::Uuid,
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<PrincipalKind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<Role>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<IpAddr>,
    action: AuditAction,
    #[serde(skip_serializing_if = "Option::is_none")]
    object: Option<String>,
    result: AuditResult,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Longest object and reason, characters.
const MAX_TEXT: usize = 500;

impl AuditEntry {
    /// An entry of now, with the result `ok`.
    pub fn new(action: AuditAction) -> Self {
        AuditEntry {
            schema: "twintrack.audit/1",
            id: uuid::Uuid::now_v7(),
            time: crate::clock::now(),
            principal: None,
            kind: None,
            role: None,
            address: None,
            action,
            object: None,
            result: AuditResult::Ok,
            reason: None,
        }
    }

    /// States who did it.
    pub fn by(mut self, principal: &Principal) -> Self {
        self.principal = Some(principal.name.clone());
        self.kind = Some(principal.kind);
        self.role = Some(principal.role);
        self
    }

    /// States from where.
    pub fn from(mut self, client: &Client) -> Self {
        self.address = Some(client.address);
        self
    }

    /// States on what, such as a camera's name.
    pub fn on(mut self, object: impl Into<String>) -> Self {
        self.object = Some(object.into().chars().take(MAX_TEXT).collect());
        self
    }

    /// States another result than `ok`, with its reason, which must not contain secrets.
    pub fn ended(mut self, result: AuditResult, reason: impl Into<String>) -> Self {
        self.result = result;
        self.reason = Some(reason.into().chars().take(MAX_TEXT).collect());
        self
    }
}

/// What the thread that writes the log receives.
enum Message {
    Entry(Box<AuditEntry>),
    /// All entries before it have been written when the answer comes.
    Flush(oneshot::Sender<()>),
}

/// Entries that wait for a slow disk; further ones are dropped, counted and logged.
const QUEUE: usize = 1024;
/// Time for which a view of one object by one session is not logged again.
const SEEN_FOR: Duration = Duration::from_secs(24 * 3600);
/// Number of views remembered; if there are more, all are forgotten, and may be logged again.
const SEEN: usize = 4096;

/// Session or token, action, object.
type View = ([u8; 32], AuditAction, String);

/// The audit log of the running service. Clones share it. A thread writes it, so that a slow disk
/// does not delay answers.
#[derive(Clone)]
pub struct AuditLog {
    file: AuditFile,
    sender: Sender<Message>,
    lost: Arc<AtomicU64>,
    seen: Arc<Mutex<HashMap<View, Instant>>>,
}

impl AuditLog {
    /// Starts the thread, which ends with the last clone.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(file: AuditFile) -> Result<Self, String> {
        let (sender, mut receiver) = channel(QUEUE);
        let own = file.clone();
        std::thread::Builder::new()
            .name("audit".into())
            .spawn(move || write_all(&own, &mut receiver))
            .map_err(|e| format!("cannot start the audit log's thread: {e}"))?;
        Ok(AuditLog {
            file,
            sender,
            lost: Arc::default(),
            seen: Arc::default(),
        })
    }

    /// Adds an entry. If the queue is full, the entry is dropped, counted and logged.
    pub fn record(&self, entry: AuditEntry) {
        if self
            .sender
            .try_send(Message::Entry(Box::new(entry)))
            .is_err()
        {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            tracing::error!(
                lost,
                "an entry of the audit log is lost: the disk is too slow"
            );
        }
    }

    /// Adds an entry for an object that a principal sees, once per credential, action and object in
    /// `SEEN_FOR`: pages ask for pictures several times a second. Principals without a credential
    /// are left out.
    pub fn seen(&self, principal: &Principal, client: &Client, action: AuditAction, object: &str) {
        let Some(credential) = principal.credential else {
            return;
        };
        let (view, now) = ((credential, action, object.to_string()), Instant::now());
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.get(&view).is_some_and(|at| now - *at < SEEN_FOR) {
                return;
            }
            if seen.len() >= SEEN {
                seen.clear();
            }
            seen.insert(view, now);
        }
        self.record(
            AuditEntry::new(action)
                .by(principal)
                .from(client)
                .on(object),
        );
    }

    /// Waits until all entries so far have been written, at most for `limit`.
    pub async fn flush(&self, limit: Duration) {
        let flush = async {
            let (answer, written) = oneshot::channel();
            if self.sender.send(Message::Flush(answer)).await.is_ok() {
                let _ = written.await; // fails only if the thread has ended
            }
        };
        if tokio::time::timeout(limit, flush).await.is_err() {
            tracing::warn!(
                ?limit,
                "the audit log is not written yet: the disk is too slow"
            );
        }
    }

    /// The newest entries, see [`AuditFile::newest`]; those that wait are written first, if that
    /// takes no longer than 2 s.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub async fn newest(
        &self,
        limit: usize,
        before: Option<String>,
    ) -> std::io::Result<Vec<Value>> {
        self.flush(Duration::from_secs(2)).await;
        let file = self.file.clone();
        tokio::task::spawn_blocking(move || file.newest(limit, before.as_deref()))
            .await
            .map_err(std::io::Error::other)?
    }
}

/// Writes entries until all senders are gone. An entry that cannot be written is logged without its
/// content.
fn write_all(file: &AuditFile, receiver: &mut Receiver<Message>) {
    while let Some(message) = receiver.blocking_recv() {
        match message {
            Message::Entry(entry) => {
                if let Err(error) = file.append(&entry) {
                    tracing::error!(
                        file = %file.path().display(), %error,
                        "cannot write an entry of the audit log; it is lost"
                    );
                }
            }
            Message::Flush(answer) => {
                let _ = answer.send(()); // nobody may wait any more
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;

    use super::*;

    #[tokio::test]
    async fn views_are_logged_once_a_session_and_other_actions_each_time() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = AuditLog::start(AuditFile::in_folder(dir.path(), 0, 1)).expect("a thread");
        let client = Client {
            address: "203.0.113.9".parse().expect("an address"),
            ..Client::default()
        };
        let token =
            |n| Principal::token("grafana", Role::Viewer, [n; 32], CancellationToken::new());
        for _ in 0..3 {
            for n in [1, 2] {
                for camera in ["gate", "door"] {
                    log.seen(&token(n), &client, AuditAction::PictureSeen, camera);
                }
            }
            log.seen(
                &Principal::local(),
                &client,
                AuditAction::PictureSeen,
                "gate",
            );
            log.record(
                AuditEntry::new(AuditAction::Search)
                    .by(&token(1))
                    .on("a\npicture\""),
            );
        }
        log.flush(Duration::from_secs(60)).await;
        let entries = log.newest(100, None).await.expect("readable");
        let count = |action: &str| entries.iter().filter(|e| e["action"] == action).count();
        assert_eq!(
            (count("picture-seen"), count("search"), entries.len()),
            (4, 3, 7)
        );
        let seen = entries.last().expect("the first");
        let field = |key: &str| seen[key].as_str().unwrap_or_default().to_string();
        assert_eq!(field("schema"), "twintrack.audit/1");
        assert_eq!(
            (field("principal"), field("kind")),
            ("grafana".into(), "token".into())
        );
        assert_eq!(
            (field("address"), field("object")),
            ("203.0.113.9".into(), "gate".into())
        );
        assert_eq!(
            (field("role"), field("result")),
            ("viewer".into(), "ok".into())
        );
        assert!(field("time").ends_with('Z'));
    }

    /// Regression: with a full queue nothing was waited for.
    #[tokio::test]
    async fn entries_of_a_full_queue_are_waited_for() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = AuditFile::in_folder(dir.path(), 0, 1);
        let log = AuditLog::start(file.clone()).expect("a thread");
        let entry = || AuditEntry::new(AuditAction::Search);
        log.record(entry());
        log.flush(Duration::from_secs(60)).await;
        // The thread waits for this lock with the first entry, and the others fill the queue.
        let lock = std::fs::File::open(file.path()).expect("written");
        lock.lock().expect("locked");
        log.record(entry());
        while log.sender.capacity() < QUEUE {
            tokio::task::yield_now().await;
        }
        for _ in 0..QUEUE {
            log.record(entry());
        }
        assert_eq!(log.sender.capacity(), 0);
        tokio::join!(log.flush(Duration::from_secs(60)), async { drop(lock) });
        let entries = file.newest(QUEUE + 10, None).expect("readable");
        assert_eq!(entries.len(), QUEUE + 2);
    }

    #[tokio::test]
    async fn memory_of_views_is_bounded() {
        let dir = tempfile::tempdir().expect("a folder");
        let log = AuditLog::start(AuditFile::in_folder(dir.path(), 0, 1)).expect("a thread");
        let token = Principal::token("t", Role::Viewer, [1; 32], CancellationToken::new());
        for n in 0..SEEN + 10 {
            let object = n.to_string();
            log.seen(&token, &Client::default(), AuditAction::LiveSeen, &object);
        }
        assert!(log.seen.lock().expect("no panic").len() <= SEEN);
    }
}
