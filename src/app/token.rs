//! `twintrack token`: named tokens for programs that use the web server.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use crate::app::accounts::StateArgs;
use twintrack::serve::access::audit::AuditAction;
use twintrack::serve::access::role::Role;
use twintrack::time::Timestamp;

/// Add, list and remove tokens for programs that use the web server (twintrack serve). A running
/// service notices changes within two seconds.
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(flatten)]
    state: StateArgs,
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Add a token and print it, once: only its hash is kept.
    Add {
        /// Name of the token: up to 64 letters, digits, '-', '_', '.' and '@'.
        name: String,
        /// What requests with the token may do: viewer, operator or admin.
        #[arg(long)]
        role: Role,
        /// Time after which the token becomes invalid, such as 90d, 12h or "6 months"; by default
        /// it stays valid.
        #[arg(long, value_name = "TIME", value_parser = time_span)]
        expires: Option<jiff::Span>,
    },
    /// List names, roles and expiry of the tokens, not the tokens themselves.
    List,
    /// Remove a token; it becomes invalid.
    Remove {
        /// Name of the token.
        name: String,
    },
}

fn time_span(text: &str) -> Result<jiff::Span, String> {
    let span: jiff::Span = text
        .parse()
        .map_err(|e| format!("{e}; use 90d, 12h or \"6 months\""))?;
    if span.is_positive() {
        Ok(span)
    } else {
        Err("it must be longer than nothing".into())
    }
}

/// Runs the command; returns the text to print.
///
/// # Errors
/// When the file of users cannot be used, or the name is invalid, taken or missing.
pub fn run(args: &TokenArgs) -> Result<String> {
    match &args.command {
        TokenCommand::Add {
            name,
            role,
            expires,
        } => {
            let now = twintrack::clock::now();
            let expires = expires.map(|span| after(now, span)).transpose()?;
            let what = format!("token {name} added as {role}");
            let (token, line) =
                args.state
                    .update(AuditAction::TokenChanged, &what, |accounts| {
                        accounts.add_token(name, *role, expires, now)
                    })?;
            eprintln!("{line}; the token is not shown again:");
            Ok(token.expose().to_string())
        }
        TokenCommand::List => list(args),
        TokenCommand::Remove { name } => {
            let what = format!("token {name} removed");
            let (_, line) = args
                .state
                .update(AuditAction::TokenChanged, &what, |accounts| {
                    accounts.remove_token(name)
                })?;
            Ok(line)
        }
    }
}

/// The time `span` after `now`; days and months are those of UTC.
fn after(now: Timestamp, span: jiff::Span) -> Result<Timestamp> {
    let at = now
        .0
        .to_zoned_datetime(jiff::tz::TimeZone::UTC)
        .checked_add(span);
    let at = at.context("--expires is too far in the future")?;
    if at.timestamp() <= now.0 {
        bail!("--expires must be in the future");
    }
    Ok(Timestamp(at.timestamp()))
}

fn list(args: &TokenArgs) -> Result<String> {
    let (accounts, path) = args.state.read()?;
    if accounts.tokens.is_empty() {
        return Ok(format!("no tokens in {}", path.display()));
    }
    let (mut out, now) = (String::new(), twintrack::clock::now());
    writeln!(out, "{:<24} {:<9} {:<20}  expires", "name", "role", "added")?;
    for (name, token) in &accounts.tokens {
        let expires = token
            .expires
            .map_or("never".into(), |t| format!("{:.0}", t.0));
        let over = if token.has_expired(now) {
            " (has expired)"
        } else {
            ""
        };
        let (role, created) = (token.role.name(), format!("{:.0}", token.created.0));
        writeln!(out, "{name:<24} {role:<9} {created:<20}  {expires}{over}")?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_until_expiry_are_those_of_the_calendar() {
        let now = Timestamp("2026-11-27T10:00:00Z".parse().expect("a time"));
        let expiry = |text: &str| {
            let at = after(now, time_span(text).expect("a span")).expect("in range");
            at.0.to_string()
        };
        assert_eq!(expiry("90d"), "2027-02-25T10:00:00Z");
        assert_eq!(expiry("12h"), "2026-11-27T22:00:00Z");
        assert_eq!(expiry("6 months"), "2027-05-27T10:00:00Z");
        for wrong in ["", "soon", "0s", "-3d", "90"] {
            assert!(time_span(wrong).is_err(), "{wrong}");
        }
        assert!(after(now, time_span("9000y").expect("a span")).is_err());
    }
}
