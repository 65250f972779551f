//! `twintrack models`: networks that others have trained, by name.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use crate::models::catalogue::RemoteFile;
use crate::models::error::size;
use crate::models::folder::GetOutcome;
use crate::models::{Catalogue, CatalogueEntry, ModelFolder};

/// List, download and check networks that others have trained.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// Another catalogue (TOML) than this program's own.
    #[arg(long, value_name = "FILE", global = true)]
    catalogue: Option<PathBuf>,
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// What there is, what is installed, under which licence, and how good it is.
    List,
    /// Download networks from their publishers, check them, and install them for --detector NAME or --embedder NAME.
    Get {
        /// Names from `twintrack models list`.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// No progress.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Check every byte of what is installed.
    Verify,
}

/// Runs the command; returns what is to be printed.
///
/// # Errors
/// When the catalogue is wrong, a download fails, or an installed file is damaged.
pub fn run(args: &ModelsArgs) -> Result<String> {
    let catalogue = args
        .catalogue
        .as_deref()
        .map_or_else(Catalogue::own, Catalogue::read)?;
    let folder = ModelFolder::of_user()?;
    match &args.command {
        ModelsCommand::List => Ok(list(&catalogue, &folder)),
        ModelsCommand::Get { names, quiet } => get(&catalogue, &folder, names, *quiet),
        ModelsCommand::Verify => verify(&catalogue, &folder),
    }
}

fn list(catalogue: &Catalogue, folder: &ModelFolder) -> String {
    let mut out = format!(
        "{:<17} {:<9} {:>9}  {:<11} {:<13} what it is\n",
        "name", "kind", "size", "licence", "state"
    );
    for e in &catalogue.entries {
        let state = if folder.has(e) {
            "installed"
        } else {
            "not installed"
        };
        let row = format!(
            "{:<17} {:<9} {:>9}  {:<11} {state:<13} {}",
            e.name,
            e.kind.name(),
            size(e.bytes()),
            e.licence,
            e.about
        );
        let quality = e.quality.as_deref().unwrap_or("quality not measured here");
        writeln!(out, "{row}\n{:64} {quality}", "").expect("writing to a string cannot fail");
    }
    writeln!(out, "\nfolder: {}", folder.path().display())
        .expect("writing to a string cannot fail");
    out
}

fn get(
    catalogue: &Catalogue,
    folder: &ModelFolder,
    names: &[String],
    quiet: bool,
) -> Result<String> {
    // All names are known before the first byte moves.
    let entries = names
        .iter()
        .map(|n| catalogue.entry(n))
        .collect::<Result<Vec<&CatalogueEntry>, _>>()?;
    let mut out = String::new();
    for entry in entries {
        let mut shown = Shown::new(quiet);
        let got = folder.get(entry, &mut |file, there| shown.update(file, there))?;
        shown.finish();
        let done = if got == GetOutcome::Already {
            "is installed already"
        } else {
            "installed"
        };
        let path = folder.model(entry);
        writeln!(
            out,
            "{}: {done}, {}, licence {}; use it with --{} {}",
            entry.name,
            path.display(),
            entry.licence,
            entry.kind.name(),
            entry.name
        )?;
    }
    Ok(out)
}

fn verify(catalogue: &Catalogue, folder: &ModelFolder) -> Result<String> {
    let (mut out, mut damaged) = (String::new(), Vec::new());
    for entry in catalogue.entries.iter().filter(|e| folder.has(e)) {
        match folder.verify(entry) {
            Ok(()) => writeln!(out, "{}: every byte is right", entry.name)?,
            Err(e) => damaged.push(e.to_string()),
        }
    }
    if !damaged.is_empty() {
        bail!("{}{}", out, damaged.join("\n"));
    }
    if out.is_empty() {
        writeln!(
            out,
            "nothing of this catalogue is installed in {}",
            folder.path().display()
        )?;
    }
    Ok(out)
}

/// How far a download is: a bar on a terminal, a line every few seconds elsewhere.
struct Shown {
    quiet: bool,
    bar: Option<ProgressBar>,
    file: String,
    told: Instant,
}

impl Shown {
    fn new(quiet: bool) -> Self {
        Shown {
            quiet,
            bar: None,
            file: String::new(),
            told: Instant::now(),
        }
    }

    fn update(&mut self, file: &RemoteFile, there: u64) {
        if self.quiet {
            return;
        }
        if self.file != file.address {
            self.finish();
            self.file.clone_from(&file.address);
            self.told = Instant::now();
            self.bar = std::io::stderr().is_terminal().then(|| bar(file));
            if self.bar.is_none() {
                eprintln!("{} ({})", file.address, size(file.bytes));
            }
        }
        match &self.bar {
            Some(bar) => bar.set_position(there),
            None if self.told.elapsed() > Duration::from_secs(5) => {
                self.told = Instant::now();
                eprintln!("{} of {}", size(there), size(file.bytes));
            }
            None => {}
        }
    }

    fn finish(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}

fn bar(file: &RemoteFile) -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg} {bar:30} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left",
    );
    ProgressBar::new(file.bytes)
        .with_style(style.expect("the template is fixed and right"))
        .with_message(file.name().to_string())
}
