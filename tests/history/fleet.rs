//! What a fleet stores: changes of its stream, and people across cameras.

use std::sync::Arc;

use twintrack::multi_camera::MultiCameraConfig;
use twintrack::store::History;
use twintrack::store::query::{TrackFilter, TrackSummary};
use twintrack::store::rows::{Change, Published, TrackRow};
use twintrack::time::Seconds;
use twintrack::track::similarity::Calibration;

use crate::common::until;
use crate::data::{LONG, Place, close, embedded, track};

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
        let published = Published {
            camera: "gate".into(),
            lease,
            position,
            change: Change::Track(Box::new(track("gate", position, 0.0, 5.0))),
        };
        assert!(history.push(Change::Published(Box::new(published))));
        history.flush(LONG).unwrap();
    }
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
