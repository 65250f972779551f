//! Re-identification of a person who leaves and returns: same id and same name online, offline, and
//! after `refine`.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeSet;

use ndarray::Array2;
use twintrack::config::Config;
use twintrack::detection::{Detection, Embeddings};
use twintrack::frame::Frame;
use twintrack::geometry::BBox;
use twintrack::refine::RecordedEvents;
use twintrack::time::Seconds;
use twintrack::track::identity::{IdentityRegistry, TrackObservation};
use twintrack::track::similarity::{Calibration, StrangerTable};
use twintrack::track::{TrackState, Tracker};
use twintrack::trajectory::{EventBuilder, TrackEvent};

const ANA: [f32; 2] = [1.0, 0.0];
const BEN: [f32; 2] = [0.0, 1.0];

/// Ben stands still. Ana walks for two seconds and is absent for 4.7 s, which neither the motion
/// model nor offline linking bridges. Then a person with the embedding `returning` appears at a
/// place that Ana could have reached.
fn scene(offline: bool, returning: [f32; 2]) -> RecordedEvents {
    let config = Config::default();
    let strangers: StrangerTable = "0.5@0.8,0.01@0.4,0.001@0.3".parse().unwrap();
    let mut tracker = Tracker::new(config.tracker(offline)).with_strangers(Some(strangers.clone()));
    let (identity, calibration) = (
        config.identity.clone().with_remember(60.0),
        Calibration {
            slope: 20.0,
            threshold: 0.5,
        },
    );
    let mut registry = IdentityRegistry::new(identity, calibration, Vec::new())
        .with_memory(Some(strangers), &config.tracker.reidentify);
    let mut events = EventBuilder::new(uuid::Uuid::nil(), "yard".into(), Some("test".into()));
    let mut recording = RecordedEvents::default();
    for number in 0..110u64 {
        let at = |x: f32| Detection {
            bbox: BBox::from_center(x, 200.0, 40.0, 100.0),
            confidence: 0.9,
        };
        let ana = match number {
            0..20 => Some((at(100.0 + 3.0 * number as f32), ANA)),
            66.. => Some((at(300.0 - 2.0 * (number - 66) as f32), returning)),
            _ => None,
        };
        let seen: Vec<(Detection, [f32; 2])> = ana.into_iter().chain([(at(600.0), BEN)]).collect();
        let detections: Vec<Detection> = seen.iter().map(|s| s.0).collect();
        let embeddings = Embeddings::all(
            Array2::from_shape_vec((seen.len(), 2), seen.iter().flat_map(|s| s.1).collect())
                .unwrap(),
        );
        let mut update = tracker
            .update(&detections, &embeddings, Seconds(0.1))
            .unwrap();
        let pts = Seconds(number as f64 / 10.0);
        update.tracks.retain(|t| t.state == TrackState::Confirmed);
        update
            .ended
            .iter()
            .for_each(|t| registry.ended(events.camera(), t.id));
        let sightings: Vec<TrackObservation<'_>> = update
            .tracks
            .iter()
            .map(|t| TrackObservation {
                track: t.id,
                hits: t.hits,
                bbox: t.bbox,
                views: tracker.views(t.id),
                view: None,
            })
            .collect();
        let names = registry.identify(events.camera(), &sightings, pts);
        update
            .tracks
            .iter_mut()
            .zip(names)
            .for_each(|(t, name)| t.identity = name);
        let frame = Frame {
            camera: "yard".into(),
            number,
            pts,
            time: None,
            width: 768,
            height: 576,
            image: None,
            restart: false,
        };
        recording.frames.push(events.frame(&frame, &update.tracks));
        recording.ended.extend(events.ended(update.ended));
    }
    recording.ended.extend(events.ended(tracker.finish()));
    recording
}

/// The track to the left of Ben in a frame.
fn ana(recording: &RecordedEvents, frame: usize) -> Option<&TrackEvent> {
    recording.frames[frame]
        .tracks
        .iter()
        .find(|t| t.foot[0] < 500.0)
}

/// The ids and the names of the walker before and after the absence, and the ids of all tracks.
fn ids_and_names(r: &RecordedEvents) -> ([u64; 2], [String; 2], BTreeSet<u64>) {
    let (before, after) = (ana(r, 15).unwrap(), ana(r, 90).unwrap());
    let name = |t: &TrackEvent| t.identity.as_ref().map(|i| i.name.clone()).unwrap();
    let all = r
        .frames
        .iter()
        .flat_map(|f| f.tracks.iter().map(|t| t.id))
        .collect();
    ([before.id, after.id], [name(before), name(after)], all)
}

/// The scene tracked online, tracked online and then refined, and tracked offline.
fn all_modes(returning: [f32; 2]) -> [RecordedEvents; 3] {
    let config = Config::default();
    let refine = |r: &RecordedEvents| r.refine(&config.offline, &config.tracker);
    let online = scene(false, returning);
    let refined = refine(&online);
    [online, refined, refine(&scene(true, returning))]
}

#[test]
fn a_returning_person_keeps_id_and_name_online_refined_and_offline() {
    for (mode, r) in ["online", "refined", "offline"].iter().zip(all_modes(ANA)) {
        let (ids, names, all) = ids_and_names(&r);
        assert_eq!(ids[0], ids[1], "{mode}");
        assert_eq!(names[0], names[1], "{mode}");
        assert_eq!(all.len(), 2, "{mode}: {all:?}");
        let ben = r.frames[90]
            .tracks
            .iter()
            .find(|t| t.foot[0] > 500.0)
            .unwrap();
        assert_ne!(ben.identity.as_ref().unwrap().name, names[0], "{mode}");
        assert!(
            (25..60).all(|f| ana(&r, f).is_none()),
            "{mode}: the absence is not filled"
        );
        assert_eq!(
            r.ended.iter().map(|e| e.id).collect::<BTreeSet<_>>(),
            all,
            "{mode}"
        );
    }
}

#[test]
fn a_stranger_gets_a_new_id_and_name_in_all_modes() {
    // One stranger in 25 is at least as similar as this embedding.
    let stranger = [0.5, 0.75f32.sqrt()];
    for (mode, r) in ["online", "refined", "offline"]
        .iter()
        .zip(all_modes(stranger))
    {
        let (ids, names, all) = ids_and_names(&r);
        assert!(
            ids[0] != ids[1] && names[0] != names[1] && all.len() == 3,
            "{mode}: {ids:?} {names:?}"
        );
    }
}
