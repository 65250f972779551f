//! The users and named tokens as the running service knows them: read again when their file
//! changes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio_util::sync::CancellationToken;

use crate::serve::access::accounts::Accounts;
use crate::serve::access::accounts_file::{AccountsFile, AccountsFileError, FileStamp};
use crate::serve::access::principal::Principal;
use crate::serve::access::role::Role;
use crate::serve::access::sessions::{Hash, hash};
use crate::time::Timestamp;

/// A token in use: open streams of its principal end when it becomes invalid.
#[derive(Clone)]
struct Token {
    name: String,
    role: Role,
    expires: Option<Timestamp>,
    ended: CancellationToken,
}

impl Token {
    fn is_same(&self, other: &Token) -> bool {
        (&self.name, self.role, self.expires) == (&other.name, other.role, other.expires)
    }
}

/// The accounts, and their tokens by hash.
#[derive(Default)]
struct Loaded {
    accounts: Accounts,
    tokens: BTreeMap<Hash, Token>,
}

impl Loaded {
    /// `before`: the accounts until now, whose tokens stay valid if they are unchanged.
    fn new(accounts: Accounts, before: &Loaded) -> Self {
        let mut tokens = BTreeMap::new();
        for (name, token) in &accounts.tokens {
            // Validated: the text has 64 hexadecimal digits.
            let mut key = Hash::default();
            if hex::decode_to_slice(&token.sha256, &mut key).is_err() {
                continue;
            }
            let fresh = Token {
                name: name.clone(),
                role: token.role,
                expires: token.expires,
                ended: CancellationToken::new(),
            };
            let kept = before
                .tokens
                .get(&key)
                .filter(|t| t.is_same(&fresh))
                .cloned();
            tokens.insert(key, kept.unwrap_or(fresh));
        }
        Loaded { accounts, tokens }
    }

    /// Ends the streams of the tokens that are not the same in `after`.
    fn end_all_but(&self, after: &Loaded) {
        for (key, token) in &self.tokens {
            if !after.tokens.get(key).is_some_and(|t| t.is_same(token)) {
                token.ended.cancel();
            }
        }
    }
}

/// The accounts of the running service.
pub struct LiveAccounts {
    file: AccountsFile,
    loaded: RwLock<Arc<Loaded>>,
    /// Stamp of the file when it was last read.
    stamp: Mutex<Option<FileStamp>>,
    /// Whether there have been users or tokens since the start.
    existed: AtomicBool,
}

/// What a user's login and sessions are checked against.
pub struct KnownUser {
    /// What the user may do.
    pub role: Role,
    /// The PHC string of the password.
    pub password: String,
}

impl LiveAccounts {
    /// Reads the file, which may be missing.
    ///
    /// # Errors
    /// When the file cannot be read or is invalid.
    pub fn open(file: AccountsFile) -> Result<Self, AccountsFileError> {
        let stamp = FileStamp::of(file.path());
        let loaded = Loaded::new(file.read()?, &Loaded::default());
        Ok(LiveAccounts {
            file,
            existed: AtomicBool::new(!loaded.accounts.is_empty()),
            loaded: RwLock::new(Arc::new(loaded)),
            stamp: Mutex::new(stamp),
        })
    }

    fn loaded(&self) -> Arc<Loaded> {
        let loaded = self.loaded.read().unwrap_or_else(PoisonError::into_inner);
        loaded.clone()
    }

    /// Whether there have been neither users nor tokens since the start. A service that loses its
    /// last user must not become open: it is closed until it is started again.
    pub fn have_never_existed(&self) -> bool {
        !self.existed.load(Ordering::Acquire)
    }

    /// Whether there are users, who log in.
    pub fn has_users(&self) -> bool {
        !self.loaded().accounts.users.is_empty()
    }

    /// The user of this name.
    pub fn user(&self, name: &str) -> Option<KnownUser> {
        let loaded = self.loaded();
        let user = loaded.accounts.users.get(name)?;
        Some(KnownUser {
            role: user.role,
            password: user.password.clone(),
        })
    }

    /// The principal of a named token that is valid now.
    pub fn token(&self, given: &str, now: Timestamp) -> Option<Principal> {
        let (loaded, key) = (self.loaded(), hash(given));
        // A lookup by hash needs no constant time: nobody can choose a token's hash.
        let token = loaded.tokens.get(&key)?;
        let expired = token.expires.is_some_and(|expires| expires <= now);
        (!expired).then(|| Principal::token(&token.name, token.role, key, token.ended.clone()))
    }

    /// Ends the streams of the tokens that have expired.
    pub fn sweep(&self, now: Timestamp) {
        for token in self.loaded().tokens.values() {
            if token.expires.is_some_and(|expires| expires <= now) {
                token.ended.cancel();
            }
        }
    }

    /// Reads the file again if it has changed, or in any case if `force`. If that fails, an error
    /// is logged and the accounts stay as they were; likewise if the file is missing, because a
    /// service that loses its users must not become open.
    pub fn reload(&self, force: bool) {
        let stamp = FileStamp::of(self.file.path());
        {
            let mut seen = self.stamp.lock().unwrap_or_else(PoisonError::into_inner);
            if *seen == stamp && !force {
                return;
            }
            *seen = stamp;
        }
        let before = self.loaded();
        let read = match self.file.read() {
            Ok(accounts) if stamp.is_none() && !before.accounts.is_empty() => {
                debug_assert!(accounts.is_empty());
                Err("the file is missing".to_string())
            }
            read => read.map_err(|e| e.to_string()),
        };
        match read {
            Err(error) => tracing::error!(
                file = %self.file.path().display(), error,
                "cannot read the users again; users and tokens stay unchanged"
            ),
            Ok(accounts) if accounts == before.accounts => {}
            Ok(accounts) => {
                tracing::warn!(
                    users = accounts.users.len(),
                    tokens = accounts.tokens.len(),
                    "the users and tokens have been read again"
                );
                if accounts.is_empty() {
                    tracing::warn!(
                        "there are no users and tokens any more: nobody is let in without the token \
                         of the configuration, until there are some or the service is started again"
                    );
                } else {
                    self.existed.store(true, Ordering::Release);
                }
                let loaded = Arc::new(Loaded::new(accounts, &before));
                {
                    let mut slot = self.loaded.write().unwrap_or_else(PoisonError::into_inner);
                    slot.clone_from(&loaded);
                }
                // After the change, so that a client that notices the end is refused from then on.
                before.end_all_but(&loaded);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn now() -> Timestamp {
        crate::clock::now()
    }

    #[test]
    fn a_change_of_the_file_is_noticed_and_an_invalid_or_missing_file_is_not_used() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = AccountsFile::in_folder(dir.path());
        let live = LiveAccounts::open(file.clone()).expect("missing");
        live.reload(false);
        assert!(live.have_never_existed() && !live.has_users());
        let password = Secret::new("correct horse");
        file.update(|a| a.add_user("anna", Role::Operator, &password, now()))
            .expect("written");
        live.reload(false);
        assert!(live.has_users());
        assert_eq!(live.user("anna").expect("known").role, Role::Operator);
        assert!(live.user("berta").is_none());
        std::fs::write(file.path(), "users = 3").expect("written");
        live.reload(false);
        assert!(live.user("anna").is_some());
        std::fs::remove_file(file.path()).expect("removed");
        live.reload(true);
        assert!(live.user("anna").is_some());
    }

    /// Regression: when the last user was removed, every client on this machine was an admin.
    #[test]
    fn a_service_that_loses_its_last_user_stays_closed() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = AccountsFile::in_folder(dir.path());
        let live = LiveAccounts::open(file.clone()).expect("missing");
        let password = Secret::new("correct horse");
        file.update(|a| a.add_user("anna", Role::Operator, &password, now()))
            .expect("written");
        live.reload(false);
        std::fs::write(file.path(), "").expect("written");
        live.reload(true);
        assert!(!live.has_users() && !live.have_never_existed());
    }

    #[test]
    fn a_removed_or_expired_token_ends_and_an_unchanged_one_does_not() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = AccountsFile::in_folder(dir.path());
        let soon = now().plus(crate::time::Seconds(3600.0));
        let add = |name: &str, expires| {
            file.update(|a| a.add_token(name, Role::Viewer, expires, now()))
                .expect("written")
        };
        let (kept, removed, expiring) = (add("a", None), add("b", None), add("c", Some(soon)));
        let live = LiveAccounts::open(file.clone()).expect("valid");
        let principal = |token: &Secret| live.token(token.expose(), now());
        let all = [&kept, &removed, &expiring].map(|t| principal(t).expect("valid"));
        assert_eq!((&*all[0].name, all[0].role), ("a", Role::Viewer));
        assert!(live.token("tt_wrong", now()).is_none() && live.token("", now()).is_none());
        file.update(|a| a.remove_token("b")).expect("written");
        live.reload(false);
        assert!(principal(&removed).is_none() && principal(&kept).is_some());
        let ended = |n: usize| all[n].ended.is_cancelled();
        assert!(!ended(0) && ended(1) && !ended(2));
        assert!(live.token(expiring.expose(), soon).is_none());
        live.sweep(soon);
        assert!(!ended(0) && ended(2));
    }
}
