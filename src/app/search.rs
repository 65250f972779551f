//! `twintrack search PICTURE --in DIR`: lists the tracks most similar to the person in a picture.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;

use crate::app::{settings, show};
use twintrack::gallery::{GalleryPicture, GalleryReader};
use twintrack::track::appearance::cosine_distance;
use twintrack::trajectory::{EndedEvent, Event, thousandths};

/// List the tracks of earlier runs that are most similar to the person in a picture.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// A picture cut to one person, or a wider picture, of which the most confidently detected
    /// person is used.
    picture: PathBuf,
    /// Folder of event files (.jsonl, including rotated files) written by `twintrack track
    /// --embeddings` or by `serve`; or one such file. Files and tracks that are not searched are
    /// reported on standard error.
    #[arg(long = "in", value_name = "DIR")]
    within: PathBuf,
    /// Maximum number of tracks to list.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    most: usize,
    /// Configuration (TOML), of which [embedder] and [detector] are used.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// ONNX file of the embedder (Siamese network) with which the tracks were embedded: a path
    /// (./mine.onnx), the name of a file in a `models` folder, or the name of an installed network
    /// (`twintrack models list`).
    #[arg(long, value_name = "MODEL")]
    embedder: Option<PathBuf>,
    /// Print JSON lines: the `track_ended` events with `similarity` and `file`, without `path` and
    /// `embedding`.
    #[arg(long)]
    json: bool,
}

/// A track with its similarity to the person searched for.
struct Match {
    file: PathBuf,
    event: EndedEvent,
    similarity: f32,
}

/// Counts of tracks that could not be compared.
#[derive(Default)]
struct Skipped {
    /// Tracks without a stored embedding.
    without: usize,
    /// Number of tracks embedded by another network, by the network's name and hash.
    others: BTreeMap<String, usize>,
}

/// Runs the command; returns the text to print. Files and tracks that are not searched are reported
/// on standard error.
///
/// # Errors
/// When nothing can be searched: there is no file, no stored embedding, or only embeddings of
/// another network.
pub fn run(args: &SearchArgs) -> Result<String> {
    let config = settings::read(args.config.as_deref())?;
    let mut gallery_reader = GalleryReader::open(config, args.embedder.as_deref())?;
    show::embedder(gallery_reader.embedder());
    let (calibration, identity) = (
        gallery_reader.embedder().calibrated()?,
        gallery_reader.embedder().identity(),
    );
    let GalleryPicture { embedding, region } = gallery_reader.read(&args.picture)?;
    let (files, mut not_searched) = files(&args.within)?;
    let (mut found, mut all) = (Vec::new(), Skipped::default());
    for file in &files {
        let events = match ended(file) {
            Ok(events) => events,
            Err(e) if args.within.is_dir() => {
                not_searched.push(format!("{e:#}"));
                continue;
            }
            Err(e) => return Err(e),
        };
        let (before, mut skipped) = (found.len(), Skipped::default());
        for event in events {
            let Some(stored) = &event.embedding else {
                skipped.without += 1;
                continue;
            };
            let own = event
                .embedder
                .as_deref()
                .is_some_and(|identity| gallery_reader.embedder().made(identity));
            match cosine_distance(stored, &embedding).filter(|_| own) {
                None => skipped.add_other(event.embedder.as_deref()),
                Some(distance) => found.push(Match {
                    file: file.clone(),
                    similarity: calibration.similarity(distance),
                    event,
                }),
            }
        }
        not_searched.extend(skipped.message(file, found.len() > before));
        all.add(skipped);
    }
    if found.is_empty() {
        return Err(nothing_searched(
            &args.within,
            &all,
            &identity,
            &not_searched,
        ));
    }
    eprintln!("{}: {region}", args.picture.display());
    not_searched
        .iter()
        .for_each(|line| eprintln!("not searched: {line}"));
    found.sort_by(|a, b| {
        b.similarity
            .total_cmp(&a.similarity)
            .then(a.event.id.cmp(&b.event.id))
    });
    found.truncate(args.most);
    if args.json {
        found.iter().map(json_line).collect()
    } else {
        Ok(table(&found))
    }
}

impl Skipped {
    /// Counts a track of another network.
    fn add_other(&mut self, identity: Option<&str>) {
        *self
            .others
            .entry(identity.unwrap_or("an unknown network").into())
            .or_default() += 1;
    }

    fn add(&mut self, other: Skipped) {
        self.without += other.without;
        other
            .others
            .into_iter()
            .for_each(|(network, n)| *self.others.entry(network).or_default() += n);
    }

    /// A message about the file, if some of its tracks were left out or it has no tracks.
    /// `searched`: whether any of its tracks was compared.
    fn message(&self, file: &Path, searched: bool) -> Option<String> {
        let of =
            |(network, n): (&String, &usize)| format!("{n} tracks were embedded by '{network}'");
        let mut reasons: Vec<String> = self.others.iter().map(of).collect();
        reasons.extend(
            (self.without > 0).then(|| format!("{} tracks have no stored embedding", self.without)),
        );
        if reasons.is_empty() && !searched {
            reasons.push("it has no track_ended event".into());
        }
        (!reasons.is_empty()).then(|| format!("{}: {}", file.display(), reasons.join(", ")))
    }
}

/// The error when no track could be compared.
fn nothing_searched(
    within: &Path,
    skipped: &Skipped,
    identity: &str,
    not_searched: &[String],
) -> anyhow::Error {
    let place = within.display();
    if let Some(other) = skipped.others.keys().next() {
        let again = match other.contains("sha256:") {
            true => "",
            false => ", or track again if an earlier version of twintrack wrote that name",
        };
        return anyhow!(
            "the tracks in {place} were embedded by '{other}', but the embedder in use is \
             '{identity}'; set --embedder to that network{again}"
        );
    }
    if skipped.without > 0 {
        return anyhow!(
            "no track in {place} has a stored embedding ({} have none); track with --embeddings",
            skipped.without
        );
    }
    anyhow!("no track in {place} has ended: {}", not_searched.join("; "))
}

/// The files to search: `within` itself, or the event files in that folder, including rotated ones
/// (`NAME.jsonl.1`). Also returns messages about the folder's other files.
fn files(within: &Path) -> Result<(Vec<PathBuf>, Vec<String>)> {
    if within.is_file() {
        return Ok((vec![within.into()], Vec::new()));
    }
    let entries = std::fs::read_dir(within)
        .with_context(|| format!("cannot read the folder {}", within.display()))?;
    let all = entries.flatten().map(|e| e.path()).filter(|p| p.is_file());
    let (mut files, mut others): (Vec<PathBuf>, Vec<PathBuf>) =
        all.partition(|p| is_trajectories(p));
    files.sort();
    others.sort();
    if files.is_empty() {
        bail!("{} has no trajectories (.jsonl)", within.display());
    }
    let name = |p: &PathBuf| {
        p.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let names: Vec<String> = others.iter().map(name).collect();
    let message =
        (!names.is_empty()).then(|| format!("{}: not trajectories (.jsonl)", names.join(", ")));
    Ok((files, message.into_iter().collect()))
}

fn is_trajectories(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_number = |end: &str| !end.is_empty() && end.bytes().all(|b| b.is_ascii_digit());
    let rotated = name.rsplit_once('.').filter(|(_, end)| is_number(end));
    rotated
        .map_or(&*name, |(whole, _)| whole)
        .ends_with(".jsonl")
}

/// Reads the `track_ended` events of a file. `trajectory` events, which take most of the file, are
/// not parsed.
fn ended(file: &Path) -> Result<Vec<EndedEvent>> {
    let read = || format!("cannot read {}", file.display());
    let mut reader = std::io::BufReader::new(std::fs::File::open(file).with_context(read)?);
    let (mut events, mut bytes) = (Vec::new(), Vec::new());
    for number in 1.. {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes).with_context(read)? == 0 {
            break;
        }
        let line = String::from_utf8_lossy(&bytes);
        if !line.contains(twintrack::trajectory::ENDED_SCHEMA) {
            continue;
        }
        match Event::parse(&line) {
            Ok(Event::Ended(e)) => events.push(e),
            Ok(_) => {}
            // A power failure may leave an incomplete last line.
            Err(_) if !line.ends_with('\n') => tracing::warn!(
                file = %file.display(), line = number,
                "the last line is incomplete and is left out"
            ),
            Err(e) => {
                return Err(e).with_context(|| {
                    let file = file.display();
                    format!("{file}, line {number}: not an event of twintrack")
                });
            }
        }
    }
    Ok(events)
}

fn json_line(f: &Match) -> Result<String> {
    let event = EndedEvent {
        path: Vec::new(),
        embedding: None,
        ..f.event.clone()
    };
    let mut value = serde_json::to_value(event)?;
    value["similarity"] = thousandths(f64::from(f.similarity)).into();
    value["file"] = f.file.display().to_string().into();
    Ok(value.to_string() + "\n")
}

fn table(found: &[Match]) -> String {
    let mut out = String::from("similarity  track  from s    to s  camera            file\n");
    for Match {
        file,
        event: e,
        similarity,
    } in found
    {
        // Writing to a String cannot fail.
        let _ = writeln!(
            out,
            "{similarity:10.3} {:6} {:7.1} {:7.1}  {:16}  {}",
            e.id,
            e.first,
            e.last,
            e.camera,
            file.display()
        );
    }
    out
}
