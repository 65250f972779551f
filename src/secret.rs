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
    pub fn find(
        what: &str,
        itself: &Option<Secret>,
        variable: &Option<String>,
        file: &Option<PathBuf>,
    ) -> Result<Option<Secret>, String> {
        match (itself, variable, file) {
            (Some(secret), _, _) => Ok(Some(secret.clone())),
            (_, Some(name), _) => match std::env::var(name) {
                Ok(text) => Ok(Some(Secret(text))),
                Err(_) => Err(format!(
                    "the environment variable {name}, which is to hold its {what}, is not set"
                )),
            },
            (_, _, Some(file)) => {
                let text = std::fs::read_to_string(file).map_err(|e| {
                    format!("its {what} file {} cannot be read: {e}", file.display())
                })?;
                Ok(Some(Secret(
                    text.lines().next().unwrap_or_default().to_string(),
                )))
            }
            _ => Ok(None),
        }
    }

    /// As [`Secret::find`], for one that is compared or signed with: an empty one would let everybody in.
    ///
    /// # Errors
    /// As there, and when it is empty or of white space.
    pub fn find_strong(
        what: &str,
        itself: &Option<Secret>,
        variable: &Option<String>,
        file: &Option<PathBuf>,
    ) -> Result<Option<Secret>, String> {
        let secret = Self::find(what, itself, variable, file)?;
        let Some(blank) = secret.as_ref().filter(|s| s.0.trim().is_empty()) else {
            return Ok(secret);
        };
        let place = match (itself, variable, file) {
            (Some(_), _, _) => "given".to_string(),
            (_, Some(name), _) => format!("in the environment variable {name}"),
            (_, _, Some(file)) => format!("in the file {}", file.display()),
            _ => String::new(),
        };
        Err(format!(
            "its {what} {place} is {}; `openssl rand -hex 24` makes one",
            if blank.0.is_empty() {
                "empty"
            } else {
                "white space"
            }
        ))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blank_token_is_refused_wherever_it_stands() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for blank in ["", "\n", "   \nand more\n"] {
            std::fs::write(file.path(), blank).expect("written");
            let refused = Secret::find_strong("token", &None, &None, &Some(file.path().into()))
                .expect_err("blank");
            assert!(
                refused.contains("token") && refused.contains(&file.path().display().to_string()),
                "{refused}"
            );
        }
        assert!(
            Secret::find_strong("secret", &Some(Secret::new(" \t")), &None, &None)
                .expect_err("blank")
                .contains("white space")
        );
        std::fs::write(file.path(), "good\n").expect("written");
        assert_eq!(
            Secret::find_strong("token", &None, &None, &Some(file.path().into())),
            Ok(Some(Secret::new("good")))
        );
        assert_eq!(Secret::find_strong("token", &None, &None, &None), Ok(None));
    }
}
