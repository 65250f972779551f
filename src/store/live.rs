//! Turns a camera's events into rows of the history, and keeps the tracks that have not ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::frame::Image;
use crate::store::box_samples::BoxSamples;
use crate::store::crops::{self, BestCrops};
use crate::store::rows::{EventKind, EventRow, TrackRow};
use crate::time::{Clock, Seconds, Timestamp};
use crate::track::TrackState;
use crate::trajectory::{EndedEvent, FrameEvent, RunId, TrackEvent, thousandths};

/// A track that goes on.
#[derive(Debug)]
struct LiveTrack {
    row: TrackRow,
    crops: BestCrops,
    boxes: BoxSamples,
    /// Presentation time in seconds at which its next row is due.
    due: f64,
}

/// What is stored of a camera's tracks, and how often.
#[derive(Debug, Clone, Copy)]
pub struct LiveSettings {
    /// Seconds after which a track that goes on is stored again.
    pub update_every: f64,
    /// Whether embeddings are stored.
    pub embeddings: bool,
    /// Maximum height of crops in pixels; None: no crops are stored.
    pub crop_height: Option<u32>,
}

/// A camera's tracks that go on.
#[derive(Debug, Default)]
pub struct LiveTracks {
    tracks: BTreeMap<u64, LiveTrack>,
    /// Presentation time in seconds and wall-clock time of the last frame.
    last: Option<(f64, Timestamp)>,
    /// The tracks in each zone.
    zones: BTreeMap<String, BTreeSet<u64>>,
}

impl LiveTracks {
    /// Takes a frame's tracks. Returns the rows that are due: of new tracks at once, of others at
    /// the interval of `config`. `now` is used if the frame has no time.
    pub fn frame(
        &mut self,
        event: &FrameEvent,
        image: Option<&Image>,
        config: LiveSettings,
        now: Timestamp,
    ) -> Vec<TrackRow> {
        let (time, clock) = match event.time {
            Some(time) => (time, event.clock),
            None => (now, None),
        };
        self.last = Some((event.pts, time));
        let mut rows = Vec::new();
        for track in &event.tracks {
            let live = self
                .tracks
                .entry(track.id)
                .or_insert_with(|| LiveTrack::new(event, track, (time, clock), now));
            live.update(event, track, time);
            if let (Some(height), Some(image)) = (config.crop_height, image) {
                live.offer(event, track, image, time, height);
            }
            if event.pts >= live.due {
                live.due = event.pts + config.update_every;
                rows.push(live.row.clone());
            }
        }
        rows
    }

    /// The last row of a track that has ended.
    pub fn ended(&mut self, event: &EndedEvent, config: LiveSettings, now: Timestamp) -> TrackRow {
        let known = event.time.map(|time| (event.last, time));
        let (pts, time) = known.or(self.last).unwrap_or((event.last, now));
        let at = |then: f64| time.plus(Seconds(then - pts));
        let (mut row, crops) = match self.tracks.remove(&event.id) {
            Some(live) => {
                let boxes = live.boxes.take();
                (TrackRow { boxes, ..live.row }, live.crops.take())
            }
            // No frame showed the track: it ended before its first row.
            None => (
                TrackRow {
                    began: now.plus(Seconds(event.first - event.last)),
                    run: event.run,
                    camera: event.camera.clone(),
                    track: event.id,
                    pts: (event.first, event.last),
                    time: (at(event.first), at(event.last)),
                    clock: event.clock,
                    hits: 0,
                    ended: true,
                    frame: (event.width, event.height),
                    path: None,
                    path_error: None,
                    boxes: Vec::new(),
                    identity: None,
                    embedder: None,
                    embedding: None,
                    crops: Vec::new(),
                },
                Vec::new(),
            ),
        };
        row.time.1 = row.time.0.plus(Seconds(event.last - row.pts.0));
        row.pts.1 = event.last;
        row.hits = event.hits;
        row.ended = true;
        row.path = Some(event.path.clone());
        row.path_error = event.path_error;
        row.crops = crops;
        if config.embeddings {
            row.embedder = event.embedder.clone();
            row.embedding = event.embedding.clone();
        }
        row
    }

    /// Completes an event of a zone: if it has no occupancy, it gets the number of tracks in the
    /// zone after the event.
    pub fn complete(&mut self, event: &mut EventRow) {
        if event.kind != EventKind::Zone {
            return;
        }
        let inside = self.zones.entry(event.name.clone()).or_default();
        match (event.track, event.action.as_str()) {
            (Some(track), "enter") => {
                inside.insert(track);
            }
            (Some(track), "leave") => {
                inside.remove(&track);
            }
            _ => {}
        }
        event.occupancy.get_or_insert(inside.len() as u32);
    }

    /// The last rows of the tracks that still go on, at the end of the run.
    pub fn finish(&mut self) -> Vec<TrackRow> {
        let tracks = std::mem::take(&mut self.tracks);
        tracks
            .into_values()
            .map(|live| TrackRow {
                ended: true,
                crops: live.crops.take(),
                ..live.row
            })
            .collect()
    }
}

impl LiveTrack {
    fn new(
        event: &FrameEvent,
        track: &TrackEvent,
        (time, clock): (Timestamp, Option<Clock>),
        now: Timestamp,
    ) -> LiveTrack {
        let run: RunId = event.run;
        let camera: Arc<str> = event.camera.clone();
        LiveTrack {
            row: TrackRow {
                began: now.plus(Seconds(-track.age)),
                run,
                camera,
                track: track.id,
                pts: (thousandths(event.pts - track.age), event.pts),
                time: (time.plus(Seconds(-track.age)), time),
                clock,
                hits: 0,
                ended: false,
                frame: (event.width, event.height),
                path: None,
                path_error: None,
                boxes: Vec::new(),
                identity: None,
                embedder: None,
                embedding: None,
                crops: Vec::new(),
            },
            crops: BestCrops::default(),
            boxes: BoxSamples::default(),
            due: event.pts,
        }
    }

    fn update(&mut self, event: &FrameEvent, track: &TrackEvent, time: Timestamp) {
        let unseen = track.unseen.unwrap_or(0.0);
        self.row.pts.1 = event.pts - unseen;
        self.row.time.1 = time.plus(Seconds(-unseen));
        self.row.hits = track.hits;
        if track.state == TrackState::Confirmed {
            self.boxes.add(event.frame, event.pts, track.bbox);
        }
        if let Some(identity) = &track.identity {
            self.row.identity = Some((identity.name.clone(), identity.similarity));
        }
    }

    fn offer(
        &mut self,
        event: &FrameEvent,
        track: &TrackEvent,
        image: &Image,
        time: Timestamp,
        height: u32,
    ) {
        if track.state != TrackState::Confirmed {
            return;
        }
        let score = crops::score(track, &event.tracks, (event.width, event.height), height);
        self.crops.offer(event.pts, score, || {
            crops::cut(image, track.bbox, height, (event.pts, time, score))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::rows::timestamp;
    use crate::trajectory::{ENDED_SCHEMA, FRAME_SCHEMA};

    const CONFIG: LiveSettings = LiveSettings {
        update_every: 2.0,
        embeddings: false,
        crop_height: None,
    };

    fn frame(pts: f64, ids: &[u64]) -> FrameEvent {
        let tracks = ids.iter().map(|id| TrackEvent {
            id: *id,
            state: TrackState::Confirmed,
            bbox: [1.0, 2.0, 30.0, 60.0],
            confidence: 0.9,
            age: pts,
            unseen: None,
            hits: 3,
            velocity: [0.0; 2],
            foot: [16.0, 62.0],
            identity: None,
            zones: Vec::new(),
            ground: None,
        });
        FrameEvent {
            schema: FRAME_SCHEMA.into(),
            run: RunId::nil(),
            camera: "gate".into(),
            seq: 1,
            lease: None,
            frame: 1,
            pts,
            time: Some(timestamp(100_000 + (1000.0 * pts) as i64)),
            clock: Some(Clock::Arrival),
            width: 640,
            height: 480,
            skipped: false,
            tracks: tracks.collect(),
        }
    }

    fn end(id: u64, last: f64) -> EndedEvent {
        EndedEvent {
            schema: ENDED_SCHEMA.into(),
            run: RunId::nil(),
            camera: "gate".into(),
            seq: 2,
            lease: None,
            id,
            first: 0.0,
            last,
            time: None,
            clock: None,
            width: 640,
            height: 480,
            hits: 30,
            path: vec![[0.0, 1.0, 2.0], [last, 3.0, 4.0]],
            path_error: None,
            embedder: Some("net abc".into()),
            embedding: Some(vec![1.0]),
        }
    }

    #[test]
    fn a_track_is_stored_at_its_begin_at_intervals_and_at_its_end() {
        let mut live = LiveTracks::default();
        let now = timestamp(0);
        let due: Vec<(f64, usize)> = (0..50)
            .map(|n| f64::from(n) / 10.0)
            .map(|pts| (pts, live.frame(&frame(pts, &[7]), None, CONFIG, now).len()))
            .filter(|(_, rows)| *rows > 0)
            .collect();
        assert_eq!(due, [(0.0, 1), (2.0, 1), (4.0, 1)]);
        let row = live.ended(&end(7, 4.5), CONFIG, now);
        assert!(row.ended && row.path.as_ref().is_some_and(|p| p.len() == 2));
        assert_eq!((row.pts, row.hits), ((0.0, 4.5), 30));
        assert_eq!(row.time, (timestamp(100_000), timestamp(104_500)));
        assert_eq!(row.embedding, None, "embeddings are not stored");
        assert!(live.finish().is_empty());
        let with = LiveSettings {
            embeddings: true,
            ..CONFIG
        };
        let unseen = live.ended(&end(8, 4.5), with, now);
        assert_eq!(unseen.time, (timestamp(100_000), timestamp(104_500)));
        assert_eq!(unseen.embedding, Some(vec![1.0]));
    }

    #[test]
    fn tracks_that_go_on_at_the_end_of_the_run_are_ended() {
        let mut live = LiveTracks::default();
        live.frame(&frame(1.0, &[1, 2]), None, CONFIG, timestamp(0));
        live.frame(&frame(1.1, &[1, 2]), None, CONFIG, timestamp(0));
        let rows = live.finish();
        assert_eq!(rows.len(), 2);
        assert!(
            rows.iter()
                .all(|r| r.ended && r.path.is_none() && r.pts.1 == 1.1)
        );
    }

    #[test]
    fn a_zone_event_without_an_occupancy_gets_the_number_inside() {
        let mut live = LiveTracks::default();
        let mut occupancy = |action: &str, track, own| {
            let mut event = EventRow {
                run: RunId::nil(),
                camera: "gate".into(),
                seq: 1,
                kind: EventKind::Zone,
                name: "door".into(),
                action: action.into(),
                track,
                pts: 0.0,
                time: timestamp(0),
                occupancy: own,
                json: String::new(),
            };
            live.complete(&mut event);
            event.occupancy
        };
        assert_eq!(occupancy("enter", Some(1), None), Some(1));
        assert_eq!(occupancy("enter", Some(2), None), Some(2));
        assert_eq!(occupancy("dwell", Some(2), None), Some(2));
        assert_eq!(occupancy("leave", Some(1), None), Some(1));
        assert_eq!(occupancy("occupancy", None, Some(9)), Some(9));
    }
}
