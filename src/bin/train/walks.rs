//! `twintrack-train walks`: judges matching across cameras on simulated walks.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use twintrack::embed::Embedder;
use twintrack::multi_camera::trial::{Judgement, LabelledTrack, Method, Picture, dress};
use twintrack::multi_camera::walks::{WalkScene, walk};
use twintrack::multi_camera::{MultiCameraConfig, Topology};
use twintrack::time::Seconds;
use twintrack::track::similarity::Calibration;
use twintrack::train::calibrate::calibrate;
use twintrack::train::dataset::{Crop, Dataset};
use twintrack::train::embed::labels;
use twintrack::train::readers::DataSpec;
use twintrack::train::retrieval::{PairDistances, distances, embeddings};

use crate::settings;

use super::evaluate::open_as;

/// Limits, as cosine distances, that are tried for the nearest neighbour; the one with the best
/// result counts.
const LIMITS: [f32; 12] = [
    0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.7,
];

/// Judge who is who across cameras, on simulated walks of the people of a data set: IDF1 of the
/// matcher (learning the topology of the cameras during the run, or knowing it from another run),
/// of appearance alone, of the nearest neighbour, and of time alone.
#[derive(Debug, Args)]
pub struct WalksArgs {
    /// ONNX file of the embedder: a path (./mine.onnx), the name of a file in a `models` folder, or
    /// the name of an installed network (`twintrack models list`); by default the network in
    /// --config, else the shipped siamese.onnx.
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The tracker's configuration (TOML), of which [embedder] is used.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Labelled data, KIND:WHERE as for training. Each track gets one picture of its person; no
    /// picture is used twice.
    #[arg(long, value_name = "KIND:WHERE")]
    data: DataSpec,
    /// The people of the data who walk, by their numbers from 1.
    #[arg(long, value_name = "FIRST-LAST")]
    people: Option<Numbers>,
    /// Fit the calibration to these people of the data instead of using the network's.
    #[arg(long, value_name = "FIRST-LAST")]
    calibrate: Option<Numbers>,
    /// Scenes: number of cameras, and of people who enter in --duration.
    #[arg(long, value_name = "CAMERASxPEOPLE", num_args = 1.., default_values = ["4x50", "12x300", "40x500"])]
    scenes: Vec<Scene>,
    /// Seconds in which people enter.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600.0)]
    duration: f64,
    /// Number of scenes of each kind, with different cameras and walks.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    repeat: u64,
    /// Seed of all random numbers.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Settings of the matcher: a TOML file with the keys of MultiCameraConfig.
    #[arg(long, value_name = "FILE")]
    matcher: Option<PathBuf>,
}

/// A range of numbers, FIRST-LAST.
#[derive(Debug, Clone, Copy)]
struct Numbers(usize, usize);

impl FromStr for Numbers {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let numbers = s.split_once('-');
        let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match numbers {
            Some((first, last)) if 1 <= first && first <= last => Ok(Numbers(first, last)),
            _ => Err(format!("'{s}' is not FIRST-LAST, for example 1-500")),
        }
    }
}

/// A kind of scene, CAMERASxPEOPLE.
#[derive(Debug, Clone, Copy)]
struct Scene {
    cameras: usize,
    people: usize,
}

impl FromStr for Scene {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let numbers = s.split_once('x');
        let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
        match numbers {
            Some((cameras @ 2..=1000, people @ 1..=100_000)) => Ok(Scene { cameras, people }),
            _ => Err(format!(
                "'{s}' is not CAMERASxPEOPLE with 2 to 1000 cameras and 1 to 100000 people, for \
                 example 12x300"
            )),
        }
    }
}

/// Runs the command; returns the text to print.
pub fn walks(args: &WalksArgs) -> Result<String> {
    let matcher = matcher_settings(args)?;
    let mut config = settings::read(args.config.as_deref())?.embedder;
    config.model = args.model.clone().unwrap_or(config.model);
    let mut embedder = open_as(&config)?;
    let set = args.data.read(args.seed)?;
    let calibration = match args.calibrate {
        Some(Numbers(first, last)) => {
            let crops = of_people(&set, first, last);
            fitted(&mut embedder, &set, &crops)?
        }
        None => embedder.calibrated()?,
    };
    let Numbers(first, last) = args.people.unwrap_or(Numbers(1, set.identities));
    let crops = of_people(&set, first, last);
    let people = pictures(&mut embedder, &crops)?;
    let mut out = format!(
        "{}: {} pictures of {} people; calibration (slope, threshold): {}\n\
         IDF1 by tracks / by time, %\n\
         cameras people tracks |     learning        known   appearance      nearest         time \
         | merged pairs, % | us per track\n",
        set.name,
        crops.len(),
        people.len(),
        calibration.entry()
    );
    for &scene in &args.scenes {
        if scene.people > people.len() {
            bail!(
                "a scene with {} people needs as many in the data; --people selects {}",
                scene.people,
                people.len()
            );
        }
        let row = Row::of(args, scene, &people, &matcher, calibration);
        writeln!(out, "{row}")?;
    }
    Ok(out)
}

fn matcher_settings(args: &WalksArgs) -> Result<MultiCameraConfig> {
    let Some(path) = &args.matcher else {
        return Ok(MultiCameraConfig::default());
    };
    let text =
        std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let config: MultiCameraConfig =
        toml::from_str(&text).with_context(|| format!("invalid settings {}", path.display()))?;
    config.validate()?;
    Ok(config)
}

/// The crops of the people with the numbers `first` to `last`, from 1.
fn of_people(set: &Dataset, first: usize, last: usize) -> Vec<Crop> {
    let chosen = |c: &&Crop| (first..=last).contains(&(c.identity + 1));
    set.crops.iter().filter(chosen).cloned().collect()
}

/// The calibration fitted to crops.
fn fitted(embedder: &mut Embedder, set: &Dataset, crops: &[Crop]) -> Result<Calibration> {
    let all = embeddings(embedder, crops)?;
    let (distances, labels) = (distances(all.view()), labels(crops));
    let pairs = PairDistances::of(&distances, &labels, set.protocol, |a, b| {
        set.different(a, b)
    });
    calibrate(&pairs)
        .ok_or_else(|| anyhow!("--calibrate selects no pairs of one person and of two"))
}

/// The embeddings of each person's crops.
fn pictures(embedder: &mut Embedder, crops: &[Crop]) -> Result<Vec<Vec<Picture>>> {
    let all = embeddings(embedder, crops)?;
    let mut people: std::collections::BTreeMap<usize, Vec<Picture>> = Default::default();
    for (crop, row) in crops.iter().zip(all.rows()) {
        people.entry(crop.identity).or_default().push(Picture {
            camera: crop.camera,
            embedding: row.to_vec(),
        });
    }
    Ok(people.into_values().collect())
}

/// Results of one kind of scene: sums over its repetitions.
#[derive(Debug)]
struct Row {
    scene: Scene,
    repeat: f64,
    tracks: usize,
    /// Learning, known, appearance, nearest (the best limit), time.
    idf1: [(f64, f64); 5],
    merged: f64,
    seconds: f64,
}

impl Row {
    fn of(
        args: &WalksArgs,
        scene: Scene,
        people: &[Vec<Picture>],
        config: &MultiCameraConfig,
        calibration: Calibration,
    ) -> Self {
        let mut row = Row {
            scene,
            repeat: args.repeat as f64,
            tracks: 0,
            idf1: Default::default(),
            merged: 0.0,
            seconds: 0.0,
        };
        let mut nearest = [(0.0, 0.0); LIMITS.len()];
        for k in 0..args.repeat {
            let seed = args.seed.wrapping_mul(10_000) + k;
            let tracks_of = |walks: u64| {
                let scene = WalkScene {
                    cameras: scene.cameras,
                    people: scene.people,
                    duration: Seconds(args.duration),
                    places: seed,
                    walks,
                };
                dress(&walk(&scene), people, walks)
            };
            let (tracks, before) = (tracks_of(seed + 3000), tracks_of(seed + 6000));
            row.tracks += tracks.len();
            let judge = |method: &Method, tracks: &[LabelledTrack]| -> (Judgement, Topology) {
                let (found, topology) = method.find(tracks, config, calibration);
                (Judgement::of(tracks, &found), topology)
            };
            let start = Instant::now();
            let (found, _) = Method::Learning.find(&tracks, config, calibration);
            row.seconds += start.elapsed().as_secs_f64();
            let learning = Judgement::of(&tracks, &found);
            row.merged += learning.merged;
            let known = Method::Known(judge(&Method::Learning, &before).1);
            let methods = [known, Method::AppearanceAlone, Method::TimeAlone];
            let [known, appearance, time] = methods.map(|m| judge(&m, &tracks).0);
            for (at, judged) in [(0, learning), (1, known), (2, appearance), (4, time)] {
                add(&mut row.idf1[at], &judged);
            }
            for (sum, limit) in nearest.iter_mut().zip(LIMITS) {
                add(sum, &judge(&Method::NearestNeighbour(limit), &tracks).0);
            }
        }
        let best = nearest.into_iter().max_by(|a, b| a.0.total_cmp(&b.0));
        row.idf1[3] = best.unwrap_or_default();
        row
    }
}

fn add(sum: &mut (f64, f64), judged: &Judgement) {
    sum.0 += judged.by_track.idf1;
    sum.1 += judged.by_time.idf1;
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let percent = |v: f64| 100.0 * v / self.repeat;
        let tracks = self.tracks as f64 / self.repeat;
        write!(
            f,
            "{:7} {:6} {tracks:6.0} |",
            self.scene.cameras, self.scene.people
        )?;
        for (by_track, by_time) in self.idf1 {
            write!(f, "  {:4.1} / {:4.1}", percent(by_track), percent(by_time))?;
        }
        let micros = 1e6 * self.seconds / self.tracks as f64;
        write!(f, " | {:15.1} | {micros:12.0}", percent(self.merged))
    }
}
