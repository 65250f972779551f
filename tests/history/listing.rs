//! Lists, single tracks and statistics.

use twintrack::frame::CameraState;
use twintrack::sink::Sink as _;
use twintrack::store::query::{EventFilter, LineCounts, TrackFilter, TrackSummary};
use twintrack::store::rows::{Change, EventKind, TrackRow};
use twintrack::store::statistics::StatisticsQuery;
use twintrack::store::{HistorySink, StoreError};
use twintrack::trajectory::StatusEvent;

use crate::data::{Place, at, close, crop, event, line, named, push, run, track, zone};

/// All pages of a list, `limit` tracks each.
fn all(
    history: &twintrack::store::History,
    filter: &TrackFilter,
    limit: usize,
) -> Vec<TrackSummary> {
    let (mut tracks, mut cursor) = (Vec::new(), None);
    loop {
        let page = history.tracks(filter, cursor, limit).unwrap();
        assert!(page.items.len() <= limit);
        tracks.extend(page.items);
        // As a client gets and sends it: as text.
        cursor = match page.next {
            Some(next) => Some(next.to_string().parse().unwrap()),
            None => return tracks,
        };
    }
}

fn ids(tracks: &[TrackSummary]) -> Vec<(String, u64)> {
    tracks.iter().map(|t| (t.camera.clone(), t.id)).collect()
}

pub fn tracks_are_listed_by_filters_in_pages_that_new_tracks_do_not_shift(place: &Place) {
    let history = place.open();
    let mut random = fastrand::Rng::with_seed(7);
    let mut stored: Vec<TrackRow> = Vec::new();
    for id in 1..=240 {
        let first = f64::from(random.u32(0..1000));
        let last = first + f64::from(random.u32(0..90));
        let mut row = track(["a", "b", "c"][id as usize % 3], id, first, last);
        if random.u8(..) < 60 {
            row = named(row, ["ada", "ben"][random.usize(..2)]);
        }
        stored.push(row);
    }
    push(&history, stored.clone());
    let in_zone: Vec<u64> = (1..=240).filter(|id| id % 7 == 0).collect();
    for (seq, id) in (1..).zip(&in_zone) {
        let row = &stored[*id as usize - 1];
        history.push(zone(&row.camera, seq, row.pts.0, "enter", *id, 1));
    }
    history.flush(crate::data::LONG).unwrap();
    let expected = |filter: &TrackFilter| {
        let mut rows: Vec<&TrackRow> = stored
            .iter()
            .filter(|r| filter.camera.as_deref().is_none_or(|c| c == &*r.camera))
            .filter(|r| filter.from.is_none_or(|t| r.time.1 >= t))
            .filter(|r| filter.to.is_none_or(|t| r.time.0 < t))
            .filter(|r| filter.zone.is_none() || in_zone.contains(&r.track))
            .filter(|r| {
                let name = r.identity.as_ref().map(|(name, _)| name);
                filter.identity.is_none() || filter.identity.as_ref() == name
            })
            .filter(|r| filter.min_duration.is_none_or(|d| r.pts.1 - r.pts.0 >= d))
            .collect();
        // The keys in the database are in the order of insertion.
        rows.sort_by(|a, b| {
            b.time
                .0
                .partial_cmp(&a.time.0)
                .unwrap()
                .then(b.track.cmp(&a.track))
        });
        let ids = rows.iter().map(|r| (r.camera.to_string(), r.track));
        ids.collect::<Vec<_>>()
    };
    let mut found = 0;
    for mask in 0..64 {
        let has = |bit: u32| mask & (1 << bit) != 0;
        let filter = TrackFilter {
            camera: has(0).then(|| "b".into()),
            from: has(1).then(|| at(300.0)),
            to: has(2).then(|| at(700.0)),
            zone: has(3).then(|| "door".into()),
            identity: has(4).then(|| "ada".into()),
            min_duration: has(5).then_some(20.0),
            run: None,
            person: None,
        };
        let listed = ids(&all(&history, &filter, 7));
        assert_eq!(listed, expected(&filter), "{filter:?}");
        found += listed.len();
    }
    assert!(found > 500, "{found}");

    // A track that is added between two pages does not shift the second.
    let first = history.tracks(&TrackFilter::default(), None, 100).unwrap();
    push(&history, [track("a", 999, 5000.0, 5001.0)]);
    let second = history
        .tracks(&TrackFilter::default(), first.next, 100)
        .unwrap();
    assert_eq!(
        ids(&second.items),
        expected(&TrackFilter::default())[100..200]
    );
    assert!(
        history
            .tracks(
                &TrackFilter {
                    camera: Some("nowhere".into()),
                    ..TrackFilter::default()
                },
                None,
                10
            )
            .unwrap()
            .items
            .is_empty()
    );
    close(&history);
}

pub fn a_track_has_its_path_zones_and_crops(place: &Place) {
    let history = place.open();
    let going = TrackRow {
        ended: false,
        path: None,
        hits: 3,
        ..track("gate", 17, 10.0, 12.0)
    };
    push(&history, [going]);
    let page = history.tracks(&TrackFilter::default(), None, 10).unwrap();
    assert_eq!((page.items.len(), page.items[0].ended), (1, false));
    assert_eq!(history.cameras().unwrap()[0].tracks_present, 1);
    history.push(zone("gate", 1, 12.0, "enter", 17, 1));
    let ended = TrackRow {
        crops: vec![crop(11.0, 0.5, b"worse"), crop(13.0, 0.9, b"best")],
        path_error: Some(2.5),
        ..named(track("gate", 17, 10.0, 14.5), "ada")
    };
    push(&history, [ended]);
    let detail = history.track(run(1), "gate", 17).unwrap().unwrap();
    assert_eq!(detail.path, [[10.0, 1.0, 2.0], [14.5, 3.25, 4.5]]);
    assert_eq!(
        (detail.path_error, detail.zones),
        (Some(2.5), vec!["door".into()])
    );
    let s = &detail.summary;
    assert_eq!((s.duration, s.hits, s.ended, s.crops), (4.5, 10, true, 2));
    assert_eq!((s.first_time, s.last_time), (at(10.0), at(14.5)));
    assert_eq!((s.clock.as_deref(), s.frame), (Some("arrival"), [640, 480]));
    assert_eq!(
        s.identity.as_ref().map(|i| (&*i.name, i.similarity)),
        Some(("ada", 0.75))
    );
    let pictures: Vec<Vec<u8>> = detail
        .views
        .iter()
        .map(|view| history.crop(view.id).unwrap().unwrap())
        .collect();
    assert_eq!(pictures, [b"best".to_vec(), b"worse".to_vec()]);
    assert_eq!(history.track(run(1), "gate", 18).unwrap(), None);
    assert_eq!(history.track(run(2), "gate", 17).unwrap(), None);
    assert_eq!(history.crop(-1).unwrap(), None);
    assert_eq!(history.cameras().unwrap()[0].tracks_present, 0);
    close(&history);
}

pub fn repeated_and_late_rows_change_nothing(place: &Place) {
    let history = place.open();
    let ended = TrackRow {
        crops: vec![crop(1.0, 0.5, b"crop")],
        ..track("gate", 1, 0.0, 5.0)
    };
    let late = TrackRow {
        ended: false,
        crops: Vec::new(),
        path: None,
        ..track("gate", 1, 0.0, 3.0)
    };
    push(&history, [ended.clone(), ended.clone(), late, ended]);
    for _ in 0..2 {
        history.push(zone("gate", 1, 2.0, "enter", 1, 1));
        history.push(Change::Status(StatusEvent::at(
            at(1.0),
            run(1),
            "gate".into(),
            CameraState::Online,
            None,
        )));
    }
    close(&history);
    // Opened again, as by the next start of the program with the same run id.
    let history = place.open();
    let detail = history.track(run(1), "gate", 1).unwrap().unwrap();
    assert_eq!((detail.summary.duration, detail.summary.crops), (5.0, 1));
    assert!(detail.summary.ended);
    let page = history.tracks(&TrackFilter::default(), None, 10).unwrap();
    assert_eq!(page.items.len(), 1);
    let events = history.events(&EventFilter::default(), None, 10).unwrap();
    assert_eq!(events.items.len(), 1);
    assert_eq!(history.camera_status("gate", 10).unwrap().len(), 1);
    close(&history);
}

pub fn events_are_listed_by_filters_in_pages(place: &Place) {
    let history = place.open();
    push(
        &history,
        [track("a", 1, 0.0, 99.0), track("b", 1, 0.0, 99.0)],
    );
    for n in 0..30 {
        let camera = if n % 3 == 0 { "b" } else { "a" };
        let seconds = f64::from(n);
        let seq = n as u64 + 1;
        history.push(match n % 2 {
            0 => zone(camera, seq, seconds, "enter", 1, 1),
            _ => line(camera, seq, seconds, "out"),
        });
    }
    history.flush(crate::data::LONG).unwrap();
    let times = |filter: &EventFilter| {
        let (mut times, mut cursor) = (Vec::new(), None);
        loop {
            let page = history.events(filter, cursor, 4).unwrap();
            times.extend(page.items.iter().map(|e| e.time));
            match page.next {
                Some(_) => cursor = page.next,
                None => return times,
            }
        }
    };
    let every = |which: fn(i32) -> bool| {
        let those = (0..30).rev().filter(|n| which(*n));
        those.map(|n| at(f64::from(n))).collect::<Vec<_>>()
    };
    let none = EventFilter::default();
    assert_eq!(times(&none), every(|_| true));
    let filter = EventFilter {
        camera: Some("b".into()),
        kind: Some(EventKind::Line),
        ..none.clone()
    };
    assert_eq!(times(&filter), every(|n| n % 3 == 0 && n % 2 == 1));
    let filter = EventFilter {
        from: Some(at(5.0)),
        to: Some(at(20.0)),
        name: Some("door".into()),
        action: Some("enter".into()),
        ..none.clone()
    };
    assert_eq!(
        times(&filter),
        every(|n| (5..20).contains(&n) && n % 2 == 0)
    );
    let page = history.events(&none, None, 1).unwrap();
    let first = &page.items[0];
    assert_eq!(
        (&*first.kind, &*first.name, &*first.action),
        ("line", "gate", "out")
    );
    assert_eq!(first.track, Some(1));
    assert!(
        first.event.get().contains("twintrack.line/1"),
        "{}",
        first.event
    );
    close(&history);
}

pub fn the_sink_takes_events_of_zones_and_lines(place: &Place) {
    let history = place.open();
    let mut sink = HistorySink::new(history.clone(), crate::data::LONG);
    push(&history, [track("gate", 17, 0.0, 9.0)]);
    let json = |seq, what: &str| {
        format!(
            r#"{{"run":"{}","camera":"gate","seq":{seq},"pts":{seq},{what}}}"#,
            run(1)
        )
    };
    let zone = r#""schema":"twintrack.zone/1","zone":"door","track":17,"kind":"#;
    sink.event(&json(1, &format!("{zone}\"enter\"")));
    sink.event(&json(2, &format!("{zone}\"leave\"")));
    sink.event(&json(
        3,
        r#""schema":"twintrack.line/1","line":"exit","direction":"out""#,
    ));
    sink.event("not JSON");
    sink.close();
    sink.finish().unwrap();
    let history = place.open();
    let page = history.events(&EventFilter::default(), None, 10).unwrap();
    let actions: Vec<&str> = page.items.iter().map(|e| &*e.action).collect();
    assert_eq!(actions, ["out", "leave", "enter"]);
    let occupancy = "SELECT occupancy FROM events ORDER BY seq";
    let rows = history.ask(|db| db.query(occupancy, &[])).unwrap();
    let occupancy: Vec<_> = rows.iter().map(|r| r.int_if_any(0).unwrap()).collect();
    assert_eq!(occupancy, [Some(1), Some(0), None]);
    let filter = TrackFilter {
        zone: Some("door".into()),
        ..TrackFilter::default()
    };
    assert_eq!(history.tracks(&filter, None, 10).unwrap().items.len(), 1);
    close(&history);
}

pub fn cameras_have_their_last_state(place: &Place) {
    let history = place.open();
    let status = |camera: &str, seconds, state, reason: Option<&str>| {
        let reason = reason.map(Into::into);
        let event = StatusEvent::at(at(seconds), run(1), camera.into(), state, reason);
        history.push(Change::Status(event));
    };
    status("b", 1.0, CameraState::Connecting, None);
    status("b", 2.0, CameraState::Online, None);
    status("b", 9.0, CameraState::Offline, Some("no route"));
    status("a", 3.0, CameraState::Online, None);
    history.flush(crate::data::LONG).unwrap();
    push(&history, [track("a", 1, 3.0, 30.0)]);
    let cameras = history.cameras().unwrap();
    let names: Vec<&str> = cameras.iter().map(|c| &*c.camera).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(
        (cameras[1].state.as_deref(), cameras[1].reason.as_deref()),
        (Some("offline"), Some("no route"))
    );
    assert_eq!(cameras[1].state_since, Some(at(9.0)));
    assert_eq!(
        (cameras[0].first_seen, cameras[0].last_seen),
        (at(3.0), at(30.0))
    );
    let changes = history.camera_status("b", 2).unwrap();
    let states: Vec<&str> = changes.iter().map(|c| &*c.state).collect();
    assert_eq!(states, ["offline", "online"]);
    close(&history);
}

pub fn statistics_count_people_crossings_and_occupancy(place: &Place) {
    let history = place.open();
    push(
        &history,
        [
            track("a", 1, 5.0, 25.0),
            track("a", 2, 12.0, 18.0),
            track("a", 3, 16.0, 19.0),
            track("b", 1, 17.0, 40.0),
        ],
    );
    for change in [
        zone("a", 1, 5.0, "enter", 1, 1),
        zone("a", 2, 12.0, "enter", 2, 2),
        line("a", 3, 13.0, "in"),
        line("a", 4, 14.0, "in"),
        line("a", 5, 15.0, "out"),
        zone("a", 6, 17.0, "leave", 2, 1),
        zone("a", 7, 25.0, "leave", 1, 0),
        line("b", 1, 26.0, "out"),
    ] {
        history.push(change);
    }
    close(&history);
    let history = place.open();
    let query = StatisticsQuery {
        from: at(10.0),
        to: at(30.0),
        bucket: 10.0,
        camera: None,
        name: None,
    };
    let buckets = history.statistics(&query).unwrap();
    assert_eq!(buckets.len(), 2);
    assert_eq!((buckets[0].tracks, buckets[0].people_max), (3, 4));
    assert_eq!((buckets[1].tracks, buckets[1].people_max), (0, 2));
    let counts = |inward, outward| LineCounts { inward, outward };
    assert_eq!(buckets[0].lines["gate"], counts(2, 1));
    assert_eq!(buckets[1].lines["gate"], counts(0, 1));
    // 1 person for 2 s, 2 for 5 s, 1 for 3 s; then 1 person for 5 s.
    let (first, second) = (buckets[0].zones["door"], buckets[1].zones["door"]);
    assert!((first.mean - 1.5).abs() < 1e-9, "{first:?}");
    assert_eq!((first.max, first.entered), (2, 1));
    assert!((second.mean - 0.5).abs() < 1e-9, "{second:?}");
    assert_eq!((second.max, second.entered), (1, 0));
    let of_camera = StatisticsQuery {
        camera: Some("b".into()),
        ..query.clone()
    };
    let buckets = history.statistics(&of_camera).unwrap();
    assert_eq!((buckets[0].tracks, buckets[0].people_max), (1, 1));
    assert!(buckets[0].lines.is_empty() && buckets[0].zones.is_empty());
    let of_name = StatisticsQuery {
        name: Some("gate".into()),
        ..query
    };
    let buckets = history.statistics(&of_name).unwrap();
    assert!(buckets[0].zones.is_empty() && buckets[0].lines.len() == 1);
    close(&history);
}

pub fn texts_are_stored_as_they_are(place: &Place) {
    let history = place.open();
    let awkward = [
        "'; DROP TABLE tracks; --",
        "\"quoted\" $1 ? %",
        "Zoë 日本 \\'",
    ];
    for (n, text) in (1..).zip(awkward) {
        push(&history, [named(track(text, n, 1.0, 2.0), text)]);
        let name = serde_json::to_string(text).unwrap();
        let what = format!(
            r#""schema":"twintrack.zone/1","zone":{name},"kind":"enter","track":{n},"count":1"#
        );
        let plain = event("plain", n, 1.0, &what);
        let Change::Event(mut row) = plain else {
            unreachable!("an event")
        };
        row.camera = text.into();
        history.push(Change::Event(row));
        history.flush(crate::data::LONG).unwrap();
        let filter = TrackFilter {
            camera: Some(text.into()),
            identity: Some(text.into()),
            zone: Some(text.into()),
            ..TrackFilter::default()
        };
        let page = history.tracks(&filter, None, 10).unwrap();
        assert_eq!(page.items.len(), 1, "{text}");
        assert_eq!(page.items[0].camera, text);
        assert_eq!(page.items[0].identity.as_ref().unwrap().name, text);
    }
    // PostgreSQL cannot store the character 0.
    push(&history, [named(track("gate", 9, 1.0, 2.0), "zero\0")]);
    let detail = history.track(run(1), "gate", 9).unwrap().unwrap();
    assert!(detail.summary.identity.unwrap().name.starts_with("zero"));
    assert_eq!(history.counts().dropped().map(|(_, n)| n), [0, 0, 0]);
    close(&history);
}

pub fn invalid_arguments_are_named(place: &Place) {
    let history = place.open();
    let argument = |e: StoreError| match e {
        StoreError::Argument { argument, .. } => argument,
        other => panic!("{other}"),
    };
    let none = TrackFilter::default();
    for limit in [0, 1001] {
        assert_eq!(
            argument(history.tracks(&none, None, limit).unwrap_err()),
            "limit"
        );
    }
    let endless = TrackFilter {
        min_duration: Some(f64::NAN),
        ..none
    };
    assert_eq!(
        argument(history.tracks(&endless, None, 1).unwrap_err()),
        "min_duration"
    );
    for text in ["", "1", "1.x", "1.2.3", "'.1"] {
        let parsed = text.parse::<twintrack::store::query::Cursor>();
        assert_eq!(argument(parsed.unwrap_err()), "cursor", "{text}");
    }
    let query = |from, to, bucket| {
        let query = StatisticsQuery {
            from: at(from),
            to: at(to),
            bucket,
            camera: None,
            name: None,
        };
        argument(history.statistics(&query).unwrap_err())
    };
    assert_eq!(query(0.0, 10.0, 0.0), "bucket");
    assert_eq!(query(0.0, 1e6, 1.0), "bucket");
    assert_eq!(query(10.0, 10.0, 1.0), "to");
    for k in [0, 1001] {
        let e = history.search("net abc", &[1.0], k, &Default::default());
        assert_eq!(argument(e.unwrap_err()), "k");
    }
    let e = history.search("net abc", &[0.0], 1, &Default::default());
    assert_eq!(argument(e.unwrap_err()), "embedding");
    let embedding = [vec![1.0f32]];
    for name in ["", " ada", "a\nb", &"x".repeat(201)] {
        let e = history.enrol(name, "net abc", &embedding).unwrap_err();
        assert_eq!(argument(e), "name", "{name:?}");
    }
    let e = history
        .enrol("ada", "net abc", &[vec![f32::NAN]])
        .unwrap_err();
    assert_eq!(argument(e), "embeddings");
    close(&history);
}
