//! Search, identities, and the deletion of old data.

use twintrack::store::query::{EventFilter, StoredEvent, TrackFilter};
use twintrack::store::retention::{Retention, used_bytes};
use twintrack::store::search::SearchFilter;
use twintrack::store::{History, KeepDays, StoreError};

use crate::common::until;
use crate::data::{
    LONG, Place, at, close, crop, embedded, event, line, named, push, run, track, unit,
};

const NET: &str = "siamese 0123abcd";

/// Number of rows of a table.
fn count(history: &History, table: &str) -> i64 {
    let sql = format!("SELECT count(*) FROM {table}");
    history.ask(|db| db.query(&sql, &[])?[0].int(0)).unwrap()
}

pub fn search_finds_the_nearest_of_the_same_embedder(place: &Place) {
    let history = place.open();
    let mut random = fastrand::Rng::with_seed(5);
    let stored: Vec<Vec<f32>> = (0..600).map(|_| unit(&mut random, 32)).collect();
    let camera = |n: usize| ["a", "b"][n % 2];
    let rows = stored.iter().enumerate().map(|(n, embedding)| {
        let first = 10.0 * n as f64;
        embedded(
            track(camera(n), n as u64, first, first + 5.0),
            NET,
            embedding,
        )
    });
    push(&history, rows);
    let query = unit(&mut random, 32);
    let other = embedded(track("a", 9999, 0.0, 1.0), "other ffff", &query);
    let shorter = embedded(track("a", 9998, 0.0, 1.0), "shorter eeee", &query[..8]);
    push(&history, [other, shorter]);

    let exact = |admits: &dyn Fn(usize) -> bool| {
        let mut all: Vec<(f32, u64)> = stored
            .iter()
            .enumerate()
            .filter(|(n, _)| admits(*n))
            .map(|(n, e)| (e.iter().zip(&query).map(|(a, b)| a * b).sum(), n as u64))
            .collect();
        all.sort_by(|a, b| b.0.total_cmp(&a.0));
        all
    };
    let found = |filter: &SearchFilter| history.search(NET, &query, 10, filter).unwrap();
    let near = found(&SearchFilter::default());
    let best = exact(&|_| true);
    // PostgreSQL's index is approximate.
    let hits = near
        .iter()
        .filter(|f| best[..10].iter().any(|b| b.1 == f.track.id))
        .count();
    assert!(hits >= if place.is_file() { 10 } else { 9 }, "{hits} of 10");
    assert_eq!(near.len(), 10);
    assert_eq!(near[0].track.id, best[0].1);
    assert!((near[0].distance - (1.0 - best[0].0)).abs() < 1e-5);
    assert!(near.is_sorted_by(|a, b| a.distance <= b.distance));

    let filter = SearchFilter {
        camera: Some("b".into()),
        from: Some(at(1000.0)),
        to: Some(at(1400.0)),
    };
    let near = found(&filter);
    let best = exact(&|n| n % 2 == 1 && 10 * n + 5 >= 1000 && 10 * n < 1400);
    let ids = |n: usize| best[..n].iter().map(|b| b.1).collect::<Vec<_>>();
    assert_eq!(near.iter().map(|f| f.track.id).collect::<Vec<_>>(), ids(10));
    let nowhere = SearchFilter {
        camera: Some("nowhere".into()),
        ..filter
    };
    assert!(found(&nowhere).is_empty());

    // Embeddings of other networks are not compared, whatever their name.
    let none = SearchFilter::default();
    let renamed = history
        .search("renamed 0123abcd", &query, 1, &none)
        .unwrap();
    assert_eq!(renamed.len(), 1, "the hash counts");
    assert!(
        history
            .search("siamese 9999", &query, 1, &none)
            .unwrap()
            .is_empty()
    );
    let e = history.search(NET, &query[..31], 1, &none).unwrap_err();
    assert!(e.to_string().contains("31 dimensions"), "{e}");

    // By a stored track, which is its own nearest; and a track that was just added.
    let (embedder, embedding) = history.embedding(run(1), "b", 77).unwrap().unwrap();
    let near = history.search(&embedder, &embedding, 1, &none).unwrap();
    assert_eq!(near[0].track.id, 77);
    push(
        &history,
        [embedded(track("a", 5000, 0.0, 1.0), NET, &query)],
    );
    assert_eq!(found(&none)[0].track.id, 5000);
    close(&history);
    // The embeddings are read into memory again at the next start.
    let history = place.open();
    let near = history.search(NET, &query, 1, &none).unwrap();
    assert_eq!(near[0].track.id, 5000);
    close(&history);
}

pub fn events_are_renamed_and_deleted_with_their_person(place: &Place) {
    let history = place.open();
    let enter = |seq, track: u64, name: &str| {
        let identity = format!(r#""identity":{{"name":"{name}","similarity":0.9}}"#);
        let zone = r#""schema":"twintrack.zone/1","zone":"door","kind":"enter","occupancy":1"#;
        let what = format!(r#"{zone},"track":{track},{identity}"#);
        assert!(history.push(event("gate", seq, seq as f64, &what)));
    };
    let names = || {
        let page = history.events(&EventFilter::default(), None, 10).unwrap();
        let event = |e: &StoredEvent| {
            let event: serde_json::Value = serde_json::from_str(e.event.get()).unwrap();
            event["identity"]["name"].as_str().map(String::from)
        };
        page.items.iter().rev().map(event).collect::<Vec<_>>()
    };
    enter(1, 1, "ada");
    enter(2, 2, "a_a");
    push(
        &history,
        [
            named(track("gate", 1, 0.0, 50.0), "ada"),
            named(track("gate", 2, 0.0, 50.0), "a_a"),
        ],
    );
    let some = |name: &str| Some(name.to_string());
    assert_eq!(names(), [some("ada"), some("a_a")]);
    history.rename_identity("a_a", "ben").unwrap();
    history.rename_identity("ada", "Ada L.").unwrap();
    // The tracker still reports the old name.
    enter(3, 1, "ada");
    history.flush(LONG).unwrap();
    assert_eq!(names(), [some("Ada L."), some("ben"), some("Ada L.")]);
    history.delete_identity("Ada L.").unwrap();
    enter(4, 1, "ada");
    enter(5, 1, "Ada L.");
    history.flush(LONG).unwrap();
    assert_eq!(names(), [None, some("ben"), None, None, None]);
    close(&history);
}

pub fn identities_are_enrolled_renamed_and_deleted_with_everything(place: &Place) {
    let history = place.open();
    let mut random = fastrand::Rng::with_seed(6);
    let (ada, ben) = (unit(&mut random, 16), unit(&mut random, 16));
    let with_all = |id, name: &str, embedding: &[f32]| {
        let mut row = track("gate", id, 10.0 * id as f64, 10.0 * id as f64 + 5.0);
        row.crops = vec![crop(1.0, 0.5, name.as_bytes())];
        embedded(named(row, name), NET, embedding)
    };
    history
        .enrol("ada", NET, &[ada.clone(), ada.clone()])
        .unwrap();
    history
        .enrol("ada", NET, std::slice::from_ref(&ada))
        .unwrap();
    history
        .enrol("ben", NET, std::slice::from_ref(&ben))
        .unwrap();
    push(
        &history,
        [
            with_all(1, "ada", &ada),
            with_all(2, "ada", &ada),
            with_all(3, "ben", &ben),
        ],
    );
    let listed = |history: &History| {
        let all = history.identities().unwrap().into_iter();
        all.map(|i| (i.name, i.embeddings, i.tracks))
            .collect::<Vec<_>>()
    };
    let expected = |rows: &[(&str, u64, u64)]| {
        rows.iter()
            .map(|(n, e, t)| (n.to_string(), *e, *t))
            .collect::<Vec<_>>()
    };
    assert_eq!(listed(&history), expected(&[("ada", 3, 2), ("ben", 1, 1)]));
    let known = history.identity_embeddings("any name 0123abcd").unwrap();
    assert_eq!(known.len(), 4);
    assert_eq!((&*known[3].0, &known[3].1), ("ben", &ben));
    assert!(
        history
            .identity_embeddings("other ffff")
            .unwrap()
            .is_empty()
    );

    let e = history.rename_identity("ada", "ben").unwrap_err();
    assert!(matches!(e, StoreError::Exists(_)), "{e}");
    let e = history.rename_identity("nobody", "x").unwrap_err();
    assert!(matches!(e, StoreError::Missing(_)), "{e}");
    history.rename_identity("ada", "Ada L.").unwrap();
    assert_eq!(
        listed(&history),
        expected(&[("Ada L.", 3, 2), ("ben", 1, 1)])
    );
    // The tracker still reports the old name.
    push(&history, [with_all(4, "ada", &ada)]);
    assert_eq!(
        listed(&history),
        expected(&[("Ada L.", 3, 3), ("ben", 1, 1)])
    );

    let none = SearchFilter::default();
    assert_eq!(history.search(NET, &ada, 4, &none).unwrap().len(), 4);
    let deleted = history.delete_identity("Ada L.").unwrap();
    assert_eq!(
        (deleted.tracks, deleted.crops, deleted.embeddings),
        (3, 3, 6)
    );
    assert_eq!(listed(&history), expected(&[("ben", 1, 1)]));
    let near = history.search(NET, &ada, 4, &none).unwrap();
    assert_eq!(near.iter().map(|f| f.track.id).collect::<Vec<_>>(), [3]);
    // Under both names, the tracker's reports are stored without the person.
    push(
        &history,
        [with_all(5, "ada", &ada), with_all(6, "Ada L.", &ada)],
    );
    let page = history.tracks(&TrackFilter::default(), None, 10).unwrap();
    let names = page.items.iter().filter_map(|t| t.identity.as_ref());
    assert_eq!(names.map(|i| &*i.name).collect::<Vec<_>>(), ["ben"]);
    assert_eq!((page.items.len(), count(&history, "crops")), (6, 1));
    assert_eq!(count(&history, "embeddings"), 1);
    let e = history.delete_identity("Ada L.").unwrap_err();
    assert!(matches!(e, StoreError::Missing(_)), "{e}");
    assert!(matches!(
        history.delete_identity("nobody"),
        Err(StoreError::Missing(_))
    ));
    push(&history, [with_all(7, "nobody", &ada)]);
    assert_eq!(
        count(&history, "embeddings"),
        2,
        "a failed deletion deletes nothing later"
    );
    // Whoever is enrolled again is stored again.
    history
        .enrol("Ada L.", NET, std::slice::from_ref(&ada))
        .unwrap();
    // Regression: a track that began before the deletion was stored as one of the person enrolled
    // afterwards.
    push(&history, [with_all(8, "Ada L.", &ada)]);
    assert_eq!(
        (count(&history, "embeddings"), count(&history, "crops")),
        (2, 2)
    );
    let new = twintrack::store::rows::TrackRow {
        began: twintrack::clock::now(),
        ..with_all(9, "Ada L.", &ada)
    };
    push(&history, [new]);
    assert_eq!(count(&history, "embeddings"), 3);
    close(&history);
    if place.is_file() {
        let name = b"Ada L.";
        assert!(
            occurrences(place, b"nobody"),
            "the check finds what is there"
        );
        let history = place.open();
        history.delete_identity("nobody").unwrap();
        history.delete_identity("Ada L.").unwrap();
        // The writer may be emptying the write-ahead log of the last run, and then does it again.
        let gone = || !occurrences(place, name) && !occurrences(place, b"nobody");
        assert!(until(60, gone));
        close(&history);
    }
}

/// Regression: what was deleted stayed in the write-ahead log if somebody read at that time.
#[test]
fn a_deleted_person_leaves_the_write_ahead_log_after_the_last_reader() {
    let place = Place::file();
    let history = place.open();
    let name = "Zoe to be deleted";
    history.enrol(name, NET, &[vec![1.0, 0.0]]).unwrap();
    let location = place.config.location(place.folder.path()).unwrap();
    let mut reader = location.open().unwrap();
    reader.batch("BEGIN").unwrap();
    let read = reader.query("SELECT name FROM identities", &[]).unwrap();
    assert_eq!(read.len(), 1);
    history.delete_identity(name).unwrap();
    assert!(occurrences(&place, name.as_bytes()), "it can still be read");
    reader.batch("ROLLBACK").unwrap();
    assert!(until(60, || !occurrences(&place, name.as_bytes())));
    close(&history);
}

/// Whether the files of the database hold these bytes.
fn occurrences(place: &Place, bytes: &[u8]) -> bool {
    ["history.sqlite", "history.sqlite-wal"].iter().any(|name| {
        let content = std::fs::read(place.folder.path().join(name)).unwrap_or_default();
        content.windows(bytes.len()).any(|w| w == bytes)
    })
}

/// Days to keep of each kind.
fn keep(tracks: f64, events: f64, crops: f64, embeddings: f64) -> KeepDays {
    KeepDays::default()
        .with_tracks(tracks)
        .with_events(events)
        .with_crops(crops)
        .with_embeddings(embeddings)
}

const DAY: f64 = 86_400.0;

pub fn old_data_are_deleted_by_kind(place: &Place) {
    let history = place.open();
    for n in 0..10 {
        let first = DAY * n as f64;
        let mut row = track("gate", n, first, first + 10.0);
        row.crops = vec![crop(first, 0.5, b"crop")];
        push(&history, [embedded(row, NET, &[1.0, 0.0])]);
        history.push(line("gate", n + 1, first, "in"));
    }
    history.flush(LONG).unwrap();
    close(&history);
    let location = place.config.location(place.folder.path()).unwrap();
    let mut db = location.open().unwrap();
    let mut left = |keep| {
        let config = place.config.clone().with_keep_days(keep).with_max_bytes(0);
        let mut retention = Retention::new(&config);
        // Half a day after the last track.
        let mut removed = retention.step(&mut *db, at(9.5 * DAY), true).unwrap();
        while retention.is_pending() {
            removed = retention.step(&mut *db, at(9.5 * DAY), true).unwrap();
        }
        let tables = ["tracks", "events", "crops", "embeddings"];
        let counts = tables.map(|table| {
            let sql = format!("SELECT count(*) FROM {table}");
            db.query(&sql, &[]).unwrap()[0].int(0).unwrap()
        });
        (counts, removed.total())
    };
    assert_eq!(
        left(keep(0.0, 0.0, 0.0, 0.0)),
        ([10, 10, 10, 10], 0),
        "0: kept for ever"
    );
    assert_eq!(left(keep(0.0, 0.0, 2.0, 4.0)), ([10, 10, 2, 4], 8 + 6));
    assert_eq!(left(keep(0.0, 7.0, 2.0, 4.0)).0, [10, 7, 2, 4]);
    assert_eq!(
        left(keep(3.0, 7.0, 0.0, 0.0)).0,
        [3, 7, 2, 3],
        "with all about them"
    );
    assert_eq!(left(keep(1.0, 1.0, 1.0, 1.0)).0, [1, 1, 1, 1]);
}

pub fn the_oldest_data_beyond_the_size_are_deleted(place: &Place) {
    let history = place.open();
    let mut random = fastrand::Rng::with_seed(8);
    let picture: Vec<u8> = (0..10_000).map(|_| random.u8(..)).collect();
    for n in 0..600u64 {
        let mut row = track("gate", n, n as f64, n as f64 + 0.5);
        row.crops = vec![crop(n as f64, 0.5, &picture)];
        history.push(twintrack::store::rows::Change::Track(Box::new(row)));
        history.push(line("gate", n + 1, n as f64, "in"));
    }
    close(&history);
    let location = place.config.location(place.folder.path()).unwrap();
    let mut db = location.open().unwrap();
    let before = used_bytes(&mut *db).unwrap();
    assert!(before > 6_000_000, "{before} bytes");
    let config = place
        .config
        .clone()
        .with_keep_days(keep(0.0, 0.0, 0.0, 0.0))
        .with_max_bytes(2_000_000);
    let mut retention = Retention::new(&config);
    let mut steps = 0;
    loop {
        retention.step(&mut *db, at(0.0), true).unwrap();
        steps += 1;
        if !retention.is_pending() {
            break;
        }
    }
    assert!(steps > 1, "all in one step");
    let after = used_bytes(&mut *db).unwrap();
    assert!((1_000_000..=2_000_000).contains(&after), "{after} bytes");
    let history = place.open();
    let page = history.tracks(&TrackFilter::default(), None, 1000).unwrap();
    let kept = page.items.len();
    assert!((90..200).contains(&kept), "{kept}");
    let newest: Vec<u64> = (600 - kept as u64..600).rev().collect();
    let ids: Vec<u64> = page.items.iter().map(|t| t.id).collect();
    assert_eq!(ids, newest, "the newest are kept");
    let events = history.events(&EventFilter::default(), None, 1000).unwrap();
    assert!(
        events.items.len().abs_diff(kept) <= 1,
        "{} events",
        events.items.len()
    );
    close(&history);
    if place.is_file() {
        drop(db);
        let file = place.folder.path().join("history.sqlite");
        let bytes = std::fs::metadata(file).unwrap().len();
        assert!(bytes < 2_500_000, "the file still has {bytes} bytes");
    }
}
