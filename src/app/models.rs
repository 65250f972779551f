//! `twintrack models`: lists, downloads and verifies networks trained by others.

use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};

use twintrack::models::catalogue::RemoteFile;
use twintrack::models::error::size;
use twintrack::models::folder::GetOutcome;
use twintrack::models::{Catalogue, CatalogueEntry, ModelFolder};

/// List, download and verify networks trained by others.
#[derive(Debug, Args)]
pub struct ModelsArgs {
    /// Catalogue (TOML) to use instead of the built-in one.
    #[arg(long, value_name = "FILE", global = true)]
    catalogue: Option<PathBuf>,
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Subcommand)]
enum ModelsCommand {
    /// List the networks of the catalogue with licence and measured quality, and whether they are
    /// installed.
    List,
    /// Download networks from their publishers, verify their hashes, and install them for use with
    /// --detector NAME or --embedder NAME.
    Get {
        /// Names of networks, from `twintrack models list`.
        #[arg(value_name = "NAME", required = true)]
        names: Vec<String>,
        /// Show no progress.
        #[arg(short, long)]
        quiet: bool,
    },
    /// Check the installed files against the hashes of the catalogue.
    Verify,
}

/// Runs the command; returns the text to print.
///
/// # Errors
/// When the catalogue is invalid, a download fails, or an installed file is damaged.
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
        "{:<17} {:<9} {:>9}  {:<11} {:<13} description\n",
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
        let unmeasured = "quality not measured by the twintrack project";
        let quality = e.quality.as_deref().unwrap_or(unmeasured);
        writeln!(out, "{row}\n{:64} {quality}", "").expect("writing to a String cannot fail");
    }
    writeln!(out, "\nfolder: {}", folder.path().display())
        .expect("writing to a String cannot fail");
    out
}

fn get(
    catalogue: &Catalogue,
    folder: &ModelFolder,
    names: &[String],
    quiet: bool,
) -> Result<String> {
    // All names are checked before the first download.
    let entries = names
        .iter()
        .map(|n| catalogue.entry(n))
        .collect::<Result<Vec<&CatalogueEntry>, _>>()?;
    let mut out = String::new();
    for entry in entries {
        let mut progress = DownloadProgress::new(quiet);
        let got = folder.get(entry, &mut |file, downloaded| {
            progress.update(file, downloaded)
        })?;
        progress.finish();
        let done = if got == GetOutcome::Already {
            "already installed"
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
            Ok(()) => writeln!(out, "{}: verified", entry.name)?,
            Err(e) => damaged.push(e.to_string()),
        }
    }
    if !damaged.is_empty() {
        bail!("{}{}", out, damaged.join("\n"));
    }
    if out.is_empty() {
        writeln!(
            out,
            "no network of this catalogue is installed in {}",
            folder.path().display()
        )?;
    }
    Ok(out)
}

/// Shows a download's progress on standard error: a bar on a terminal, else a line every five
/// seconds.
struct DownloadProgress {
    quiet: bool,
    bar: Option<ProgressBar>,
    /// Address of the current file.
    file: String,
    last_line: Instant,
}

impl DownloadProgress {
    fn new(quiet: bool) -> Self {
        DownloadProgress {
            quiet,
            bar: None,
            file: String::new(),
            last_line: Instant::now(),
        }
    }

    /// `downloaded`: bytes of the file downloaded so far.
    fn update(&mut self, file: &RemoteFile, downloaded: u64) {
        if self.quiet {
            return;
        }
        if self.file != file.address {
            self.finish();
            self.file.clone_from(&file.address);
            self.last_line = Instant::now();
            self.bar = std::io::stderr().is_terminal().then(|| bar(file));
            if self.bar.is_none() {
                eprintln!("{} ({})", file.address, size(file.bytes));
            }
        }
        match &self.bar {
            Some(bar) => bar.set_position(downloaded),
            None if self.last_line.elapsed() > Duration::from_secs(5) => {
                self.last_line = Instant::now();
                eprintln!("{} of {}", size(downloaded), size(file.bytes));
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
        .with_style(style.expect("the template is a valid constant"))
        .with_message(file.name().to_string())
}
