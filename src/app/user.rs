//! `twintrack user`: the users of the web server.

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};

use crate::app::accounts::StateArgs;
use twintrack::secret::Secret;
use twintrack::serve::access::accounts::check_name;
use twintrack::serve::access::audit::AuditAction;
use twintrack::serve::access::password;
use twintrack::serve::access::role::Role;

/// Add, list, change and remove the users of the web server (twintrack serve). A running service
/// notices changes within two seconds.
#[derive(Debug, Args)]
pub struct UserArgs {
    #[command(flatten)]
    state: StateArgs,
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user; asks for the password twice.
    Add {
        /// Name of the user: up to 64 letters, digits, '-', '_', '.' and '@'.
        name: String,
        /// What the user may do: viewer, operator or admin.
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// List the users.
    List,
    /// Remove a user; open sessions end.
    Remove {
        /// Name of the user.
        name: String,
    },
    /// Set a new password; open sessions end.
    Password {
        /// Name of the user.
        name: String,
        #[command(flatten)]
        password: PasswordArgs,
    },
    /// Change a user's role; open sessions get it too.
    Role {
        /// Name of the user.
        name: String,
        /// What the user may do: viewer, operator or admin.
        role: Role,
    },
}

#[derive(Debug, Args)]
struct PasswordArgs {
    /// Read the password from the first line of standard input instead of the terminal.
    #[arg(long)]
    password_stdin: bool,
}

impl PasswordArgs {
    /// The new password, which is hashed later.
    fn read(&self) -> Result<Secret> {
        if self.password_stdin {
            let mut line = String::new();
            std::io::stdin()
                .lock()
                .read_line(&mut line)
                .context("standard input")?;
            let line = line.strip_suffix('\n').unwrap_or(&line);
            return Ok(Secret::new(line.strip_suffix('\r').unwrap_or(line)));
        }
        if !std::io::stdin().is_terminal() {
            bail!(
                "there is no terminal to ask for the password; give it as one line of standard \
                 input with --password-stdin"
            );
        }
        let terminal = console::Term::stderr();
        let ask = |question: &str| -> Result<Secret> {
            terminal.write_str(question)?;
            let typed = terminal.read_secure_line();
            Ok(Secret::new(typed.context("cannot read the password")?))
        };
        let first = ask(&format!(
            "password (at least {} characters): ",
            password::MIN_CHARACTERS
        ))?;
        if ask("the same again: ")? != first {
            bail!("the two passwords differ; nothing was changed");
        }
        Ok(first)
    }
}

/// Runs the command; returns the text to print.
///
/// # Errors
/// When the file of users cannot be used, the name is invalid or taken or missing, or the password
/// cannot be used.
pub fn run(args: &UserArgs) -> Result<String> {
    let changed = |what: &str, change: &dyn Fn(&mut _) -> Result<(), _>| -> Result<String> {
        let (_, line) = args.state.update(AuditAction::UserChanged, what, change)?;
        Ok(line)
    };
    match &args.command {
        UserCommand::Add {
            name,
            role,
            password,
        } => {
            // Before the password is asked for.
            check_name(name)?;
            let password = password.read()?;
            let now = twintrack::clock::now();
            changed(&format!("user {name} added as {role}"), &|accounts| {
                accounts.add_user(name, *role, &password, now)
            })
        }
        UserCommand::List => list(args),
        UserCommand::Remove { name } => changed(&format!("user {name} removed"), &|accounts| {
            accounts.remove_user(name)
        }),
        UserCommand::Password { name, password } => {
            let known = args.state.read()?.0.user_mut(name).map(|_| ());
            known?; // before the password is asked for
            let password = password.read()?;
            changed(&format!("user {name} has a new password"), &|accounts| {
                let user = accounts.user_mut(name)?;
                user.password = password::hash(&password)?;
                Ok(())
            })
        }
        UserCommand::Role { name, role } => {
            changed(&format!("user {name} is now {role}"), &|accounts| {
                accounts.user_mut(name)?.role = *role;
                Ok(())
            })
        }
    }
}

fn list(args: &UserArgs) -> Result<String> {
    let (accounts, path) = args.state.read()?;
    if accounts.users.is_empty() {
        return Ok(format!("no users in {}", path.display()));
    }
    let mut out = format!("{:<24} {:<9} added\n", "name", "role");
    for (name, user) in &accounts.users {
        // Padding needs a string.
        let role = user.role.name();
        writeln!(out, "{name:<24} {role:<9} {:.0}", user.created.0)?;
    }
    Ok(out)
}
