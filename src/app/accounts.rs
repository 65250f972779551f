//! What the commands `user` and `token` share: the file of users, and the audit log.

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use twintrack::serve::access::accounts::{Accounts, AccountsError};
use twintrack::serve::access::accounts_file::AccountsFile;
use twintrack::serve::access::audit::{AuditAction, AuditEntry};
use twintrack::serve::access::audit_file::AuditFile;
use twintrack::serve::access::principal::Principal;
use twintrack::serve::config::{ServeConfig, ServiceConfig};

/// Where the service keeps its users.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// Configuration of the service (TOML); `serve.state_dir` is the folder of its users.
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Folder of the service's users, instead of that of the settings; without both, the value of
    /// STATE_DIRECTORY or `twintrack-state`.
    #[arg(long, value_name = "DIR", global = true)]
    state_dir: Option<PathBuf>,
}

impl StateArgs {
    fn settings(&self) -> Result<ServeConfig> {
        let mut settings = match &self.config {
            Some(path) => ServiceConfig::read_partial(path)?.0.serve,
            None => ServeConfig::default(),
        };
        if let Some(folder) = &self.state_dir {
            settings.state_dir = Some(folder.clone());
        }
        Ok(settings)
    }

    /// The accounts, and the path of their file.
    ///
    /// # Errors
    /// When the settings or the file cannot be read.
    pub fn read(&self) -> Result<(Accounts, PathBuf)> {
        let file = AccountsFile::in_folder(&self.settings()?.state());
        Ok((file.read()?, file.path().into()))
    }

    /// Changes the accounts and adds an entry to the audit log. Returns the result of `change`, and
    /// a line that names the file.
    ///
    /// # Errors
    /// When the settings or the file cannot be read or written, or `change` fails.
    pub fn update<T>(
        &self,
        action: AuditAction,
        what: &str,
        change: impl FnOnce(&mut Accounts) -> Result<T, AccountsError>,
    ) -> Result<(T, String)> {
        let settings = self.settings()?;
        let file = AccountsFile::in_folder(&settings.state());
        let result = file.update(change)?;
        let (bytes, keep) = (settings.audit_bytes, settings.audit_keep);
        let audit = AuditFile::in_folder(&settings.state(), bytes, keep);
        let entry = AuditEntry::new(action);
        let entry = entry.by(&Principal::command_line(&own_name())).on(what);
        let mut line = format!("{what} ({})", file.path().display());
        if let Err(e) = audit.append(&entry) {
            write!(
                line,
                "; the audit log {} cannot be written: {e}",
                audit.path().display()
            )?;
        }
        Ok((result, line))
    }
}

/// Name of the user who runs the command; under `sudo`, of the user who called `sudo`.
fn own_name() -> String {
    ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|v| !v.is_empty()))
        .unwrap_or_else(|| "unknown".into())
}
