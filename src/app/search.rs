//! `twintrack search PICTURE --in DIR`: where was this person?

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;

use crate::app::{settings, show};
use crate::gallery::{GalleryReader, Portrait};
use crate::track::appearance::cosine_distance;
use crate::trajectory::{EndedEvent, Event, thousandths};

/// List the tracks of earlier runs that look most like the person in a picture.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// A picture of a person, cut to the person, or a photo in which the surest person is taken.
    picture: PathBuf,
    /// Folder of trajectories (.jsonl, rotated ones too), written by `twintrack track
    /// --embeddings`; or one such file. What is not searched is named.
    #[arg(long = "in", value_name = "DIR")]
    within: PathBuf,
    /// List at most so many.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    most: usize,
    /// Configuration (TOML), of which [embedder] and [detector] count.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Siamese network that the tracks were embedded with: an ONNX file (./mine.onnx), or a name
    /// from `twintrack models list` that is installed.
    #[arg(long, value_name = "MODEL")]
    embedder: Option<PathBuf>,
    /// Print JSON lines: the events of the tracks' ends with a similarity, without path and embedding.
    #[arg(long)]
    json: bool,
}

struct Found {
    file: PathBuf,
    event: EndedEvent,
    similarity: f32,
}

/// Tracks of a file that were not compared, and why.
#[derive(Default)]
struct Left {
    /// How many have no embedding.
    without: usize,
    /// How many are of another network, by its identity.
    others: BTreeMap<String, usize>,
}

/// Searches; returns what is to be printed. What is left out of the search is named on standard
/// error.
///
/// # Errors
/// When nothing can be searched: no file, no stored embedding, or only those of another network.
pub fn run(args: &SearchArgs) -> Result<String> {
    let config = settings::read(args.config.as_deref())?;
    let mut gallery_reader = GalleryReader::open(config, args.embedder.as_deref())?;
    show::embedder(gallery_reader.embedder());
    let (calibration, identity) = (
        gallery_reader.embedder().calibrated()?,
        gallery_reader.embedder().identity(),
    );
    let Portrait { look, taken } = gallery_reader.look(&args.picture)?;
    let (files, mut unfit) = files(&args.within)?;
    let (mut found, mut all) = (Vec::new(), Left::default());
    for file in &files {
        let events = match ended(file) {
            Ok(events) => events,
            Err(e) if args.within.is_dir() => {
                unfit.push(format!("{e:#}"));
                continue;
            }
            Err(e) => return Err(e),
        };
        let (before, mut left) = (found.len(), Left::default());
        for event in events {
            let Some(embedding) = &event.embedding else {
                left.without += 1;
                continue;
            };
            let own = event
                .embedder
                .as_deref()
                .is_some_and(|identity| gallery_reader.embedder().made(identity));
            match cosine_distance(embedding, &look).filter(|_| own) {
                None => left.other(event.embedder.as_deref()),
                Some(distance) => found.push(Found {
                    file: file.clone(),
                    similarity: calibration.similarity(distance),
                    event,
                }),
            }
        }
        unfit.extend(left.told(file, found.len() > before));
        all.add(left);
    }
    if found.is_empty() {
        return Err(nothing(&args.within, &all, &identity, &unfit));
    }
    eprintln!("{}: {taken}", args.picture.display());
    unfit
        .iter()
        .for_each(|line| eprintln!("not searched: {line}"));
    found.sort_by(|a, b| {
        b.similarity
            .total_cmp(&a.similarity)
            .then(a.event.id.cmp(&b.event.id))
    });
    found.truncate(args.most);
    if args.json {
        found.iter().map(line).collect()
    } else {
        Ok(table(&found))
    }
}

impl Left {
    /// A track of another network.
    fn other(&mut self, identity: Option<&str>) {
        *self
            .others
            .entry(identity.unwrap_or("an unknown network").into())
            .or_default() += 1;
    }

    fn add(&mut self, other: Left) {
        self.without += other.without;
        other
            .others
            .into_iter()
            .for_each(|(network, n)| *self.others.entry(network).or_default() += n);
    }

    /// A line for people where something was left out of a file, or nothing is in it at all.
    fn told(&self, file: &Path, searched: bool) -> Option<String> {
        let of =
            |(network, n): (&String, &usize)| format!("{n} tracks were embedded by '{network}'");
        let mut reasons: Vec<String> = self.others.iter().map(of).collect();
        reasons.extend(
            (self.without > 0).then(|| format!("{} tracks have no stored embedding", self.without)),
        );
        if reasons.is_empty() && !searched {
            reasons.push("it holds no end of a track".into());
        }
        (!reasons.is_empty()).then(|| format!("{}: {}", file.display(), reasons.join(", ")))
    }
}

/// Why nothing could be searched.
fn nothing(within: &Path, left: &Left, identity: &str, unfit: &[String]) -> anyhow::Error {
    let place = within.display();
    if let Some(other) = left.others.keys().next() {
        let again = match other.contains("sha256:") {
            true => "",
            false => " or, where an earlier version of twintrack wrote that name, track again",
        };
        return anyhow!(
            "the tracks in {place} were embedded by '{other}', and this is '{identity}'; give --embedder{again}"
        );
    }
    if left.without > 0 {
        return anyhow!(
            "no track in {place} has a stored embedding ({} have none); track with --embeddings",
            left.without
        );
    }
    anyhow!("no track in {place} has ended: {}", unfit.join("; "))
}

/// The files to search: a file itself, or those of trajectories in a folder, rotated ones
/// (`NAME.jsonl.1`) too; and a line for people on the folder's other files.
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
        bail!("{} holds no trajectories (.jsonl)", within.display());
    }
    let name = |p: &PathBuf| {
        p.file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let names: Vec<String> = others.iter().map(name).collect();
    let told = (!names.is_empty())
        .then(|| format!("{}, which are no trajectories (.jsonl)", names.join(", ")));
    Ok((files, told.into_iter().collect()))
}

fn is_trajectories(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_number = |end: &str| !end.is_empty() && end.bytes().all(|b| b.is_ascii_digit());
    let rotated = name.rsplit_once('.').filter(|(_, end)| is_number(end));
    rotated
        .map_or(&*name, |(whole, _)| whole)
        .ends_with(".jsonl")
}

/// The ends of tracks in a file. Frames, which are most of it, are not parsed.
fn ended(file: &Path) -> Result<Vec<EndedEvent>> {
    let read = || format!("cannot read {}", file.display());
    let mut events = Vec::new();
    for (i, line) in std::io::BufReader::new(std::fs::File::open(file).with_context(read)?)
        .lines()
        .enumerate()
    {
        let line = line.with_context(read)?;
        if line.contains(crate::trajectory::ENDED_SCHEMA) {
            let event = Event::read(&line).with_context(|| {
                format!(
                    "{}, line {}: not an event of twintrack",
                    file.display(),
                    i + 1
                )
            })?;
            if let Event::Ended(e) = event {
                events.push(e);
            }
        }
    }
    Ok(events)
}

fn line(f: &Found) -> Result<String> {
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

fn table(found: &[Found]) -> String {
    let mut out = String::from("similarity  track  from s    to s  camera            file\n");
    for Found {
        file,
        event: e,
        similarity,
    } in found
    {
        // A String takes everything.
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
