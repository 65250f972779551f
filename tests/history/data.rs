//! Places for databases, and rows to store.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use twintrack::secret::Secret;
use twintrack::store::rows::{Change, CropRow, EventRow, Picture, TrackRow, timestamp};
use twintrack::store::{History, HistoryConfig, KeepDays};
use twintrack::time::Timestamp;
use twintrack::trajectory::RunId;

use crate::server::Server;

/// How long a test waits for a commit.
pub const LONG: Duration = Duration::from_secs(120);
/// The time of second 0 of the tests' data, in milliseconds since 1970.
pub const START: i64 = 1_795_000_000_000;

/// Settings that keep everything, because the tests' data are of a fixed time.
pub fn config() -> HistoryConfig {
    let keep = KeepDays::default()
        .with_tracks(0.0)
        .with_events(0.0)
        .with_crops(0.0)
        .with_embeddings(0.0);
    HistoryConfig::default()
        .with_embeddings(true)
        .with_keep_days(keep)
}

/// A place for a database that is empty at first.
pub struct Place {
    pub config: HistoryConfig,
    pub folder: tempfile::TempDir,
}

impl Place {
    /// An SQLite file.
    pub fn file() -> Self {
        Place {
            config: config(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A database of a server.
    pub fn server(server: &Server, name: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        eprintln!("on PostgreSQL: {name}");
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let url = Secret::new(server.database(&format!("history{number}")));
        let mut place = Place::file();
        place.config = place.config.with_url(Some(url));
        place
    }

    pub fn open(&self) -> History {
        self.open_run(run(1))
    }

    pub fn open_run(&self, run: RunId) -> History {
        History::open(&self.config, self.folder.path(), run).unwrap()
    }

    pub fn is_file(&self) -> bool {
        self.config.url.is_none()
    }
}

/// Closes a history after its last commit.
pub fn close(history: &History) {
    history.flush(LONG).unwrap();
    history.close(LONG);
    history.finish().unwrap();
}

/// The id of the tests' run `n`.
pub fn run(n: u128) -> RunId {
    RunId::from_u128(0x0192_0000_0000_7000_8000_0000_0000_0000 + n)
}

/// The time `seconds` after the begin of the tests' data.
pub fn at(seconds: f64) -> Timestamp {
    timestamp(START + (1000.0 * seconds).round() as i64)
}

/// An ended track between two times in seconds.
pub fn track(camera: &str, id: u64, first: f64, last: f64) -> TrackRow {
    TrackRow {
        began: at(first),
        run: run(1),
        camera: camera.into(),
        track: id,
        pts: (first, last),
        time: (at(first), at(last)),
        clock: Some(twintrack::time::Clock::Arrival),
        hits: 10,
        ended: true,
        frame: (640, 480),
        path: Some(vec![[first, 1.0, 2.0], [last, 3.25, 4.5]]),
        path_error: None,
        boxes: Vec::new(),
        identity: None,
        embedder: None,
        embedding: None,
        crops: Vec::new(),
    }
}

pub fn named(track: TrackRow, name: &str) -> TrackRow {
    TrackRow {
        identity: Some((name.into(), 0.75)),
        ..track
    }
}

pub fn embedded(track: TrackRow, embedder: &str, embedding: &[f32]) -> TrackRow {
    TrackRow {
        embedder: Some(embedder.into()),
        embedding: Some(embedding.into()),
        ..track
    }
}

pub fn crop(seconds: f64, score: f64, bytes: &[u8]) -> CropRow {
    CropRow {
        pts: seconds,
        time: at(seconds),
        score,
        size: (40, 100),
        picture: Picture::Jpeg(bytes.into()),
    }
}

pub fn push(history: &History, tracks: impl IntoIterator<Item = TrackRow>) {
    for track in tracks {
        assert!(history.push(Change::Track(Box::new(track))), "no room");
    }
    history.flush(LONG).unwrap();
}

/// An event of a zone or line in JSON. `what`: the fields that differ.
pub fn event(camera: &str, seq: u64, seconds: f64, what: &str) -> Change {
    let time = serde_json::to_string(&at(seconds)).unwrap();
    let json = format!(
        r#"{{"run":"{}","camera":"{camera}","seq":{seq},"pts":{seconds},"time":{time},{what}}}"#,
        run(1)
    );
    Change::Event(EventRow::parse(&json, at(0.0)).unwrap())
}

pub fn zone(camera: &str, seq: u64, seconds: f64, action: &str, track: u64, inside: u32) -> Change {
    let what = format!(
        r#""schema":"twintrack.zone/1","zone":"door","kind":"{action}","track":{track},"occupancy":{inside}"#
    );
    event(camera, seq, seconds, &what)
}

pub fn line(camera: &str, seq: u64, seconds: f64, direction: &str) -> Change {
    let what =
        format!(r#""schema":"twintrack.line/1","line":"gate","direction":"{direction}","track":1"#);
    event(camera, seq, seconds, &what)
}

/// A random unit vector.
pub fn unit(random: &mut fastrand::Rng, dimension: usize) -> Vec<f32> {
    let v: Vec<f32> = (0..dimension).map(|_| random.f32() - 0.5).collect();
    let length = v.iter().map(|x| x * x).sum::<f32>().sqrt();
    v.iter().map(|x| x / length).collect()
}
