//! Passwords and tokens: reading them, and a type that masks them when displayed.

use std::env::VarError;
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
    /// A message, when the variable is not set or not UTF-8, or the file cannot be read.
    pub fn find(
        what: &str,
        value: &Option<Secret>,
        variable: &Option<String>,
        file: &Option<PathBuf>,
    ) -> Result<Option<Secret>, String> {
        match (value, variable, file) {
            (Some(secret), _, _) => Ok(Some(secret.clone())),
            (_, Some(name), _) => Self::of_variable(what, name, std::env::var(name)).map(Some),
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

    /// The secret that was read from the environment variable `name`.
    fn of_variable(
        what: &str,
        name: &str,
        read: Result<String, VarError>,
    ) -> Result<Secret, String> {
        read.map(Secret).map_err(|error| {
            // The error's own message has the value.
            let fault = match error {
                VarError::NotPresent => "is not set",
                VarError::NotUnicode(_) => "is not UTF-8",
            };
            format!("the environment variable {name} for the {what} {fault}")
        })
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

    /// Regression: a variable that is not UTF-8 was said not to be set.
    #[test]
    fn an_unusable_variable_is_named_without_its_value() {
        let fault = |error| Secret::of_variable("token", "TOKEN", Err(error)).expect_err("none");
        let unset = "the environment variable TOKEN for the token is not set";
        assert_eq!(fault(VarError::NotPresent), unset);
        let binary = VarError::NotUnicode("abc".into());
        let not_text = "the environment variable TOKEN for the token is not UTF-8";
        assert_eq!(fault(binary), not_text);
    }

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
