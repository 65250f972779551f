//! Changes at the same time in PostgreSQL. Each test holds a writer in the middle of a transaction.

use std::time::Duration;

use twintrack::store::database::Database;
use twintrack::store::query::TrackFilter;
use twintrack::store::rows::{Change, TrackRow};
use twintrack::store::{History, StoreError};

use crate::common::until;
use crate::data::{LONG, Place, close, embedded, named, push, run, track};
use crate::server::Server;

const NET: &str = "siamese 0123abcd";

/// A connection that has added the camera `held` and not committed it. Until its ROLLBACK, a
/// transaction with a row of this camera waits.
struct Holder(Box<dyn Database>);

impl Holder {
    fn new(place: &Place) -> Self {
        let location = place.config.location(place.folder.path()).unwrap();
        let mut db = location.open().unwrap();
        // It holds the transaction for as long as the test takes.
        db.batch(
            "BEGIN; SET LOCAL idle_in_transaction_session_timeout = 0; \
             INSERT INTO cameras (name, first_seen, last_seen) VALUES ('held', 0, 0)",
        )
        .unwrap();
        Holder(db)
    }

    /// Number of transactions that wait for a lock.
    fn waiting(&mut self) -> i64 {
        let sql = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        self.0.query(sql, &[]).unwrap()[0].int(0).unwrap()
    }

    fn release(&mut self) {
        self.0.batch("ROLLBACK").unwrap();
    }
}

/// Hands a track to the writer, without waiting for the commit.
fn hand_over(history: &History, track: TrackRow) {
    assert!(history.push(Change::Track(Box::new(track))));
}

fn count(history: &History, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    history.ask(|db| db.query(&sql, &[])?[0].int(0)).unwrap()
}

/// The matching of people reads embeddings in the order of their keys. Regression: another writer
/// could commit a higher key first, and the lower one was then never read.
#[test]
fn embeddings_of_several_writers_are_committed_in_the_order_of_their_keys() {
    let Some(server) = Server::start() else {
        return;
    };
    let place = Place::server(&server, "the order of keys");
    let (first, second) = (place.open(), place.open_run(run(2)));
    let person = |camera, id| embedded(track(camera, id, 0.0, 5.0), NET, &[1.0, 0.0]);
    // Both know run, camera and embedder, so that neither waits for the other because of them.
    push(&first, [person("gate", 1)]);
    push(&second, [person("hall", 1)]);
    let mut holder = Holder::new(&place);
    hand_over(&first, person("gate", 2));
    hand_over(&first, track("held", 1, 0.0, 5.0));
    assert!(until(60, || holder.waiting() == 1), "the first writes");
    hand_over(&second, person("hall", 2));
    let mut stored = 0;
    let decided = until(60, || {
        stored = count(&first, "embeddings");
        stored > 2 || holder.waiting() == 2
    });
    assert!(decided && stored == 2, "{stored} embeddings are stored");
    holder.release();
    first.flush(LONG).unwrap();
    second.flush(LONG).unwrap();
    assert_eq!(count(&first, "embeddings"), 4);
    close(&first);
    close(&second);
}

/// Regression: a track that was being written during the change was stored under the old name, and
/// that of a deleted person with name and embedding.
#[test]
fn tracks_that_are_being_written_are_renamed_and_deleted_too() {
    let Some(server) = Server::start() else {
        return;
    };
    let place = Place::server(&server, "names");
    let history = place.open();
    for name in ["ada", "ben"] {
        history.enrol(name, NET, &[vec![1.0, 0.0]]).unwrap();
    }
    // The writer knows the embedder, so that it does not lock the table to create an index.
    push(
        &history,
        [embedded(track("gate", 4, 0.0, 5.0), NET, &[1.0, 0.0])],
    );
    let mut holder = Holder::new(&place);
    for (id, name) in [(1, "ada"), (2, "ben")] {
        let person = named(track("gate", id, 0.0, 5.0), name);
        hand_over(&history, embedded(person, NET, &[1.0, 0.0]));
    }
    hand_over(&history, track("held", 3, 0.0, 5.0));
    assert!(until(60, || holder.waiting() == 1), "the writer writes");
    std::thread::scope(|scope| {
        let change = || -> Result<(), StoreError> {
            history.rename_identity("ada", "Ada L.")?;
            history.delete_identity("ben").map(drop)
        };
        let changing = scope.spawn(change);
        // The change waits for the writer. If it did not, it would be made in this time.
        std::thread::sleep(Duration::from_secs(1));
        holder.release();
        changing.join().unwrap().unwrap();
    });
    history.flush(LONG).unwrap();
    let page = history.tracks(&TrackFilter::default(), None, 10).unwrap();
    let names = page.items.iter().filter_map(|t| t.identity.as_ref());
    assert_eq!(names.map(|i| &*i.name).collect::<Vec<_>>(), ["Ada L."]);
    assert_eq!((page.items.len(), count(&history, "embeddings")), (4, 2));
    close(&history);
}

/// A process that is paused within a transaction must not stop the other writers for ever; when it
/// goes on, it repeats the transaction instead of dropping the changes.
#[test]
fn the_server_ends_a_transaction_without_statements() {
    let Some(server) = Server::start() else {
        return;
    };
    let place = Place::server(&server, "a paused transaction");
    let location = place.config.location(place.folder.path()).unwrap();
    let mut db = location.open().unwrap();
    let sql = "SELECT current_setting('idle_in_transaction_session_timeout')";
    assert_eq!(db.query(sql, &[]).unwrap()[0].text(0).unwrap(), "30s");
    db.batch("SET idle_in_transaction_session_timeout = '10ms'; BEGIN")
        .unwrap();
    let mut ended = None;
    until(60, || {
        ended = db.query("SELECT 1", &[]).err();
        ended.is_some()
    });
    let ended = ended.expect("the transaction is ended");
    assert!(ended.is_transient(), "{ended}");
}
