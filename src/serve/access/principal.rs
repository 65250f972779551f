//! Who sends a request.

use std::sync::Arc;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use crate::serve::access::role::Role;

/// How a principal is known.
#[derive(
    schemars::JsonSchema, Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize,
)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PrincipalKind {
    /// A client on this machine, while there are neither users nor tokens.
    Local,
    /// A user with a session.
    User,
    /// A token: a named one, or the one of the configuration.
    Token,
    /// Somebody who runs a command of the program.
    CommandLine,
}

/// Who sends a request: an extension of every request to a route that requires a role.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Principal {
    /// Name of the user or token; `local` for [`PrincipalKind::Local`].
    pub name: Arc<str>,
    /// What the principal may do.
    pub role: Role,
    /// How the principal is known.
    pub kind: PrincipalKind,
    /// Cancelled when the session ends or the token becomes invalid; open streams must end then.
    pub ended: CancellationToken,
    /// Present if the principal is known by a cookie, which browsers also send with requests that
    /// other pages cause: requests that change something must contain this CSRF token.
    pub csrf_token: Option<Arc<str>>,
    /// Digest of the credential: tells sessions of one user apart. None without a credential.
    pub(super) credential: Option<[u8; 32]>,
    /// While a clone of it exists, the session is in use and does not become idle.
    pub(super) _lease: Option<Arc<()>>,
}

/// Name of the principal without a credential.
pub const LOCAL: &str = "local";
/// Name of the token of the configuration.
pub const CONFIGURED_TOKEN: &str = "serve.token";

impl Principal {
    /// A principal with the role admin, who needs no credential.
    pub fn local() -> Self {
        Principal {
            name: LOCAL.into(),
            role: Role::Admin,
            kind: PrincipalKind::Local,
            ended: CancellationToken::new(),
            csrf_token: None,
            credential: None,
            _lease: None,
        }
    }

    /// The operating system's user who runs a command of the program.
    pub fn command_line(user: &str) -> Self {
        Principal {
            name: user.into(),
            kind: PrincipalKind::CommandLine,
            ..Principal::local()
        }
    }

    /// A token that is valid until `ended` is cancelled.
    pub(super) fn token(
        name: &str,
        role: Role,
        credential: [u8; 32],
        ended: CancellationToken,
    ) -> Self {
        Principal {
            name: name.into(),
            role,
            kind: PrincipalKind::Token,
            ended,
            credential: Some(credential),
            ..Principal::local()
        }
    }
}
