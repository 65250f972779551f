//! Kills, outages, locks and other versions.

use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::Duration;

use twintrack::secret::Secret;
use twintrack::store::query::TrackFilter;
use twintrack::store::rows::{Change, TrackRow};
use twintrack::store::{History, HistoryConfig, StoreError};

use crate::common::{Running, until};
use crate::data::{LONG, Place, close, crop, push, run, track, zone};
use crate::server::Server;

pub fn a_newer_database_is_refused(place: &Place) {
    let history = place.open();
    let newer = "UPDATE twintrack_version SET version = version + 1000";
    history.ask(|db| db.execute(newer, &[])).unwrap();
    close(&history);
    let refused = History::open(&place.config, place.folder.path(), run(2));
    let says = refused.err().expect("newer").to_string();
    assert!(
        says.contains("version 10") && says.contains("newer program"),
        "{says}"
    );
}

pub fn tracks_of_a_killed_run_are_ended(place: &Place) {
    let going = |id| TrackRow {
        ended: false,
        ..track("gate", id, 1.0, 2.0)
    };
    let history = place.open();
    push(&history, [going(1), track("gate", 2, 1.0, 2.0)]);
    close(&history); // which may write the heartbeat again
    // Longer ago than 60 s, after which another process without a heartbeat counts as ended.
    let killed = "UPDATE runs SET alive = alive - 61000";
    let location = place.config.location(place.folder.path()).unwrap();
    location.open().unwrap().execute(killed, &[]).unwrap();
    let history = place.open_run(run(2));
    assert!(until(60, || history.cameras().unwrap()[0].tracks_present == 0));
    close(&history);
}

/// Environment variables of the child process.
const STATE: &str = "HISTORY_TEST_STATE";
const URL: &str = "HISTORY_TEST_URL";
const FIRST: &str = "HISTORY_TEST_FIRST";

/// The child process: writes tracks and prints the number of each that is acknowledged, until it is
/// killed.
#[test]
#[ignore = "a part of another test, which runs it in a process of its own"]
#[allow(clippy::print_stdout, reason = "the other test reads it")]
fn write_until_killed() {
    let state = std::env::var(STATE).expect("the other test sets it");
    let url = std::env::var(URL).ok().map(Secret::new);
    let first: u64 = std::env::var(FIRST).unwrap().parse().unwrap();
    let config = crate::data::config().with_url(url);
    let history = History::open(&config, state.as_ref(), run(u128::from(first))).unwrap();
    for id in first.. {
        let row = TrackRow {
            run: run(1),
            crops: vec![crop(1.0, 0.5, &vec![7; 20_000])],
            ..track("gate", id, id as f64, id as f64 + 1.0)
        };
        assert!(history.push(Change::Track(Box::new(row))));
        history.flush(LONG).unwrap();
        println!("acknowledged {id}");
    }
}

/// Kills the child 50 times while it writes, each time after at least two acknowledged tracks.
/// Everything that it printed must be there.
pub fn what_is_acknowledged_survives_fifty_kills(place: &Place) {
    let mut random = fastrand::Rng::with_seed(9);
    let (mut acknowledged, mut next) = (Vec::new(), 1u64);
    for _ in 0..50 {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "survival::write_until_killed",
            ])
            .env(STATE, place.folder.path())
            .env(FIRST, next.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        if let Some(url) = &place.config.url {
            child.env(URL, url.expose());
        }
        let mut child = Running::start(&mut child);
        let lines = BufReader::new(child.0.stdout.take().unwrap());
        let mut lines = lines.lines().map_while(Result::ok);
        let number = |line: String| line.split("acknowledged ").nth(1)?.parse::<u64>().ok();
        let first: Vec<u64> = lines.by_ref().filter_map(number).take(2).collect();
        assert_eq!(first.len(), 2, "the child writes");
        acknowledged.extend(first);
        std::thread::sleep(Duration::from_micros(random.u64(0..60_000)));
        child.0.kill().unwrap();
        acknowledged.extend(lines.filter_map(number));
        child.0.wait().unwrap();
        next = acknowledged.last().unwrap() + 1000;
    }
    let history = place.open();
    for id in &acknowledged {
        let detail = history.track(run(1), "gate", *id).unwrap();
        let detail = detail.unwrap_or_else(|| panic!("track {id} was acknowledged and is lost"));
        assert_eq!(
            (detail.path.len(), detail.views.len()),
            (2, 1),
            "track {id}"
        );
    }
    if place.is_file() {
        let check = history.ask(|db| db.query("PRAGMA integrity_check", &[])?[0].text(0));
        assert_eq!(check.unwrap(), "ok");
    }
    close(&history);
}

#[test]
fn one_process_writes_to_a_file_that_only_its_owner_can_read() {
    let place = Place::file();
    let history = place.open();
    let second = History::open(&place.config, place.folder.path(), run(2));
    let says = second.err().expect("in use").to_string();
    assert!(says.contains("another twintrack"), "{says}");
    push(&history, [track("gate", 1, 1.0, 2.0)]);
    let mut seen = 0;
    for entry in std::fs::read_dir(place.folder.path()).unwrap().flatten() {
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", entry.path().display());
        seen += 1;
    }
    assert!(seen >= 3, "{seen} files");
    close(&history);
    drop(history);
    close(&place.open_run(run(2)));
}

#[test]
fn another_file_is_left_as_it_is() {
    let place = Place::file();
    let file = place.folder.path().join("history.sqlite");
    std::fs::write(
        &file,
        "somebody's notes, which are not a database at all\n".repeat(50),
    )
    .unwrap();
    let before = std::fs::read(&file).unwrap();
    let opened = History::open(&place.config, place.folder.path(), run(1));
    let says = opened.err().expect("not a database").to_string();
    assert!(
        says.contains("history.sqlite") && says.contains("move the file"),
        "{says}"
    );
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

/// While the database is locked, changes wait in the queue, and further ones are dropped; when it
/// is free, those in the queue are written.
#[test]
fn a_locked_database_is_tried_again_and_what_has_no_room_is_counted() {
    let place = Place::file();
    let history = place.open();
    push(&history, [track("gate", 1, 1.0, 2.0)]);
    let location = place.config.location(place.folder.path()).unwrap();
    let mut other = location.open().unwrap();
    other.batch("BEGIN IMMEDIATE").unwrap();
    let counts = history.counts();
    let mut accepted = 1;
    let began = std::time::Instant::now();
    for n in 0..30_000 {
        accepted += u64::from(history.push(zone("gate", n + 1, 1.5, "enter", 1, 1)));
    }
    let pushing = began.elapsed();
    let dropped = counts.queue_full.load(Ordering::Relaxed);
    assert_eq!(accepted + dropped, 30_001);
    assert!(dropped >= 9_000, "{dropped}");
    assert!(
        until(60, || counts.failures.load(Ordering::Relaxed) > 0),
        "no failure"
    );
    assert!(!counts.connected.load(Ordering::Relaxed));
    // Pushing does not wait for the writer, whose first failure takes seconds.
    assert!(pushing < Duration::from_secs(60), "{pushing:?}");
    other.batch("ROLLBACK").unwrap();
    history.flush(LONG).unwrap();
    assert_eq!(counts.stored.load(Ordering::Relaxed), accepted);
    assert!(counts.connected.load(Ordering::Relaxed));
    close(&history);
}

#[test]
fn the_shutdown_does_not_wait_for_a_locked_database() {
    let place = Place::file();
    let history = place.open();
    push(&history, [track("gate", 1, 1.0, 2.0)]);
    let mut other = place
        .config
        .location(place.folder.path())
        .unwrap()
        .open()
        .unwrap();
    other.batch("BEGIN IMMEDIATE").unwrap();
    history.push(Change::Track(Box::new(track("gate", 2, 1.0, 2.0))));
    history.close(Duration::from_millis(100));
    let ended = history.finish();
    let lost = history.counts().shutdown.load(Ordering::Relaxed);
    // The writer may be in the middle of an attempt, which ends by itself.
    match ended {
        // Regression: the error said 0.5 s.
        Err(StoreError::Timeout(seconds)) => assert_eq!(seconds, 0.1),
        _ => assert_eq!(lost, 1),
    }
    assert!(!history.push(Change::Track(Box::new(track("gate", 3, 1.0, 2.0)))));
    let counted = || history.counts().shutdown.load(Ordering::Relaxed) == 1;
    assert!(until(60, counted), "the loss is not counted");
    other.batch("ROLLBACK").unwrap();
}

#[test]
fn an_outage_of_postgresql_is_bridged() {
    let Some(server) = Server::start() else {
        return;
    };
    let place = Place::server(&server, "an outage");
    let history = place.open();
    push(&history, [track("gate", 1, 1.0, 2.0)]);
    assert_eq!(
        history
            .tracks(&TrackFilter::default(), None, 10)
            .unwrap()
            .items
            .len(),
        1
    );
    server.stop();
    for id in 2..=50 {
        history.push(Change::Track(Box::new(track("gate", id, 1.0, 2.0))));
    }
    let counts = history.counts();
    assert!(
        until(60, || counts.failures.load(Ordering::Relaxed) > 0),
        "no failure"
    );
    assert!(matches!(history.cameras(), Err(StoreError::Unavailable(_))));
    // A second program starts during the outage.
    let second = place.open_run(run(2));
    second.push(Change::Track(Box::new(TrackRow {
        run: run(2),
        ..track("gate", 1, 5.0, 6.0)
    })));
    // A third one has nothing to write.
    let third = place.open_run(run(3));
    let counts_of_third = third.counts();
    assert!(!counts_of_third.connected.load(Ordering::Relaxed));
    server.begin();
    assert!(
        until(60, || counts_of_third.connected.load(Ordering::Relaxed)),
        "it connects without a change"
    );
    history.flush(LONG).unwrap();
    second.flush(LONG).unwrap();
    let listed = history.tracks(&TrackFilter::default(), None, 100).unwrap();
    assert_eq!(listed.items.len(), 51);
    assert_eq!(counts.dropped().map(|(_, n)| n), [0, 0, 0]);
    close(&history);
    close(&second);
    close(&third);
}

#[test]
fn tls_is_used_and_an_unknown_certificate_refused() {
    let Some(server) = Server::start() else {
        return;
    };
    let url = format!("{}?sslmode=require", server.database("private"));
    let mut place = Place::file();
    place.config = place.config.with_url(Some(Secret::new(url)));
    let location = place.config.location(place.folder.path()).unwrap();
    let refused = location.open().err().expect("the certificate is unknown");
    assert!(refused.to_string().contains("certificate"), "{refused}");
    // The folder of the server belongs to another user.
    let ca_file = place.folder.path().join("ca.pem");
    std::fs::copy(server.certificate(), &ca_file).unwrap();
    place.config = place.config.with_ca_file(Some(ca_file));
    let history = place.open();
    push(&history, [track("gate", 1, 1.0, 2.0)]);
    let sql = "SELECT CAST(ssl AS TEXT) FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let ssl = history.ask(|db| db.query(sql, &[])?[0].text(0)).unwrap();
    assert_eq!(ssl, "true");
    close(&history);
}

#[test]
fn an_unusable_address_is_refused_without_its_password() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("url");
    std::fs::write(&file, "postgres://ada:SECRET@h:port/x\n").unwrap();
    for config in [
        HistoryConfig::default().with_url_file(Some(file)),
        HistoryConfig::default().with_url(Some(Secret::new("mysql://ada:SECRET@h/x"))),
        HistoryConfig::default().with_url_env(Some("TWINTRACK_TEST_NOT_SET".into())),
    ] {
        let e = config.check().expect_err("invalid").to_string();
        assert!(e.starts_with("history: ") && !e.contains("SECRET"), "{e}");
        assert!(!format!("{config:?}").contains("SECRET"));
        let opened = History::open(&config, folder.path(), run(1));
        assert_eq!(opened.err().expect("invalid").to_string(), e);
    }
    let far = HistoryConfig::default().with_update_every(0.5);
    let e = far.validate().expect_err("out of range").to_string();
    assert!(e.contains("history.update_every"), "{e}");
}
