//! Users and named tokens, as in the file `users.toml`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::secret::Secret;
use crate::serve::access::password::{self, PasswordError};
use crate::serve::access::principal::{CONFIGURED_TOKEN, LOCAL};
use crate::serve::access::role::Role;
use crate::serve::access::sessions::{hash, random_secret};
use crate::time::Timestamp;

/// Largest number of characters of a name.
pub const MAX_NAME: usize = 64;
/// Beginning of every named token, by which scanners for leaked secrets recognise it.
pub const TOKEN_PREFIX: &str = "tt_";

/// A change of the accounts that is not possible.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum AccountsError {
    /// The name has other characters, or a wrong length.
    #[error(
        "the name {0:?} is not allowed: use 1 to {MAX_NAME} letters (a to z, A to Z), digits, \
         '-', '_', '.' and '@'"
    )]
    Name(String),
    /// The name has a meaning of its own.
    #[error("the name '{0}' is reserved")]
    Reserved(String),
    /// There is one of this name already.
    #[error("there is a {kind} '{name}' already")]
    Exists {
        /// `user` or `token`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// There is none of this name.
    #[error("there is no {kind} '{name}'; `twintrack {kind} list` lists all")]
    Missing {
        /// `user` or `token`.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// The password cannot be used.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// No random bits for a token.
    #[error("{0}")]
    Random(String),
    /// A value in the file is invalid.
    #[error("{key}: {reason}")]
    Value {
        /// The dotted key.
        key: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// A user.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct User {
    /// What the user may do.
    pub role: Role,
    /// Hash of the password: a PHC string of argon2id.
    pub password: String,
    /// When the user was added.
    pub created: Timestamp,
}

/// A named token.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct NamedToken {
    /// What requests with the token may do.
    pub role: Role,
    /// SHA-256 of the token, in hexadecimal digits.
    pub sha256: String,
    /// When the token was added.
    pub created: Timestamp,
    /// When the token becomes invalid; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Timestamp>,
}

impl NamedToken {
    /// Whether the token is invalid at this time.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The users and named tokens, by name.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Accounts {
    /// The users.
    pub users: BTreeMap<String, User>,
    /// The named tokens.
    pub tokens: BTreeMap<String, NamedToken>,
}

/// Checks a name of a user or token.
///
/// # Errors
/// [`AccountsError::Name`] or [`AccountsError::Reserved`].
pub fn check_name(name: &str) -> Result<(), AccountsError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.@".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
        Err(AccountsError::Name(name.chars().take(80).collect()))
    } else if [LOCAL, CONFIGURED_TOKEN].contains(&name) {
        Err(AccountsError::Reserved(name.into()))
    } else {
        Ok(())
    }
}

impl Accounts {
    /// Whether there are neither users nor tokens.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty() && self.tokens.is_empty()
    }

    /// Checks names and hashes, which a user may have edited.
    ///
    /// # Errors
    /// The first invalid name or hash.
    pub fn validate(&self) -> Result<(), AccountsError> {
        self.users
            .keys()
            .chain(self.tokens.keys())
            .try_for_each(|name| check_name(name))?;
        let value = |key: String, reason| AccountsError::Value { key, reason };
        for (name, user) in &self.users {
            if !password::is_hash(&user.password) {
                return Err(value(
                    format!("users.{name}.password"),
                    "it is not an argon2id hash; set the password by `twintrack user password`",
                ));
            }
        }
        for (name, token) in &self.tokens {
            if hex::decode(&token.sha256).map_or(0, |bytes| bytes.len()) != 32 {
                return Err(value(
                    format!("tokens.{name}.sha256"),
                    "it is not a SHA-256 in hexadecimal digits; add the token by \
                     `twintrack token add`",
                ));
            }
        }
        Ok(())
    }

    /// Adds a user.
    ///
    /// # Errors
    /// When the name is invalid or taken, or the password cannot be used.
    pub fn add_user(
        &mut self,
        name: &str,
        role: Role,
        password: &Secret,
        now: Timestamp,
    ) -> Result<(), AccountsError> {
        check_name(name)?;
        if self.users.contains_key(name) {
            return Err(AccountsError::Exists {
                kind: "user",
                name: name.into(),
            });
        }
        let password = password::hash(password)?;
        let user = User {
            role,
            password,
            created: now,
        };
        self.users.insert(name.into(), user);
        Ok(())
    }

    /// A user, to change it.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn user_mut(&mut self, name: &str) -> Result<&mut User, AccountsError> {
        self.users
            .get_mut(name)
            .ok_or_else(|| missing("user", name))
    }

    /// Removes a user.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn remove_user(&mut self, name: &str) -> Result<(), AccountsError> {
        let removed = self.users.remove(name);
        removed.map(|_| ()).ok_or_else(|| missing("user", name))
    }

    /// Adds a named token; returns it. Only its hash is kept.
    ///
    /// # Errors
    /// When the name is invalid or taken, or the operating system gives no random bits.
    pub fn add_token(
        &mut self,
        name: &str,
        role: Role,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Secret, AccountsError> {
        check_name(name)?;
        if self.tokens.contains_key(name) {
            return Err(AccountsError::Exists {
                kind: "token",
                name: name.into(),
            });
        }
        let random = random_secret().map_err(AccountsError::Random)?;
        let token = Secret::new(format!("{TOKEN_PREFIX}{}", random.expose()));
        let named = NamedToken {
            role,
            sha256: hex::encode(hash(token.expose())),
            created: now,
            expires,
        };
        self.tokens.insert(name.into(), named);
        Ok(token)
    }

    /// Removes a named token.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn remove_token(&mut self, name: &str) -> Result<(), AccountsError> {
        let removed = self.tokens.remove(name);
        removed.map(|_| ()).ok_or_else(|| missing("token", name))
    }
}

fn missing(kind: &'static str, name: &str) -> AccountsError {
    AccountsError::Missing {
        kind,
        name: name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        Timestamp(text.parse().expect("a time"))
    }

    #[test]
    fn users_and_tokens_are_added_once_and_removed() {
        let (mut accounts, now) = (Accounts::default(), time("2026-11-27T10:00:00Z"));
        let password = Secret::new("correct horse");
        accounts
            .add_user("anna", Role::Admin, &password, now)
            .expect("added");
        let again = accounts.add_user("anna", Role::Viewer, &password, now);
        assert!(again.is_err_and(|e| e.to_string().contains("already")));
        let token = accounts
            .add_token("grafana", Role::Viewer, None, now)
            .expect("added");
        assert!(token.expose().starts_with("tt_") && token.expose().len() == 3 + 64);
        let text = toml::to_string(&accounts).expect("serialises");
        assert!(
            !text.contains(token.expose()) && !text.contains("horse"),
            "{text}"
        );
        assert_eq!(toml::from_str::<Accounts>(&text).expect("valid"), accounts);
        accounts.validate().expect("valid");
        accounts.remove_user("anna").expect("there");
        accounts.remove_token("grafana").expect("there");
        assert!(accounts.is_empty());
        assert!(accounts.remove_user("anna").is_err() && accounts.remove_token("x").is_err());
    }

    #[test]
    fn names_that_could_break_headers_or_files_are_rejected() {
        for name in [
            "",
            "a b",
            "a\r\nSet-Cookie: x",
            "../x",
            "ä",
            "a\"b",
            "local",
            "serve.token",
        ] {
            assert!(check_name(name).is_err(), "{name:?}");
        }
        assert!(check_name(&"x".repeat(65)).is_err() && check_name(&"x".repeat(64)).is_ok());
        assert!(check_name("anna.b-2_c@site").is_ok());
    }

    #[test]
    fn values_that_are_no_hashes_are_rejected_with_their_key() {
        let text = "[users.anna]\nrole = \"admin\"\npassword = \"plain\"\n\
                    created = \"2026-11-27T10:00:00Z\"\n";
        let accounts: Accounts = toml::from_str(text).expect("TOML");
        let error = accounts.validate().expect_err("no hash").to_string();
        assert!(
            error.contains("users.anna.password") && !error.contains("plain"),
            "{error}"
        );
        let text = "[tokens.t]\nrole = \"viewer\"\nsha256 = \"00\"\n\
                    created = \"2026-11-27T10:00:00Z\"\n";
        let accounts: Accounts = toml::from_str(text).expect("TOML");
        let error = accounts.validate().expect_err("no hash").to_string();
        assert!(error.contains("tokens.t.sha256"), "{error}");
    }

    #[test]
    fn a_token_is_invalid_from_its_expiry_on() {
        let mut accounts = Accounts::default();
        let expires = time("2026-11-28T00:00:00Z");
        accounts
            .add_token(
                "t",
                Role::Viewer,
                Some(expires),
                time("2026-11-27T00:00:00Z"),
            )
            .expect("added");
        let token = &accounts.tokens["t"];
        assert!(!token.has_expired(time("2026-11-27T23:59:59Z")));
        assert!(token.has_expired(expires));
    }
}
