//! What a route requires of a request.

use crate::serve::access::role::Role;

/// What a route requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Nothing: health checks, whose clients have no token and use any host name.
    Nothing,
    /// No login, but not a page of another origin: the login itself.
    OwnOrigin,
    /// A principal with at least this role. Requests that change something and are authorised by a
    /// cookie also need the CSRF token.
    Role(Role),
}

/// The requirement of a role.
pub fn role(least: Role) -> Requirement {
    Requirement::Role(least)
}
