//! Who may use the web server: users, tokens, sessions, roles, limits on logins, trusted proxies,
//! and the audit log. [`control`] puts them together, [`authenticate`] holds the middlewares.

pub mod accounts;
pub mod accounts_file;
pub mod audit;
pub mod audit_file;
pub mod authenticate;
pub mod base_path;
pub mod client;
pub mod control;
mod cookies;
pub mod live_accounts;
pub mod login;
mod login_limits;
mod origin;
pub mod password;
pub mod principal;
pub mod rate_limit;
pub mod requirement;
pub mod role;
pub mod sessions;
