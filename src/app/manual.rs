//! `twintrack completions` and `twintrack manual`: shell completions and manual page, generated
//! from the definition of the command line.

use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man;

/// Print a completion script for a shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// The completion script for the program `command`.
///
/// # Errors
/// When the script is not UTF-8, which is impossible because clap's definition is UTF-8.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Result<String> {
    let (name, mut script) = (command.get_name().to_string(), Vec::new());
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    String::from_utf8(script).context("the completion script is not UTF-8")
}

/// The manual page (roff) of the program `command`: its own sections, then one for each of its
/// commands.
///
/// # Errors
/// When rendering fails, or the rendered text is not UTF-8.
pub fn page(mut command: Command) -> Result<String> {
    command.build();
    let man = Man::new(command.clone());
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut page = String::from_utf8(page).context("the manual is not UTF-8")?;
    add_commands(&mut page, &command)?;
    Ok(page)
}

/// Adds a section for each command of `parent`, and for their subcommands.
fn add_commands(page: &mut String, parent: &Command) -> Result<()> {
    for command in parent.get_subcommands().filter(|c| c.get_name() != "help") {
        let man = Man::new(command.clone());
        let mut section = Vec::new();
        man.render_description_section(&mut section)?;
        man.render_synopsis_section(&mut section)?;
        man.render_options_section(&mut section)?;
        let section = String::from_utf8(section).context("the manual is not UTF-8")?;
        let name = command.get_bin_name().unwrap_or(command.get_name());
        page.push_str(&format!(".SH \"{}\"\n", name.to_uppercase()));
        for line in section.lines() {
            // The command's sections become subsections.
            match line.strip_prefix(".SH ") {
                Some(title) => page.push_str(&format!(".SS {title}\n")),
                None => page.push_str(&format!("{line}\n")),
            }
        }
        add_commands(page, command)?;
    }
    Ok(())
}
