//! Figures of the history (BENCHMARKS.md): processor time of recording, time of lists, and time and
//! recall of searches.
//!
//!     cargo bench --bench history -- record SECONDS
//!     cargo bench --bench history -- tracks NUMBER
//!
//! The database is an SQLite file in a temporary folder, or that of the environment variable
//! `HISTORY_URL` (PostgreSQL; empty, or filled by an earlier call with the same number).
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a program for figures"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use twintrack::frame::{Frame, Image};
use twintrack::secret::Secret;
use twintrack::sink::{FrameResult, Sink};
use twintrack::store::database::{Database, Dialect, Value, transaction};
use twintrack::store::query::TrackFilter;
use twintrack::store::rows::{TrackRow, timestamp};
use twintrack::store::search::{Search, SearchFilter};
use twintrack::store::vectors::{Entry, EntryFilter, VectorIndex};
use twintrack::store::write::{Rows, hnsw_index};
use twintrack::store::{History, HistoryConfig, HistorySink, tracks};
use twintrack::time::{Clock, Seconds, WallTime};
use twintrack::track::{EndedTrack, TrackOutput, TrackState};
use twintrack::trajectory::{EventBuilder, RunId};

const CAMERAS: usize = 4;
const PEOPLE: usize = 15;
const RATE: f64 = 10.0;
/// Seconds that a person is seen.
const VISIT: f64 = 20.0;
/// Dimension of the embeddings of a recording, and of those that are searched.
const RECORDED: usize = 256;
const SEARCHED: usize = 128;
const NET: &str = "bench 0123abcd";

fn main() {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| a != "--bench")
        .collect();
    let number = |n: usize| arguments.get(n).and_then(|a| a.parse::<f64>().ok());
    match (arguments.first().map(String::as_str), number(1)) {
        (Some("record"), Some(seconds)) => record(seconds),
        (Some("tracks"), Some(count)) => many(count as usize),
        _ => println!("give `record SECONDS` or `tracks NUMBER`"),
    }
}

fn config() -> HistoryConfig {
    let url = std::env::var("HISTORY_URL").ok().map(Secret::new);
    HistoryConfig::default().with_url(url)
}

/// Processor time of this process in seconds, all threads.
fn processor() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let after = stat.rsplit(')').next().unwrap();
    let ticks = |n: usize| {
        after
            .split_whitespace()
            .nth(n)
            .unwrap()
            .parse::<f64>()
            .unwrap()
    };
    (ticks(11) + ticks(12)) / 100.0
}

/// A camera whose people walk and are replaced by others.
struct Camera {
    builder: EventBuilder,
    image: Image,
    frames: u64,
}

impl Camera {
    fn new(number: usize) -> Self {
        let (w, h) = (1920, 1080);
        let data: Vec<u8> = (0..3 * w * h).map(|n| (n * 7 / 5) as u8).collect();
        let name: Arc<str> = format!("camera-{number}").into();
        Camera {
            builder: EventBuilder::new(RunId::from_u128(1), name, Some(NET.into())),
            image: Image::packed(w, h, data.into()),
            frames: 0,
        }
    }

    /// The next frame, and the tracks that end with it.
    fn next(&mut self) -> (FrameResult, Vec<EndedTrack>) {
        let now = self.frames as f64 / RATE;
        self.frames += 1;
        let frame = Frame {
            camera: self.builder.camera().clone(),
            number: self.frames,
            pts: Seconds(now),
            time: Some(WallTime {
                at: timestamp(1_795_000_000_000 + (1000.0 * now) as i64),
                clock: Some(Clock::Arrival),
            }),
            width: self.image.width,
            height: self.image.height,
            image: Some(self.image.clone()),
            restart: false,
        };
        let (mut tracks, mut ended) = (Vec::new(), Vec::new());
        for place in 0..PEOPLE {
            let shifted = now + VISIT * place as f64 / PEOPLE as f64;
            let visit = (shifted / VISIT).floor();
            let age = shifted - visit * VISIT;
            let id = 1 + place as u64 + PEOPLE as u64 * visit as u64;
            let begin = (now - age).max(0.0);
            let left = 100.0 + 110.0 * place as f32 + 3.0 * age as f32 * (age as f32).sin();
            tracks.push(TrackOutput {
                id,
                state: TrackState::Confirmed,
                bbox: twintrack::geometry::BBox::new(left, 200.0 + 20.0 * age as f32, 90.0, 240.0),
                confidence: 0.8 + 0.1 * (age as f32).sin(),
                age: Seconds(now - begin),
                unseen: Seconds::ZERO,
                hits: (10.0 * age) as u32 + 1,
                velocity: (1.0, 2.0),
                detection: Some(place),
                view: None,
                identity: None,
            });
            if age < 1.0 / RATE && id > PEOPLE as u64 {
                ended.push(EndedTrack {
                    id: id - PEOPLE as u64,
                    span: (Seconds((begin - VISIT).max(0.0)), Seconds(begin)),
                    hits: 200,
                    embedding: vec![1.0 / (RECORDED as f32).sqrt(); RECORDED],
                });
            }
        }
        tracks.sort_by_key(|t| t.id);
        let event = self.builder.frame(&frame, &tracks);
        let result = FrameResult {
            frame,
            detections: Vec::new(),
            event: event.into(),
            people: Vec::new(),
            scene: None,
        };
        (result, ended)
    }
}

/// Processor time of recording, at the speed of the cameras.
fn record(seconds: f64) {
    let run = |mut sink: Option<&mut HistorySink>| {
        let mut cameras: Vec<Camera> = (0..CAMERAS).map(Camera::new).collect();
        let (before, began) = (processor(), Instant::now());
        for n in 0..(seconds * RATE) as u64 {
            for camera in &mut cameras {
                let (frame, ended) = camera.next();
                let ended = camera.builder.ended(ended).into_iter();
                let ended: Vec<_> = ended.map(Into::into).collect();
                if let Some(sink) = &mut sink {
                    sink.frame(&frame).unwrap();
                    ended.iter().for_each(|e| sink.ended(e).unwrap());
                }
            }
            let due = Duration::from_secs_f64((n + 1) as f64 / RATE);
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        if let Some(sink) = &mut sink {
            sink.close();
            sink.finish().unwrap();
        }
        processor() - before
    };
    let generator = run(None);
    for (name, embeddings, crops) in [
        ("tracks", false, false),
        ("with embeddings and crops", true, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let config = config().with_embeddings(embeddings).with_crops(crops);
        let history = History::open(&config, folder.path(), RunId::now_v7()).unwrap();
        let mut sink = HistorySink::new(history.clone(), Duration::from_secs(60));
        let used = run(Some(&mut sink)) - generator;
        let counts = history.counts();
        println!(
            "{name}: {:.2} % of one core, {} changes, dropped {:?}",
            100.0 * used / seconds,
            counts.stored.load(std::sync::atomic::Ordering::Relaxed),
            counts.dropped(),
        );
    }
}

/// Times of `work` in milliseconds: median, 95th percentile.
fn times(rounds: usize, mut work: impl FnMut(usize)) -> (f64, f64) {
    let mut all: Vec<f64> = (0..rounds)
        .map(|n| {
            let began = Instant::now();
            work(n);
            1000.0 * began.elapsed().as_secs_f64()
        })
        .collect();
    all.sort_by(f64::total_cmp);
    (all[rounds / 2], all[rounds * 95 / 100])
}

/// Embeddings of people: each person is a point of a space of 32 dimensions, turned into
/// [`SEARCHED`], and each track of a person lies near it.
struct People {
    random: fastrand::Rng,
    turn: Vec<f32>,
    centres: Vec<Vec<f32>>,
}

const LATENT: usize = 32;

impl People {
    fn new(people: usize) -> Self {
        let mut random = fastrand::Rng::with_seed(11);
        let turn = (0..LATENT * SEARCHED)
            .map(|_| normal(&mut random))
            .collect();
        let centres = (0..people)
            .map(|_| (0..LATENT).map(|_| normal(&mut random)).collect())
            .collect();
        People {
            random,
            turn,
            centres,
        }
    }

    fn embedding(&mut self, person: usize) -> Vec<f32> {
        let random = &mut self.random;
        let latent: Vec<f32> = self.centres[person % self.centres.len()]
            .iter()
            .map(|c| c + 0.35 * normal(random))
            .collect();
        let mut v: Vec<f32> = (0..SEARCHED).map(|_| 0.3 * normal(random)).collect();
        for (l, row) in latent.iter().zip(self.turn.chunks_exact(SEARCHED)) {
            v.iter_mut().zip(row).for_each(|(x, t)| *x += l * t);
        }
        let length = v.iter().map(|x| x * x).sum::<f32>().sqrt();
        v.iter().map(|x| x / length).collect()
    }
}

/// A normally distributed number (Box and Muller 1958).
fn normal(random: &mut fastrand::Rng) -> f32 {
    let (u, v) = (1.0 - random.f32(), random.f32());
    (-2.0 * u.ln()).sqrt() * (std::f32::consts::TAU * v).cos()
}

/// Inserts rows, many with each statement.
fn insert(db: &mut dyn Database, table: &str, columns: &str, rows: &[Vec<Value>]) {
    let one = format!("({})", vec!["?"; rows[0].len()].join(", "));
    for part in rows.chunks(500) {
        let all = vec![one.as_str(); part.len()].join(", ");
        let sql = format!("INSERT INTO {table} ({columns}) VALUES {all}");
        let values: Vec<Value> = part.iter().flatten().cloned().collect();
        db.execute(&sql, &values).unwrap();
    }
}

/// Seconds between the begins of two tracks.
const APART: i64 = 4;

/// Fills the tables if they are empty; returns the embeddings.
fn fill(db: &mut dyn Database, count: usize, is_empty: bool) -> (People, Vec<Vec<f32>>) {
    let mut people = People::new(count / 20);
    let mut random = fastrand::Rng::with_seed(12);
    let mut embeddings = Vec::with_capacity(count);
    let mut rows = Rows::default();
    let first = |n: usize| 1_700_000_000_000 + 1000 * APART * n as i64;
    transaction(db, |db| {
        for camera in 0..CAMERAS {
            let row = TrackRow {
                began: timestamp(0),
                run: RunId::from_u128(1),
                camera: format!("camera-{camera}").into(),
                track: 0,
                pts: (0.0, 1.0),
                time: (timestamp(0), timestamp(1000)),
                clock: None,
                hits: 1,
                ended: true,
                frame: (1920, 1080),
                path: None,
                path_error: None,
                boxes: Vec::new(),
                identity: None,
                embedder: None,
                embedding: None,
                crops: Vec::new(),
            };
            let change = twintrack::store::rows::Change::Track(Box::new(row));
            rows.apply(db, &change, &Default::default())?;
        }
        rows.embedder(db, &NET.into(), SEARCHED).map(drop)
    })
    .unwrap();
    if is_empty && db.dialect() == Dialect::Postgres {
        db.batch("DROP INDEX embeddings_hnsw_1").unwrap();
    }
    for part in 0..count.div_ceil(10_000) {
        let numbers = part * 10_000..((part + 1) * 10_000).min(count);
        transaction(db, |db| {
            let (mut tracks, mut paths, mut vectors, mut zones) = (vec![], vec![], vec![], vec![]);
            for n in numbers.clone() {
                // Keys after those of the first tracks of the cameras.
                let (id, begin) = ((n + 10) as i64, first(n));
                let duration = (20_000.0 * -(1.0 - random.f64()).ln()) as i64;
                let camera = 1 + (n % CAMERAS) as i64;
                let identity = (n % 1000 == 0).then(|| format!("person-{}", n / 1000 % 50));
                tracks.push(vec![
                    id.into(),
                    Value::Int(1),
                    camera.into(),
                    id.into(),
                    begin.into(),
                    (begin + duration).into(),
                    duration.into(),
                    Value::Real(begin as f64 / 1000.0),
                    Value::Real((begin + duration) as f64 / 1000.0),
                    Value::Int(100),
                    Value::Int(1),
                    identity.as_deref().into(),
                    Value::Int(1920),
                    Value::Int(1080),
                ]);
                let path: Vec<[f64; 3]> = (0..20).map(|p| [f64::from(p), 511.25, 300.5]).collect();
                let path = serde_json::to_string(&path).unwrap();
                paths.push(vec![id.into(), path.as_str().into()]);
                if n % 500 == 0 {
                    zones.push(vec!["door".into(), begin.into(), id.into()]);
                }
                let embedding = people.embedding(random.usize(..count));
                vectors.push(vec![
                    id.into(),
                    id.into(),
                    Value::Int(1),
                    camera.into(),
                    begin.into(),
                    (begin + duration).into(),
                    Value::Vector(embedding.clone()),
                ]);
                embeddings.push(embedding);
            }
            if !is_empty {
                return Ok(());
            }
            insert(db, "tracks", "id, run_id, camera_id, track, first_time, last_time, duration, first_pts, last_pts, hits, ended, identity, width, height", &tracks);
            insert(db, "paths", "track_id, path", &paths);
            insert(db, "track_zones", "zone, first_time, track_id", &zones);
            insert(db, "embeddings", "id, track_id, embedder_id, camera_id, first_time, last_time, embedding", &vectors);
            Ok(())
        })
        .unwrap();
    }
    (people, embeddings)
}

/// Times of lists and searches among many tracks.
fn many(count: usize) {
    let folder = tempfile::tempdir().unwrap();
    let location = config().location(folder.path()).unwrap();
    let mut db = location.prepare().unwrap();
    let db = &mut *db;
    let began = Instant::now();
    let rows = db.query("SELECT count(*) FROM tracks", &[]).unwrap();
    let is_empty = rows[0].int(0).unwrap() == 0;
    let (mut people, embeddings) = fill(db, count, is_empty);
    if is_empty {
        let seconds = began.elapsed().as_secs_f64();
        println!("{count} tracks written in {seconds:.0} s");
    }
    if is_empty && db.dialect() == Dialect::Postgres {
        let began = Instant::now();
        db.batch("SET maintenance_work_mem = '3GB'; SET max_parallel_maintenance_workers = 2")
            .unwrap();
        db.batch(&hnsw_index(1, SEARCHED)).unwrap();
        db.batch("ANALYZE").unwrap();
        println!("index made in {:.0} s", began.elapsed().as_secs_f64());
    }
    lists(db, count);
    searches(db, &mut people, &embeddings);
}

fn lists(db: &mut dyn Database, count: usize) {
    let at = |share: f64| {
        timestamp(1_700_000_000_000 + (share * 1000.0 * APART as f64 * count as f64) as i64)
    };
    let hour = |share: f64| (Some(at(share)), Some(at(share).plus(Seconds(3600.0))));
    let none = TrackFilter::default();
    let camera = Some("camera-2".to_string());
    let filters: Vec<(&str, TrackFilter)> = vec![
        ("all", none.clone()),
        (
            "camera",
            TrackFilter {
                camera: camera.clone(),
                ..none.clone()
            },
        ),
        (
            "camera, one hour",
            TrackFilter {
                camera: camera.clone(),
                from: hour(0.4).0,
                to: hour(0.4).1,
                ..none.clone()
            },
        ),
        (
            "one hour, long ago",
            TrackFilter {
                from: hour(0.01).0,
                to: hour(0.01).1,
                ..none.clone()
            },
        ),
        (
            "zone",
            TrackFilter {
                zone: Some("door".into()),
                ..none.clone()
            },
        ),
        (
            "zone, camera, min. 20 s",
            TrackFilter {
                zone: Some("door".into()),
                camera: Some("camera-0".into()),
                min_duration: Some(20.0),
                ..none.clone()
            },
        ),
        (
            "identity",
            TrackFilter {
                identity: Some("person-7".into()),
                ..none.clone()
            },
        ),
        (
            "min. 20 s (37 %)",
            TrackFilter {
                min_duration: Some(20.0),
                ..none.clone()
            },
        ),
        (
            "min. 180 s (0.01 %)",
            TrackFilter {
                min_duration: Some(180.0),
                ..none.clone()
            },
        ),
        (
            "camera, min. 100 s (0.7 %)",
            TrackFilter {
                camera,
                min_duration: Some(100.0),
                ..none.clone()
            },
        ),
        (
            "nobody",
            TrackFilter {
                identity: Some("nobody".into()),
                ..none.clone()
            },
        ),
    ];
    for (name, filter) in filters {
        let mut found = 0;
        let mut cursor = None;
        let (median, p95) = times(40, |_| {
            // Page after page, and again from the begin.
            let page = tracks::tracks(db, &filter, cursor, 100).unwrap();
            found = found.max(page.items.len());
            cursor = page.next;
        });
        println!("list, {name}: {median:.2} ms (median), {p95:.2} ms (p95), {found} rows");
    }
}

fn searches(db: &mut dyn Database, people: &mut People, embeddings: &[Vec<f32>]) {
    let search = Search::new(1 << 40);
    let began = Instant::now();
    search.load(db).unwrap();
    println!(
        "{} embeddings loaded in {:.1} s",
        search.len(),
        began.elapsed().as_secs_f64()
    );
    let queries: Vec<Vec<f32>> = (0..200).map(|n| people.embedding(7919 * n)).collect();
    let mut index = VectorIndex::new(SEARCHED, 1 << 40);
    for (id, embedding) in (1..).zip(embeddings) {
        let entry = Entry {
            id,
            camera: 1,
            time: (0, 0),
        };
        index.push(entry, embedding);
    }
    let before = processor();
    let (median, p95) = times(100, |n| {
        let near = index.nearest(&queries[n], 50, EntryFilter::default());
        assert_eq!(near.len(), 50);
    });
    let each = 10.0 * (processor() - before);
    println!(
        "scan of the memory alone: {median:.2} ms (median), {p95:.2} ms (p95), processor {each:.1} ms"
    );
    for (name, filter) in [
        ("all", SearchFilter::default()),
        (
            "one camera",
            SearchFilter {
                camera: Some("camera-2".into()),
                ..SearchFilter::default()
            },
        ),
    ] {
        let mut found = vec![Vec::new(); queries.len()];
        let mut ask = |n: usize| {
            let near = search.find(db, NET, &queries[n], 10, &filter).unwrap();
            found[n] = near.iter().map(|f| f.track.id as usize).collect();
        };
        (0..20).for_each(&mut ask); // the first read the files
        let before = processor();
        let (median, p95) = times(queries.len(), ask);
        let each = 1000.0 * (processor() - before) / queries.len() as f64;
        let mut hits = 0;
        for (query, found) in queries.iter().zip(&found) {
            let mut exact: Vec<(f32, usize)> = embeddings
                .iter()
                .enumerate()
                .filter(|(n, _)| filter.camera.is_none() || n % CAMERAS == 2)
                .map(|(n, e)| (e.iter().zip(query).map(|(a, b)| a * b).sum(), n + 10))
                .collect();
            exact.select_nth_unstable_by(9, |a, b| b.0.total_cmp(&a.0));
            hits += exact[..10]
                .iter()
                .filter(|(_, id)| found.contains(id))
                .count();
        }
        let recall = hits as f64 / (10 * queries.len()) as f64;
        println!(
            "search, {name}: {median:.2} ms (median), {p95:.2} ms (p95), processor {each:.1} ms, \
             recall@10 {recall:.4}"
        );
    }
}
