//! The file of users and named tokens: `users.toml` in the state folder.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::serve::access::accounts::{Accounts, AccountsError};
use crate::serve::state_file;
use crate::sink::private;

/// Name of the file in the state folder.
const NAME: &str = "users.toml";

/// The file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AccountsFileError {
    /// It cannot be read.
    #[error("cannot read the users in {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot write the users to {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It is not TOML, or has unknown or missing keys.
    #[error("{path} is not a file of users: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The parser's message, without the text of the file.
        reason: String,
    },
    /// A name or value is invalid, or a change is not possible.
    #[error(transparent)]
    Accounts(#[from] AccountsError),
}

/// Tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileStamp {
    modified: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl FileStamp {
    /// The stamp of the file at `path`; None if it cannot be read.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|of| Self::from(&of))
    }
}

impl From<&Metadata> for FileStamp {
    fn from(of: &Metadata) -> Self {
        FileStamp {
            modified: (of.mtime(), of.mtime_nsec()),
            bytes: of.len(),
            inode: of.ino(),
        }
    }
}

/// The file of users and named tokens, accessible by its owner only.
#[derive(Debug, Clone)]
pub struct AccountsFile {
    path: PathBuf,
}

impl AccountsFile {
    /// The file in this state folder; it may be missing.
    pub fn in_folder(state: &Path) -> Self {
        AccountsFile {
            path: state.join(NAME),
        }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file; no accounts if it is missing.
    ///
    /// # Errors
    /// When the file cannot be read or is invalid.
    pub fn read(&self) -> Result<Accounts, AccountsFileError> {
        let read = state_file::read(&self.path);
        let read = read.map_err(|source| AccountsFileError::Read {
            path: self.path.clone(),
            source,
        })?;
        let Some(text) = read else {
            return Ok(Accounts::default());
        };
        // The message of the parser may quote a hash.
        let invalid = |e: toml::de::Error| AccountsFileError::Invalid {
            path: self.path.clone(),
            reason: match e.span() {
                Some(at) => {
                    let before = text.get(..at.start).unwrap_or_default();
                    let line = 1 + before.matches('\n').count();
                    format!("line {line} is not that of a users file")
                }
                None => "it is not a users file".into(),
            },
        };
        let accounts: Accounts = toml::from_str(&text).map_err(invalid)?;
        accounts.validate()?;
        Ok(accounts)
    }

    /// Changes the accounts: reads the file, calls `change`, and replaces the file. Changes of
    /// other processes wait meanwhile.
    ///
    /// # Errors
    /// When the file cannot be read or written, or `change` fails; the file is then unchanged.
    pub fn update<T>(
        &self,
        change: impl FnOnce(&mut Accounts) -> Result<T, AccountsError>,
    ) -> Result<T, AccountsFileError> {
        let failed = |source| AccountsFileError::Write {
            path: self.path.clone(),
            source,
        };
        let folder = self.path.parent().unwrap_or(Path::new("."));
        private::create_folder(folder).map_err(failed)?;
        let lock = private::options()
            .append(true)
            .create(true)
            .open(folder.join("users.lock"))
            .map_err(failed)?;
        lock.lock().map_err(failed)?;
        state_file::own_as(&lock, folder).map_err(failed)?;
        let mut accounts = self.read()?;
        let result = change(&mut accounts)?;
        self.write(&accounts).map_err(failed)?;
        Ok(result)
    }

    fn write(&self, accounts: &Accounts) -> io::Result<()> {
        let text = toml::to_string(accounts).map_err(io::Error::other)?;
        let head = "# Users and tokens of twintrack. Change them by `twintrack user` and \
                    `twintrack token`.\n\n";
        state_file::replace(&self.path, &format!("{head}{text}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::serve::access::role::Role;

    #[test]
    fn changes_replace_the_file_and_keep_its_mode() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = AccountsFile::in_folder(&dir.path().join("state"));
        assert!(file.read().expect("missing").is_empty());
        let mut stamps = Vec::new();
        for name in ["a", "b"] {
            file.update(|accounts| {
                accounts.add_token(name, Role::Viewer, None, crate::clock::now())
            })
            .expect("written");
            let mode = std::fs::metadata(file.path())
                .expect("there")
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
            stamps.push(FileStamp::of(file.path()));
        }
        assert!(stamps[0].is_some() && stamps[0] != stamps[1]);
        let names: Vec<String> = file.read().expect("valid").tokens.into_keys().collect();
        assert_eq!(names, ["a", "b"]);
        let left: Vec<_> = std::fs::read_dir(dir.path().join("state"))
            .expect("there")
            .map(|e| e.expect("an entry").file_name())
            .collect();
        assert_eq!(left.len(), 2, "the file and its lock: {left:?}");
    }

    #[test]
    fn a_failed_change_and_an_invalid_file_change_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = AccountsFile::in_folder(dir.path());
        file.update(|a| a.add_token("a", Role::Viewer, None, crate::clock::now()))
            .expect("written");
        let before = std::fs::read(file.path()).expect("there");
        assert!(file.update(|a| a.remove_token("b")).is_err());
        assert_eq!(std::fs::read(file.path()).expect("there"), before);
        std::fs::write(file.path(), "[users.a]\nrole = \"SECRET\"\n").expect("written");
        let error = file.update(|a| a.remove_token("a")).expect_err("invalid");
        assert!(error.to_string().contains("users.toml"), "{error}");
        let after = std::fs::read_to_string(file.path()).expect("there");
        assert_eq!(after, "[users.a]\nrole = \"SECRET\"\n");
    }

    #[test]
    fn parallel_changes_are_not_lost() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = AccountsFile::in_folder(dir.path());
        std::thread::scope(|scope| {
            for n in 0..8 {
                let file = file.clone();
                scope.spawn(move || {
                    let name = format!("t{n}");
                    file.update(|a| a.add_token(&name, Role::Viewer, None, crate::clock::now()))
                        .expect("written")
                });
            }
        });
        assert_eq!(file.read().expect("valid").tokens.len(), 8);
    }
}
