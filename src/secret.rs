//! Passwords and tokens: where they are found, and that they are never shown.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

/// A text that is never shown: not in a log, not in an event, not by `twintrack config`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Takes a text as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself; whoever asks must not show it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The secret called `what`, given itself, by the name of an environment variable, or by a file of which it is the first line.
    ///
    /// # Errors
    /// When the variable or the file is missing: a text that says so.
    pub fn find(what: &str, itself: &Option<Secret>, variable: &Option<String>, file: &Option<PathBuf>) -> Result<Option<Secret>, String> {
        match (itself, variable, file) {
            (Some(secret), _, _) => Ok(Some(secret.clone())),
            (_, Some(name), _) => match std::env::var(name) {
                Ok(text) => Ok(Some(Secret(text))),
                Err(_) => Err(format!("the environment variable {name}, which is to hold its {what}, is not set")),
            },
            (_, _, Some(file)) => {
                let text = std::fs::read_to_string(file).map_err(|e| format!("its {what} file {} cannot be read: {e}", file.display()))?;
                Ok(Some(Secret(text.lines().next().unwrap_or_default().to_string())))
            }
            _ => Ok(None),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str("***")
    }
}
