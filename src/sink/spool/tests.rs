//! Tests of the spool.

use super::*;

const ALL: usize = usize::MAX >> 1;

fn open(dir: &Path, limits: SpoolLimits) -> Arc<Spool> {
    Spool::open(dir, "test", limits).expect("a spool")
}

fn texts(events: &[QueuedEvent]) -> Vec<String> {
    events
        .iter()
        .map(|event| String::from_utf8_lossy(&event.body).into_owned())
        .collect()
}

fn after(spool: &Spool, position: i64, count: usize) -> Vec<QueuedEvent> {
    spool.after(position, count, ALL).expect("read")
}

/// Number and bytes of the events in the queue.
fn queued(spool: &Spool) -> (u64, u64) {
    (
        spool.counts.events.load(Ordering::Relaxed),
        spool.counts.bytes.load(Ordering::Relaxed),
    )
}

#[test]
fn undelivered_events_survive_a_restart_in_order() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = open(dir.path(), SpoolLimits::default());
    (0..10).for_each(|i| {
        spool.push(
            EventKind::TrackEnded,
            "cam",
            format!("event {i}").as_bytes(),
        )
    });
    let first = after(&spool, 0, 4);
    assert_eq!(texts(&first), ["event 0", "event 1", "event 2", "event 3"]);
    spool
        .acknowledge(&[first[0].position, first[2].position])
        .expect("removed");
    assert_eq!(
        (
            queued(&spool),
            spool.counts.delivered.load(Ordering::Relaxed)
        ),
        ((8, 56), 2)
    );
    drop(spool);
    let spool = open(dir.path(), SpoolLimits::default());
    let rest = after(&spool, 0, 100);
    assert_eq!(
        texts(&rest),
        [1, 3, 4, 5, 6, 7, 8, 9].map(|i| format!("event {i}"))
    );
    assert!(
        rest.iter()
            .all(|event| event.kind == EventKind::TrackEnded && event.camera == "cam")
    );
    spool.push(EventKind::Trajectory, "cam", b"new");
    assert_eq!(texts(&after(&spool, rest[7].position, 5)), ["new"]);
    spool
        .acknowledge(
            &after(&spool, 0, 100)
                .iter()
                .map(|event| event.position)
                .collect::<Vec<_>>(),
        )
        .expect("removed");
    assert!(spool.is_empty() && queued(&spool) == (0, 0));
}

#[test]
fn after_is_limited_by_count_and_bytes_but_returns_at_least_one_event() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = open(dir.path(), SpoolLimits::default());
    ["1111", "22", "333", "4444444"]
        .iter()
        .for_each(|text| spool.push(EventKind::Trajectory, "cam", text.as_bytes()));
    let lengths = |count, bytes| spool.after(0, count, bytes).expect("read").len();
    assert_eq!(
        [(9, 9), (9, 8), (2, 9), (9, 3), (9, 100)].map(|(count, bytes)| lengths(count, bytes)),
        [3, 2, 2, 1, 4]
    );
}

/// Regression: the counts were reduced before the commit; a failed commit made them wrap around,
/// and every later event was deleted.
#[test]
fn a_failed_acknowledgement_changes_nothing_and_returns_an_error() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = open(
        dir.path(),
        SpoolLimits {
            bytes: 65536,
            age: 1000.0,
        },
    );
    (0..5).for_each(|i| {
        spool.push(
            EventKind::TrackEnded,
            "cam",
            format!("event {i}").as_bytes(),
        )
    });
    let positions: Vec<i64> = after(&spool, 0, 5)
        .iter()
        .map(|event| event.position)
        .collect();
    spool.fail_removal_of(Some(positions[2]));
    for _ in 0..3 {
        let e = spool
            .acknowledge(&positions)
            .expect_err("a commit that fails")
            .to_string();
        assert!(e.contains("test.spool"), "{e}");
        assert_eq!(
            (
                queued(&spool),
                spool.counts.delivered.load(Ordering::Relaxed)
            ),
            ((5, 35), 0)
        );
    }
    spool.push(EventKind::TrackEnded, "cam", b"event 5");
    assert_eq!((after(&spool, 0, 9).len(), queued(&spool)), (6, (6, 42)));
    spool.fail_removal_of(None);
    spool.acknowledge(&positions).expect("removed");
    assert_eq!(
        (texts(&after(&spool, 0, 9)), queued(&spool)),
        (vec!["event 5".to_string()], (1, 7))
    );
    assert_eq!(
        (
            spool.counts.delivered.load(Ordering::Relaxed),
            spool.counts.dropped.load(Ordering::Relaxed)
        ),
        (5, 0)
    );
}

#[test]
fn new_events_are_dropped_and_counted_when_the_disk_is_full() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = open(dir.path(), SpoolLimits::default());
    (0..5).for_each(|_| spool.push(EventKind::Trajectory, "cam", &[b'x'; 1000]));
    let pages: u32 = spool
        .lock()
        .connection
        .query_row("PRAGMA page_count", [], |r| r.get(0))
        .expect("a number");
    spool
        .lock()
        .connection
        .execute_batch(&format!("PRAGMA max_page_count = {pages}"))
        .expect("limited");
    (0..50).for_each(|_| spool.push(EventKind::Trajectory, "cam", &[b'x'; 1000]));
    let (events, bytes) = queued(&spool);
    assert_eq!(
        (after(&spool, 0, 100).len() as u64, bytes),
        (events, 1000 * events)
    );
    assert_eq!(events + spool.counts.dropped.load(Ordering::Relaxed), 55);
    assert!(spool.counts.dropped.load(Ordering::Relaxed) > 30);
}

#[test]
fn a_refused_event_moves_to_the_dead_letter_file_and_the_others_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = open(dir.path(), SpoolLimits::default());
    (0..3).for_each(|i| {
        spool.push(
            EventKind::TrackEnded,
            "cam",
            format!("{{\"seq\":{i}}}").as_bytes(),
        )
    });
    let second = after(&spool, 0, 3)[1].position;
    spool.refuse(second, "HTTP status 422").expect("moved");
    spool
        .refuse(second, "HTTP status 422")
        .expect("nothing to do: it has been moved");
    assert_eq!(texts(&after(&spool, 0, 9)), ["{\"seq\":0}", "{\"seq\":2}"]);
    assert_eq!(
        (queued(&spool), spool.counts.refused.load(Ordering::Relaxed)),
        ((2, 18), 1)
    );
    let text = std::fs::read_to_string(dir.path().join("test.refused.jsonl")).expect("there");
    let line: serde_json::Value = serde_json::from_str(&text).expect("one line");
    assert_eq!(
        (&line["schema"], &line["sink"], &line["reason"]),
        (
            &"twintrack.refused/1".into(),
            &"test".into(),
            &"HTTP status 422".into()
        )
    );
    assert_eq!(line["event"]["seq"], 1);
}

/// Events hold embeddings, which are biometric data.
#[test]
fn the_spool_and_its_files_are_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().expect("a folder");
    let state = dir.path().join("state");
    let spool = open(&state, SpoolLimits::default());
    spool.push(EventKind::TrackEnded, "cam", b"{}");
    spool.push(EventKind::TrackEnded, "cam", b"{}");
    spool
        .refuse(after(&spool, 0, 1)[0].position, "no")
        .expect("moved");
    let mode = |p: &Path| std::fs::metadata(p).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    let modes: Vec<(String, u32)> = std::fs::read_dir(&state)
        .expect("a folder")
        .flatten()
        .map(|e| {
            (
                e.file_name().to_string_lossy().into_owned(),
                mode(&e.path()),
            )
        })
        .collect();
    assert!(
        modes.len() >= 3 && modes.iter().all(|(_, mode)| *mode == 0o600),
        "{modes:?}"
    );
}

#[test]
fn the_oldest_events_are_dropped_and_counted_beyond_the_size_limit() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = open(
        dir.path(),
        SpoolLimits {
            bytes: 65536,
            age: 1000.0,
        },
    );
    (0..200).for_each(|i| {
        spool.push(
            EventKind::Trajectory,
            "cam",
            format!("{i:0>1000}").as_bytes(),
        )
    });
    let (events, dropped) = (
        spool.counts.events.load(Ordering::Relaxed),
        spool.counts.dropped.load(Ordering::Relaxed),
    );
    assert!(
        (33..=65).contains(&events) && events + dropped == 200,
        "{events} and {dropped}"
    );
    let left = after(&spool, 0, 1000);
    assert_eq!(
        (
            left.len() as u64,
            texts(&left)
                .last()
                .map(|t| t.trim_start_matches('0').to_string())
        ),
        (events, Some("199".into()))
    );
}

#[test]
fn events_beyond_the_age_limit_are_dropped() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = open(
        dir.path(),
        SpoolLimits {
            bytes: 1 << 20,
            age: 1.0,
        },
    );
    spool.push(EventKind::Trajectory, "cam", b"old");
    std::thread::sleep(Duration::from_millis(1200));
    spool.push(EventKind::Trajectory, "cam", b"new");
    assert_eq!(
        (
            texts(&after(&spool, 0, 9)),
            spool.counts.dropped.load(Ordering::Relaxed)
        ),
        (vec!["new".into()], 1)
    );
}

#[test]
fn opening_fails_for_a_spool_in_use_and_for_another_file() {
    let dir = tempfile::tempdir().expect("a folder");
    let _held = open(dir.path(), SpoolLimits::default());
    let e = Spool::open(dir.path(), "test", SpoolLimits::default())
        .expect_err("in use")
        .to_string();
    assert!(e.contains("another twintrack"), "{e}");
    std::fs::write(dir.path().join("other.spool"), vec![b'x'; 4096]).expect("written");
    let e = Spool::open(dir.path(), "other", SpoolLimits::default())
        .expect_err("not a spool")
        .to_string();
    assert!(e.contains("move the file away"), "{e}");
}
