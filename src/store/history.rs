//! The history of a running program: a thread of its own writes it, and questions read it.
//!
//! Questions block the caller while the database works: an async program asks them on a thread for
//! blocking work.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::clock;
use crate::multi_camera::MultiCameraConfig;
use crate::sink::private;
use crate::store::config::{HistoryConfig, Location};
use crate::store::counts::HistoryCounts;
use crate::store::database::{Database, empty_log};
use crate::store::error::StoreError;
use crate::store::heat_map::{HeatMap, HeatMapQuery, heat_map};
use crate::store::identities::{self, Deleted};
use crate::store::person_matching::{CalibratedEmbedder, PersonMatching};
use crate::store::query::{
    CameraSummary, Cursor, EventFilter, Found, Page, StoredEvent, StoredIdentity, TrackDetail,
    TrackFilter, TrackSummary,
};
use crate::store::readers::Readers;
use crate::store::rows::Change;
use crate::store::search::{Search, SearchFilter};
use crate::store::statistics::{StatisticsQuery, statistics};
use crate::store::write::NameChange;
use crate::store::writer::{Shared, Shutdown, Writer};
use crate::store::{events, query, tracks};
use crate::trajectory::RunId;

/// The history. Clones share it.
#[derive(Clone)]
pub struct History(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    search: Arc<Search>,
    readers: Readers,
    writer: Mutex<Option<JoinHandle<()>>>,
    /// Keeps other processes from writing to the same SQLite file, until the writer has ended.
    file_lock: Mutex<Option<File>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.queue.close();
        self.readers.close();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Locks the file beside the database that only the writing process holds.
fn lock_file(path: &Path) -> Result<File, StoreError> {
    let failed = |reason: String| StoreError::Open {
        database: path.display().to_string(),
        reason,
    };
    let folder = path.parent().unwrap_or(Path::new("."));
    private::create_folder(folder).map_err(|e| failed(e.to_string()))?;
    let file = private::options()
        .append(true)
        .create(true)
        .open(path.with_extension("lock"))
        .map_err(|e| failed(e.to_string()))?;
    file.try_lock()
        .map_err(|_| failed("another twintrack uses it; give each its own state_dir".into()))?;
    Ok(file)
}

impl History {
    /// Opens the history and starts its writer. With an unreachable PostgreSQL server it starts
    /// too, and connects later. May be called on any thread.
    ///
    /// # Errors
    /// When the settings are invalid, the database cannot be opened for another reason, another
    /// process writes to the file, or a newer program has written it.
    pub fn open(config: &HistoryConfig, state: &Path, run: RunId) -> Result<Self, StoreError> {
        config
            .validate()
            .map_err(|e| StoreError::Settings(e.to_string()))?;
        let location = config.location(state)?;
        let file_lock = match &location {
            Location::File(path) => Some(lock_file(path)?),
            Location::Server { .. } => None,
        };
        let shared = Arc::new(Shared {
            location,
            config: config.clone(),
            run,
            queue: Default::default(),
            counts: HistoryCounts::default(),
            names: Mutex::default(),
            log_to_empty: true.into(),
            shutdown: Mutex::default(),
        });
        let search = Arc::new(Search::new(config.search_memory));
        let (opened, result) = std::sync::mpsc::channel();
        let (writing, loading) = (shared.clone(), search.clone());
        // PostgreSQL's client has an async runtime of its own; therefore its connection must be
        // opened and closed on a thread without a runtime.
        let thread = std::thread::Builder::new().name("history".into());
        let spawned = thread.spawn(move || {
            let db = match writing.location.prepare() {
                Ok(db) => Some(db),
                Err(e) if e.is_transient() => {
                    let database = writing.location.shown();
                    tracing::warn!(%database, error = %e, "the history is not available yet");
                    None
                }
                Err(e) => {
                    let _ = opened.send(Err(e)); // the caller waits for it
                    return;
                }
            };
            let _ = opened.send(Ok(()));
            load(&writing, &loading);
            Writer::new(writing, db).run();
        });
        let failed = |reason: String| StoreError::Open {
            database: shared.location.shown(),
            reason,
        };
        let writer = spawned.map_err(|e| failed(format!("cannot start a thread: {e}")))?;
        result
            .recv()
            .map_err(|_| failed("its thread has ended".into()))??;
        Ok(History(Arc::new(Inner {
            shared,
            search,
            readers: Readers::default(),
            writer: Mutex::new(Some(writer)),
            file_lock: Mutex::new(file_lock),
        })))
    }

    /// Starts to give ended tracks the number of their person across cameras.
    ///
    /// # Errors
    /// When the settings are invalid, or the thread cannot be started.
    pub fn match_people(
        &self,
        config: MultiCameraConfig,
        embedders: Vec<CalibratedEmbedder>,
    ) -> Result<PersonMatching, StoreError> {
        PersonMatching::start(self.0.shared.location.clone(), config, embedders)
    }

    /// The settings.
    pub fn config(&self) -> &HistoryConfig {
        &self.0.shared.config
    }

    /// Counters and state.
    pub fn counts(&self) -> &HistoryCounts {
        &self.0.shared.counts
    }

    /// Number of changes that wait for their commit.
    pub fn waiting(&self) -> u64 {
        self.0.shared.queue.waiting()
    }

    /// Number of embeddings that the search holds in memory.
    pub fn embeddings_in_memory(&self) -> u64 {
        self.0.search.len() as u64
    }

    /// Hands a change to the writer. Never waits: without room in the queue the change is dropped
    /// and counted. Returns whether it was accepted.
    pub fn push(&self, change: Change) -> bool {
        let accepted = self.0.shared.queue.push(change);
        if !accepted {
            let count = &self.counts().queue_full;
            count.fetch_add(1, Ordering::Relaxed);
        }
        accepted
    }

    /// Whether the queue has room for a change that must not be dropped.
    pub fn has_room(&self) -> bool {
        self.0.shared.queue.has_room()
    }

    /// Waits until all changes pushed so far are committed. What is committed survives a kill of
    /// the process and a power failure.
    ///
    /// # Errors
    /// When that takes longer than `timeout`.
    pub fn flush(&self, timeout: Duration) -> Result<(), StoreError> {
        if self.0.shared.queue.flush(timeout) {
            Ok(())
        } else {
            Err(StoreError::Timeout(timeout.as_secs_f64()))
        }
    }

    /// Accepts no more changes; the writer ends when it has written those in the queue, at the
    /// latest after `timeout`.
    pub fn close(&self, timeout: Duration) {
        let deadline = Instant::now() + timeout;
        *lock(&self.0.shared.shutdown) = Some(Shutdown { deadline, timeout });
        self.0.shared.queue.close();
    }

    /// Waits for the writer's end after [`History::close`], at most until 0.5 s after the timeout
    /// given there.
    ///
    /// # Errors
    /// When the writer did not end in time.
    pub fn finish(&self) -> Result<(), StoreError> {
        self.0.readers.close();
        let Shutdown { deadline, timeout } = lock(&self.0.shared.shutdown).unwrap_or(Shutdown {
            deadline: Instant::now(),
            timeout: Duration::ZERO,
        });
        // The writer itself gives up at the deadline; it gets a little longer, so that it can end
        // by itself.
        let deadline = deadline + Duration::from_millis(500);
        let Some(writer) = lock(&self.0.writer).take() else {
            return Ok(());
        };
        while !writer.is_finished() {
            if Instant::now() >= deadline {
                return Err(StoreError::Timeout(timeout.as_secs_f64()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = writer.join(); // a panic has been logged
        lock(&self.0.file_lock).take();
        Ok(())
    }

    /// Runs a question on a connection of its own; an interrupted connection is replaced once, and
    /// the question then runs again, so that it must not change the history. At most 16 questions
    /// run at once, further ones wait.
    ///
    /// # Errors
    /// The error of `question`, or of connecting; [`StoreError::Unavailable`] after
    /// [`History::finish`].
    pub fn ask<T>(
        &self,
        question: impl Fn(&mut dyn Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.0.readers.ask(&self.0.shared.location, question)
    }

    /// Runs a change of the history, as [`History::ask`], but never twice.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut dyn Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.0.readers.change(&self.0.shared.location, change)
    }

    /// All cameras, by name.
    ///
    /// # Errors
    /// As [`tracks::cameras`].
    pub fn cameras(&self) -> Result<Vec<CameraSummary>, StoreError> {
        self.ask(tracks::cameras)
    }

    /// The changes of a camera's state, from new to old.
    ///
    /// # Errors
    /// As [`tracks::camera_status`].
    pub fn camera_status(
        &self,
        camera: &str,
        limit: usize,
    ) -> Result<Vec<query::StatusChange>, StoreError> {
        self.ask(|db| tracks::camera_status(db, camera, limit))
    }

    /// Tracks, from those that began last.
    ///
    /// # Errors
    /// As [`tracks::tracks`].
    pub fn tracks(
        &self,
        filter: &TrackFilter,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<TrackSummary>, StoreError> {
        self.ask(|db| tracks::tracks(db, filter, cursor, limit))
    }

    /// A track with its path and the list of its crops.
    ///
    /// # Errors
    /// As [`tracks::track`].
    pub fn track(
        &self,
        run: RunId,
        camera: &str,
        track: u64,
    ) -> Result<Option<TrackDetail>, StoreError> {
        self.ask(|db| tracks::track(db, run, camera, track))
    }

    /// The JPEG of a crop.
    ///
    /// # Errors
    /// As [`tracks::crop`].
    pub fn crop(&self, id: i64) -> Result<Option<Vec<u8>>, StoreError> {
        self.ask(|db| tracks::crop(db, id))
    }

    /// The embedder (name and hash) and the stored embedding of a track.
    ///
    /// # Errors
    /// As [`tracks::embedding`].
    pub fn embedding(
        &self,
        run: RunId,
        camera: &str,
        track: u64,
    ) -> Result<Option<(String, Vec<f32>)>, StoreError> {
        self.ask(|db| tracks::embedding(db, run, camera, track))
    }

    /// Events of zones and lines, from new to old.
    ///
    /// # Errors
    /// As [`events::events`].
    pub fn events(
        &self,
        filter: &EventFilter,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<Page<StoredEvent>, StoreError> {
        self.ask(|db| events::events(db, filter, cursor, limit))
    }

    /// Counts per span of time.
    ///
    /// # Errors
    /// As [`statistics`].
    pub fn statistics(&self, query: &StatisticsQuery) -> Result<Vec<query::Bucket>, StoreError> {
        self.ask(|db| statistics(db, query))
    }

    /// Where people were, and for how long.
    ///
    /// # Errors
    /// As [`heat_map`].
    pub fn heat_map(&self, query: &HeatMapQuery) -> Result<HeatMap, StoreError> {
        self.ask(|db| heat_map(db, query))
    }

    /// The `k` tracks nearest to an embedding made by `embedder` (name and hash).
    ///
    /// # Errors
    /// As [`Search::find`].
    pub fn search(
        &self,
        embedder: &str,
        embedding: &[f32],
        k: usize,
        filter: &SearchFilter,
    ) -> Result<Vec<Found>, StoreError> {
        self.ask(|db| self.0.search.find(db, embedder, embedding, k, filter))
    }

    /// The enrolled identities, by name.
    ///
    /// # Errors
    /// As [`identities::list`].
    pub fn identities(&self) -> Result<Vec<StoredIdentity>, StoreError> {
        self.ask(identities::list)
    }

    /// The embeddings of enrolled identities that `embedder` (name and hash) made, by name.
    ///
    /// # Errors
    /// As [`identities::embeddings`].
    pub fn identity_embeddings(
        &self,
        embedder: &str,
    ) -> Result<Vec<(String, Vec<f32>)>, StoreError> {
        self.ask(|db| identities::embeddings(db, embedder))
    }

    /// Enrols an identity, or adds embeddings to an enrolled one.
    ///
    /// # Errors
    /// As [`identities::enrol`].
    pub fn enrol(
        &self,
        name: &str,
        embedder: &str,
        embeddings: &[Vec<f32>],
    ) -> Result<(), StoreError> {
        let embedder: Arc<str> = embedder.into();
        self.change(|db| identities::enrol(db, name, &embedder, embeddings, clock::now()))
    }

    /// Renames an identity, and the tracks that have its name. Tracks that the tracker still
    /// reports under the old name are stored under the new one.
    ///
    /// # Errors
    /// As [`identities::rename`].
    pub fn rename_identity(&self, old: &str, new: &str) -> Result<(), StoreError> {
        let mut names = lock(&self.0.shared.names);
        self.change(|db| identities::rename(db, old, new))?;
        let is_old = |change: &&mut NameChange| change.name.as_deref() == Some(old);
        for later in names.values_mut().filter(is_old) {
            later.name = Some(new.into());
        }
        if old != new {
            let change = NameChange {
                name: Some(new.into()),
                at: clock::now(),
            };
            names.insert(old.into(), change);
        }
        Ok(())
    }

    /// Deletes an identity with everything about the person: see [`identities::delete`]. Tracks
    /// that the tracker still reports under the name are stored without it, without embedding and
    /// without crops, also if the name is enrolled again meanwhile. SQLite's write-ahead log, which
    /// holds the deleted rows, is emptied; if a reader prevents it for 5 s, the writer tries again
    /// every 10 s.
    ///
    /// # Errors
    /// As [`identities::delete`].
    pub fn delete_identity(&self, name: &str) -> Result<Deleted, StoreError> {
        let mut names = lock(&self.0.shared.names);
        let change = NameChange {
            name: None,
            at: clock::now(),
        };
        let deleted = self.change(|db| identities::delete(db, name))?;
        names.insert(name.into(), change);
        for later in names.values_mut() {
            if later.name.as_deref() == Some(name) {
                later.name = None;
            }
        }
        drop(names);
        self.0.search.remove(&deleted.keys);
        // After an error too, the identity is deleted, and the writer logs its own error.
        if !matches!(self.ask(empty_log), Ok(true)) {
            self.0.shared.log_to_empty.store(true, Ordering::Relaxed);
        }
        Ok(deleted)
    }
}

/// Reads the embeddings of earlier runs into the search's memory, on a thread of its own.
fn load(shared: &Arc<Shared>, search: &Arc<Search>) {
    let (shared, search) = (shared.clone(), search.clone());
    if !matches!(shared.location, Location::File(_)) {
        return;
    }
    let thread = std::thread::Builder::new().name("history-load".into());
    let spawned = thread.spawn(move || {
        let loaded = shared
            .location
            .open()
            .and_then(|mut db| search.load(&mut *db));
        if let Err(e) = loaded {
            tracing::warn!(error = %e, "embeddings are read at the first search");
        }
    });
    if let Err(e) = spawned {
        tracing::warn!(error = %e, "embeddings are read at the first search");
    }
}
