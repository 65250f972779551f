//! `twintrack search PICTURE --in DIR`: where was this person?

use std::fmt::Write as _;
use std::io::BufRead as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;

use crate::config::Config;
use crate::gallery::Portraitist;
use crate::track::appearance::cosine_distance;
use crate::trajectory::{EndedEvent, Event, thousandths};

/// List the tracks of earlier runs that look most like the person in a picture.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// A picture of a person, cut to the person, or a photo in which the surest person is taken.
    picture: PathBuf,
    /// Folder of trajectories (.jsonl), written by `twintrack track --embeddings`; or one such file.
    #[arg(long = "in", value_name = "DIR")]
    within: PathBuf,
    /// List at most so many.
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    most: usize,
    /// Configuration (TOML), of which [embedder] and [detector] count.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Siamese network that the tracks were embedded with: an ONNX file, or a name from `twintrack models list` that is
    /// installed.
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

/// Searches; returns what is to be printed.
///
/// # Errors
/// When nothing can be searched: no file, no stored embedding, or only those of another network.
pub fn run(args: &SearchArgs) -> Result<String> {
    let config = args.config.as_deref().map_or_else(|| Ok(Config::default()), Config::read)?;
    let mut portraitist = Portraitist::open(config, args.embedder.as_deref())?;
    let (calibration, name) = (portraitist.embedder().calibrated()?, portraitist.embedder().name());
    let look = portraitist.look(&args.picture)?;
    let mut found = Vec::new();
    let (mut other, mut without) = (None, 0);
    for file in files(&args.within)? {
        for event in ended(&file)? {
            let Some(embedding) = &event.embedding else {
                without += 1;
                continue;
            };
            match cosine_distance(embedding, &look).filter(|_| event.embedder.as_deref() == Some(&name)) {
                None => other = event.embedder,
                Some(distance) => found.push(Found { file: file.clone(), similarity: calibration.similarity(distance), event }),
            }
        }
    }
    if found.is_empty() {
        match other {
            Some(other) => bail!("the tracks in {} were embedded by '{other}', and this is '{name}'; give --embedder", args.within.display()),
            None => bail!("no track in {} has a stored embedding ({without} have none); track with --embeddings", args.within.display()),
        }
    }
    found.sort_by(|a, b| b.similarity.total_cmp(&a.similarity).then(a.event.id.cmp(&b.event.id)));
    found.truncate(args.most);
    if args.json { found.iter().map(line).collect() } else { Ok(table(&found)) }
}

fn files(within: &Path) -> Result<Vec<PathBuf>> {
    if within.is_file() {
        return Ok(vec![within.into()]);
    }
    let entries = std::fs::read_dir(within).with_context(|| format!("cannot read the folder {}", within.display()))?;
    let mut files: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "jsonl")).collect();
    files.sort();
    if files.is_empty() {
        bail!("{} holds no trajectories (.jsonl)", within.display());
    }
    Ok(files)
}

/// The ends of tracks in a file. Frames, which are most of it, are not parsed.
fn ended(file: &Path) -> Result<Vec<EndedEvent>> {
    let read = || format!("cannot read {}", file.display());
    let mut events = Vec::new();
    for (i, line) in std::io::BufReader::new(std::fs::File::open(file).with_context(read)?).lines().enumerate() {
        let line = line.with_context(read)?;
        if line.contains(crate::trajectory::ENDED_SCHEMA) {
            let event = serde_json::from_str(&line).with_context(|| format!("{}, line {}: not an event of twintrack", file.display(), i + 1))?;
            if let Event::Ended(e) = event {
                events.push(e);
            }
        }
    }
    Ok(events)
}

fn line(f: &Found) -> Result<String> {
    let event = EndedEvent { path: Vec::new(), embedding: None, ..f.event.clone() };
    let mut value = serde_json::to_value(event)?;
    value["similarity"] = thousandths(f64::from(f.similarity)).into();
    value["file"] = f.file.display().to_string().into();
    Ok(value.to_string() + "\n")
}

fn table(found: &[Found]) -> String {
    let mut out = String::from("similarity  track  from s    to s  camera            file\n");
    for Found { file, event: e, similarity } in found {
        // A String takes everything.
        let _ = writeln!(out, "{similarity:10.3} {:6} {:7.1} {:7.1}  {:16}  {}", e.id, e.first, e.last, e.camera, file.display());
    }
    out
}
