//! What a fleet stores: changes of its stream, and people across cameras.

use std::sync::Arc;

use twintrack::multi_camera::MultiCameraConfig;
use twintrack::store::History;
use twintrack::store::query::{TrackFilter, TrackSummary};
use twintrack::store::rows::{Change, Published, TrackRow};
use twintrack::time::Seconds;
use twintrack::track::similarity::Calibration;

use crate::common::until;
use crate::data::{LONG, Place, close, embedded, run, track, zone};

fn stored(history: &History) -> Vec<TrackSummary> {
    let page = history.tracks(&TrackFilter::default(), None, 100).unwrap();
    let mut items = page.items;
    items.sort_by_key(|t| t.id);
    items
}

/// Pushes tracks of one camera with their leases and places in the stream, in the order of reading;
/// the place is the track's id too.
fn publish(history: &History, order: &[(u64, u64)]) {
    for &(lease, position) in order {
        let row = track("gate", position, 0.0, 5.0);
        publish_change(history, (lease, position), Change::Track(Box::new(row)));
    }
}

/// Pushes a change of the camera with its lease and place in the stream.
fn publish_change(history: &History, (lease, position): (u64, u64), change: Change) {
    let published = Published {
        camera: "gate".into(),
        lease,
        position,
        change,
    };
    assert!(history.push(Change::Published(Box::new(published))));
    history.flush(LONG).unwrap();
}

pub fn what_an_older_lease_wrote_behind_a_newer_one_is_left_out(place: &Place) {
    let history = place.open();
    // In the stream: lease 5 at 1 and 2, lease 9 at 3, a late write of lease 5 at 4, lease 9 at 5.
    // The late write is read before the newer lease is known.
    publish(&history, &[(5, 4), (5, 1), (9, 5), (9, 3), (5, 2), (5, 4)]);
    let ids: Vec<u64> = stored(&history).iter().map(|t| t.id).collect();
    assert_eq!(ids, [1, 2, 3, 5]);
    close(&history);
}

/// Regression: a zone was found only of a track that was stored before the zone's event, and a
/// fleet's tracks are stored at their end.
pub fn zones_of_a_track_are_found_in_any_order_of_reading(place: &Place) {
    let history = place.open();
    // Several programs store a fleet's events in PostgreSQL.
    let second = match place.is_file() {
        true => history.clone(),
        false => place.open_run(run(2)),
    };
    let zone = |track, seq| zone("gate", seq, 1.0, "enter", track, 1);
    let filter = TrackFilter {
        zone: Some("door".into()),
        ..TrackFilter::default()
    };
    // The second time, all of it is delivered again.
    for _ in 0..2 {
        publish_change(&history, (5, 1), zone(2, 1));
        publish(&second, &[(5, 2), (5, 4)]);
        publish_change(&history, (5, 3), zone(4, 2));
        publish(&history, &[(5, 5)]);
        // Of an older lease: the track is left out, with its zones.
        publish_change(&history, (5, 7), zone(8, 3));
        publish(&second, &[(5, 8), (9, 6)]);

        let page = history.tracks(&filter, None, 100).unwrap();
        let mut ids: Vec<u64> = page.items.iter().map(|t| t.id).collect();
        ids.sort_unstable();
        assert_eq!(ids, [2, 4]);
        let zones = |id| history.track(run(1), "gate", id).unwrap().map(|t| t.zones);
        assert_eq!(zones(2).unwrap(), ["door"]);
        assert_eq!(zones(4).unwrap(), ["door"]);
        assert!(zones(5).unwrap().is_empty());
        assert!(zones(8).is_none());
    }
    close(&second);
    close(&history);
}

pub fn people_across_cameras_get_a_number(place: &Place) {
    let history = place.open();
    let now = twintrack::clock::now();
    let seen = |camera: &str, id: u64, (from, to): (f64, f64), direction: usize| {
        let mut embedding = vec![0.0; 8];
        embedding[direction] = 1.0;
        let row = TrackRow {
            time: (now.plus(Seconds(from)), now.plus(Seconds(to))),
            ..track(camera, id, from, to)
        };
        let row = embedded(row, "net 0123abcd", &embedding);
        assert!(history.push(Change::Track(Box::new(row))));
        history.flush(LONG).unwrap();
    };
    seen("a", 1, (-100.0, -90.0), 0);
    seen("a", 2, (-99.0, -89.0), 1);
    seen("b", 3, (-60.0, -50.0), 0);
    let calibration = Calibration {
        slope: 20.0,
        threshold: 0.5,
    };
    let config = MultiCameraConfig::default().with_delay(1.0);
    let embedders: Vec<(Arc<str>, Calibration)> = vec![("0123abcd".into(), calibration)];
    let matching = history.match_people(config, embedders).unwrap();
    let persons = || -> Vec<Option<u64>> { stored(&history).iter().map(|t| t.person).collect() };
    assert!(until(60, || persons().iter().all(Option::is_some)));
    let [one, two, three] = persons()[..] else {
        panic!("three tracks");
    };
    assert!(one == three && one != two, "{one:?} {two:?} {three:?}");
    let filter = TrackFilter {
        person: one,
        ..TrackFilter::default()
    };
    let page = history.tracks(&filter, None, 100).unwrap();
    let mut ids: Vec<u64> = page.items.iter().map(|t| t.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 3]);
    drop(matching);
    close(&history);
}
