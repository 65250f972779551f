//! Passwords and tokens: reading them, and a type that masks them when displayed.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, Serializer};

/// A text that is masked wherever it is displayed, logged or serialised.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself. Must not be logged or displayed.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Reads the secret from the first of these that is given: its value, an environment variable,
    /// or the first line of a file. `what` names it in messages. None if none is given.
    ///
    /// # Errors
    /// A message, when the variable is not set or the file cannot be read.
    pub fn find(
        what: &str,
        value: &Option<Secret>,
        variable: &Option<String>,
        file: &Option<PathBuf>,
    ) -> Result<Option<Secret>, String> {
        match (value, variable, file) {
            (Some(secret), _, _) => Ok(Some(secret.clone())),
            (_, Some(name), _) => match std::env::var(name) {
                Ok(text) => Ok(Some(Secret(text))),
                Err(_) => Err(format!(
                    "the environment variable {name} for the {what} is not set"
                )),
            },
            (_, _, Some(file)) => {
                let text = std::fs::read_to_string(file)
                    .map_err(|e| format!("cannot read the {what} file {}: {e}", file.display()))?;
                Ok(Some(Secret(
                    text.lines().next().unwrap_or_default().to_string(),
                )))
            }
            _ => Ok(None),
        }
    }

    /// As [`Secret::find`], for secrets that authorise or sign, which must not be blank.
    ///
    /// # Errors
    /// As [`Secret::find`], and when the secret is empty or white space.
    pub fn find_strong(
        what: &str,
        value: &Option<Secret>,
        variable: &Option<String>,
        file: &Option<PathBuf>,
    ) -> Result<Option<Secret>, String> {
        let secret = Self::find(what, value, variable, file)?;
        let Some(blank) = secret.as_ref().filter(|s| s.0.trim().is_empty()) else {
            return Ok(secret);
        };
        let origin = match (value, variable, file) {
            (Some(_), _, _) => "in the configuration".to_string(),
            (_, Some(name), _) => format!("in the environment variable {name}"),
            (_, _, Some(file)) => format!("in the file {}", file.display()),
            _ => String::new(),
        };
        Err(format!(
            "the {what} {origin} is {}; generate one by `openssl rand -hex 24`",
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
    fn a_blank_secret_is_rejected_whatever_its_origin() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for blank in ["", "\n", "   \nand more\n"] {
            std::fs::write(file.path(), blank).expect("written");
            let rejected = Secret::find_strong("token", &None, &None, &Some(file.path().into()))
                .expect_err("blank");
            assert!(
                rejected.contains("token") && rejected.contains(&file.path().display().to_string()),
                "{rejected}"
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
