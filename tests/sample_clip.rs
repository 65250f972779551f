//! How good the product is on the sample clip, against hand-checked ground truth: online, offline, and with frames dropped.
#![cfg(feature = "video")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use common::{clip, repository};
use twintrack::config::Config;
use twintrack::detect::Detector;
use twintrack::detection::{Detection, Embeddings};
use twintrack::embed::Embedder;
use twintrack::eval::{Benchmark, Scores, Sequence, score};
use twintrack::frame::Frame;
use twintrack::infer::{Device, Runtime, SessionOptions};
use twintrack::mot_format::{MotRow, read_rows};
use twintrack::refine::Recording;
use twintrack::source::{self, SourceOptions};
use twintrack::time::Seconds;
use twintrack::track::similarity::StrangerTable;
use twintrack::track::{TrackState, Tracker};
use twintrack::trajectory::EventBuilder;

type Observed = (Frame, Vec<Detection>, Embeddings);

/// Every frame of the clip with what the networks say of it, and how often strangers are alike to the embedder.
fn observe(config: &Config) -> (Vec<Observed>, Option<StrangerTable>) {
    let runtime = Runtime::load().unwrap();
    let session = SessionOptions {
        device: Device::Cpu,
        threads: config.threads(),
    };
    let mut detector = Detector::open(&runtime, &config.detector, session).unwrap();
    let mut embedder = Embedder::open(&runtime, &config.embedder, session).unwrap();
    let mut source = source::open(&clip().to_string_lossy(), &SourceOptions::default()).unwrap();
    let mut all = Vec::new();
    while let Some(mut frame) = source.next_frame().unwrap() {
        let image = frame.image.take().unwrap();
        let detections = detector.detect_image(&image).unwrap();
        let embeddings = embedder.embed(&image, &detections).unwrap();
        all.push((frame, detections, embeddings));
    }
    assert_eq!(all.len(), 400);
    (all, embedder.strangers())
}

/// How trajectories are made.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Online,
    /// `track --offline`.
    Offline,
    /// `refine` of what was tracked online.
    Refined,
}

/// Tracks the frames that `keep` lets through, and scores against their ground truth.
fn judged(
    all: &[Observed],
    config: &Config,
    strangers: &Option<StrangerTable>,
    way: Way,
    keep: impl Fn(u64) -> bool,
) -> Scores {
    let kept: Vec<&Observed> = all.iter().filter(|(f, _, _)| keep(f.number)).collect();
    let mut tracker =
        Tracker::new(config.tracker(way == Way::Offline)).with_strangers(strangers.clone());
    let mut events = EventBuilder::new(uuid::Uuid::nil(), "clip".into(), Some("siamese".into()));
    let (mut recording, mut last) = (Recording::default(), None);
    for (frame, detections, embeddings) in kept.iter().copied() {
        let elapsed = last.map_or(Seconds::ZERO, |l| frame.pts - l);
        last = Some(frame.pts);
        let mut update = tracker.update(detections, embeddings, elapsed).unwrap();
        update.tracks.retain(|t| t.state == TrackState::Confirmed);
        recording.frames.push(events.frame(frame, &update.tracks));
        recording
            .ended
            .extend(update.ended.into_iter().map(|e| events.ended(e)));
    }
    recording
        .ended
        .extend(tracker.finish().into_iter().map(|e| events.ended(e)));
    if way != Way::Online {
        recording = recording.refine(&config.offline, &config.tracker);
    }
    // Frames are numbered anew, so that those left out are missed by nobody.
    let place = |frame: u64| {
        kept.iter()
            .position(|(f, _, _)| f.number == frame)
            .map(|p| p as u64 + 1)
    };
    let truth = read_rows(&repository("samples/pets2009-s2l1/gt/gt.txt")).unwrap();
    let truth: Vec<MotRow> = truth
        .into_iter()
        .filter_map(|r| {
            Some(MotRow {
                frame: place(r.frame)?,
                ..r
            })
        })
        .collect();
    let rows = recording
        .frames
        .iter()
        .flat_map(|e| e.tracks.iter().map(|t| (e.frame, t)));
    let rows: Vec<MotRow> = rows
        .map(|(f, t)| MotRow {
            frame: place(f).unwrap(),
            id: t.id as i64,
            ltwh: t.bbox,
            confidence: 1.0,
            class: 1,
            visibility: 1.0,
        })
        .collect();
    let sequence =
        Sequence::align("clip", kept.len() as u64, &truth, &rows, Benchmark::Mot15).unwrap();
    score(&sequence).scores("clip")
}

/// The limits stand a little below what was measured when they were set (BENCHMARKS.md): a change that costs identities fails.
#[test]
fn identities_hold_online_offline_and_with_frames_dropped() {
    let config = Config::default();
    let (all, strangers) = observe(&config);
    let online = judged(&all, &config, &strangers, Way::Online, |_| true);
    assert!(
        online.IDF1 > 89.0 && online.HOTA > 79.0 && online.MOTA > 88.0 && online.IDSW <= 8,
        "online {online:?}"
    );
    let offline = judged(&all, &config, &strangers, Way::Offline, |_| true);
    assert!(
        offline.IDF1 > 93.5 && offline.HOTA > 87.0 && offline.MOTA > 92.5 && offline.IDSW <= 4,
        "offline {offline:?}"
    );
    // With the tracks made for it, linking is no worse than with those of an online run.
    let refined = judged(&all, &config, &strangers, Way::Refined, |_| true);
    let mean = |s: &Scores| (s.HOTA + s.IDF1) / 2.0;
    assert!(
        mean(&offline) > mean(&refined) - 0.05 && offline.IDSW <= refined.IDSW,
        "offline {offline:?}, refined {refined:?}"
    );
    let every_second = judged(&all, &config, &strangers, Way::Online, |n| n % 2 == 0);
    assert!(
        every_second.IDF1 > online.IDF1 - 6.0,
        "every second frame {every_second:?}, all {online:?}"
    );
    // Two frames of five, at random but the same each time (a hash of the number).
    let some = judged(&all, &config, &strangers, Way::Online, |n| {
        n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32 & 0xFF < 102
    });
    assert!(
        some.IDF1 > online.IDF1 - 6.0,
        "60 % dropped {some:?}, all {online:?}"
    );
    eprintln!(
        "online {online:?}\noffline {offline:?}\nrefined {refined:?}\nhalf {every_second:?}\n40 % {some:?}"
    );
}
