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

/// The number of events in the queue, and their total size in bytes.
fn queued(spool: &Spool) -> (u64, u64) {
    (
        spool.counts.events.load(Ordering::Relaxed),
        spool.counts.bytes.load(Ordering::Relaxed),
    )
}

#[test]
fn a_camera_has_events_until_all_of_them_are_delivered() {
    let dir = tempfile::tempdir().expect("a folder");
    let spool = open(dir.path(), SpoolLimits::default());
    for camera in ["a", "b", "a"] {
        spool.push(EventKind::TrackEnded, camera, b"event");
    }
    let events = after(&spool, 0, 10);
    spool.acknowledge(&[events[0].position, events[1].position]);
    assert!(spool.has_events_of("a") && !spool.has_events_of("b"));
    spool.acknowledge(&[events[2].position]);
    assert!(!spool.has_events_of("a"));
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
    spool.acknowledge(&[first[0].position, first[2].position]);
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
    let all: Vec<i64> = after(&spool, 0, 100).iter().map(|e| e.position).collect();
    spool.acknowledge(&all);
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

/// Five events of seven bytes, and their positions.
fn five(dir: &Path) -> (Arc<Spool>, Vec<i64>) {
    let spool = open(dir, SpoolLimits::default());
    for i in 0..5 {
        let body = format!("event {i}");
        spool.push(EventKind::TrackEnded, "cam", body.as_bytes());
    }
    let positions = after(&spool, 0, 5).iter().map(|e| e.position).collect();
    (spool, positions)
}

/// Regression: when events could not be removed because the disk was full, delivery stopped.
#[test]
fn delivered_events_that_cannot_be_removed_do_not_block_the_others() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, positions) = five(dir.path());
    let delivered = || spool.counts.delivered.load(Ordering::Relaxed);
    spool.fail_removal_of(Some(positions[2]));
    spool.acknowledge(&positions[1..4]);
    assert_eq!(
        (texts(&after(&spool, 0, 9)), queued(&spool), delivered()),
        (vec!["event 0".to_string(), "event 4".into()], (2, 14), 3)
    );
    // Acknowledging events again changes nothing, and new events are added as before.
    spool.acknowledge(&positions[1..4]);
    spool.push(EventKind::TrackEnded, "cam", b"event 5");
    assert_eq!((queued(&spool), delivered()), ((3, 21), 3));
    // The disk works again, so all finished events are removed.
    spool.fail_removal_of(None);
    spool.lock().last_removal -= TRIM_INTERVAL;
    spool.acknowledge(&positions[..1]);
    assert_eq!(table::totals(&spool.lock().connection), Ok((2, 14)));
    assert_eq!(
        (texts(&after(&spool, 0, 9)), queued(&spool), delivered()),
        (vec!["event 4".to_string(), "event 5".into()], (2, 14), 4)
    );
    assert_eq!(spool.counts.dropped.load(Ordering::Relaxed), 0);
}

#[test]
fn a_file_of_delivered_events_that_cannot_be_removed_is_replaced() {
    let dir = tempfile::tempdir().expect("a folder");
    let (spool, positions) = five(dir.path());
    spool.fail_removal_of(Some(positions[0]));
    spool.acknowledge(&positions[..2]);
    spool.refuse(positions[2], "no").expect("moved");
    assert_eq!(queued(&spool), (2, 14));
    spool.acknowledge(&positions[3..]);
    assert_eq!(table::totals(&spool.lock().connection), Ok((0, 0)));
    assert!(spool.is_empty() && !spool.lock().closed);
    spool.push(EventKind::TrackEnded, "cam", b"new");
    let new = after(&spool, positions[4], 9);
    assert_eq!(texts(&new), ["new"], "positions continue");
    drop(spool);
    let spool = open(dir.path(), SpoolLimits::default());
    assert_eq!(after(&spool, 0, 9), new);
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

/// A small disk, which is unmounted when the value is dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// Mounts a disk of this size; None, with a message, if it cannot be mounted.
    fn mount(size: &str) -> Option<Disk> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(folder.path())
            .output();
        if !mounted.is_ok_and(|o| o.status.success()) {
            eprintln!("SKIPPED: cannot mount a small disk (needs root)");
            return None;
        }
        Some(Disk(folder))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount")
            .arg(self.0.path())
            .status();
    }
}

/// Regression: a spool that had filled its disk had no space for the log that removing delivered
/// events needs, so that delivery stopped.
#[test]
fn a_spool_that_has_filled_its_disk_delivers_and_recovers() {
    let Some(disk) = Disk::mount("600k") else {
        return;
    };
    let spool = open(disk.0.path(), SpoolLimits::default());
    let dropped = || spool.counts.dropped.load(Ordering::Relaxed);
    let body = [b'x'; 1000];
    (0..2000).for_each(|_| spool.push(EventKind::Trajectory, "cam", &body));
    assert!(dropped() > 1000 && !spool.is_empty());
    let mut rounds = 0;
    while !spool.is_empty() {
        let positions: Vec<i64> = after(&spool, 0, 64).iter().map(|e| e.position).collect();
        assert!(!positions.is_empty() && rounds < 2000);
        spool.acknowledge(&positions);
        rounds += 1;
    }
    let delivered = spool.counts.delivered.load(Ordering::Relaxed);
    assert_eq!(delivered + dropped(), 2000);
    let before = dropped();
    (0..50).for_each(|_| spool.push(EventKind::Trajectory, "cam", &body));
    assert_eq!((after(&spool, 0, 100).len(), dropped()), (50, before));
    drop(spool);
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
        .expect("the event has been moved already");
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
