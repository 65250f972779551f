//! The zones and lines of one camera: turns the positions of people in every frame into changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::analytics::boundary::{Boundary, Point, Sample};
use crate::analytics::change::{Change, LineChange, SceneView, ZoneChange, ZoneKind};
use crate::analytics::config::{
    CountingConfig, Direction, Ignore, LineConfig, MaskConfig, SceneConfig, SceneError, Shape,
    ZoneConfig,
};
use crate::analytics::ground::{GroundMotion, GroundPlane};
use crate::analytics::passage::{Crossing, Passage};
use crate::analytics::shapes::{Line, Zone};

/// A person in a frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Person {
    /// Id of the track.
    pub track: u64,
    /// Foot point in pixels.
    pub foot: Point,
    /// Height of the box in pixels.
    pub height: f64,
}

/// A person's stay in a zone.
#[derive(Debug)]
struct Stay {
    zone: usize,
    /// Presentation time in seconds of the entry.
    since: f64,
    /// Whether its `dwell` change has been reported.
    told: bool,
}

#[derive(Debug)]
struct TrackState {
    last: Sample,
    motion: Option<GroundMotion>,
    /// One for each zone, then one for each line.
    passages: Vec<Passage>,
    stays: Vec<Stay>,
}

/// A crossing of a boundary, by its index in [`TrackState::passages`].
struct Counted {
    boundary: usize,
    track: u64,
    crossing: Crossing,
}

/// The zones, lines, masks and ground plane of a camera, with the state of its tracks. Times are
/// presentation times in seconds.
#[derive(Debug, Default)]
pub struct Scene {
    config: SceneConfig,
    counting: CountingConfig,
    /// Size in pixels of the frames for which the boundaries were computed.
    size: Option<(u32, u32)>,
    ground: Option<GroundPlane>,
    zones: Vec<Zone>,
    lines: Vec<Line>,
    /// Masks in pixels of frames of `masks_size`.
    masks: Vec<(Ignore, Boundary)>,
    masks_size: Option<(u32, u32)>,
    tracks: BTreeMap<u64, TrackState>,
    /// Entries and exits of zones, and crossings of lines, under earlier settings and sizes.
    past: Past,
}

/// Two counts by the name of a zone or line.
type CountsByName = BTreeMap<Arc<str>, (u64, u64)>;

#[derive(Debug, Default)]
struct Past {
    zones: CountsByName,
    lines: CountsByName,
}

impl Scene {
    /// Creates a scene without people.
    ///
    /// # Errors
    /// As [`SceneConfig::validate`].
    pub fn new(config: SceneConfig, counting: CountingConfig) -> Result<Self, SceneError> {
        config.validate("")?;
        let ground = config.ground_plane().ok().flatten();
        Ok(Scene {
            config,
            counting,
            ground,
            ..Scene::default()
        })
    }

    /// The settings.
    pub fn config(&self) -> &SceneConfig {
        &self.config
    }

    /// Whether there is nothing to count, to ignore or to measure.
    pub fn is_empty(&self) -> bool {
        self.config.is_empty()
    }

    /// The ground plane, if it is known.
    pub fn ground(&self) -> Option<&GroundPlane> {
        self.ground.as_ref()
    }

    /// Replaces the settings. People leave the previous zones, and enter those that they are in.
    /// The counts of a zone or line continue under its name, even if the name was absent for some
    /// time.
    pub fn replace(&mut self, new: Scene, now: f64) -> Vec<Change> {
        let changes = self.end_all(now);
        self.keep_counts();
        let old = std::mem::replace(self, new);
        self.past = old.past;
        if let Some(size) = old.size {
            self.resize(size);
        }
        changes
    }

    /// Keeps the counts of the zones and lines, also of those that are about to be removed: a name
    /// that comes back counts on.
    fn keep_counts(&mut self) {
        let zones = self.zones.iter();
        let counts = zones.map(|z| (z.name.clone(), (z.entered, z.left)));
        self.past.zones.extend(counts);
        let lines = self.lines.iter();
        let counts = lines.map(|l| (l.name.clone(), (l.inwards, l.outwards)));
        self.past.lines.extend(counts);
    }

    /// Converts the shapes to pixels of frames of another size. A shape that has no place in the
    /// picture is left out ([`SceneConfig::validate`] has rejected it).
    fn resize(&mut self, size: (u32, u32)) {
        self.keep_counts();
        let (counts, crossings) = (&self.past.zones, &self.past.lines);
        self.size = Some(size);
        let ground = self.ground.as_ref();
        let pixels = |shape: Shape<'_>| shape.pixels(size, ground);
        let zone = |(name, config): (&String, &ZoneConfig)| {
            let name: Arc<str> = name.as_str().into();
            let (entered, left) = counts.get(&name).copied().unwrap_or_default();
            Some(Zone {
                boundary: Boundary::polygon(pixels(config.shape())?),
                name,
                config: config.clone(),
                entered,
                left,
                over_since: None,
                over_told: false,
            })
        };
        self.zones = self.config.zones.iter().filter_map(zone).collect();
        let line = |(name, config): (&String, &LineConfig)| {
            let name: Arc<str> = name.as_str().into();
            let (inwards, outwards) = crossings.get(&name).copied().unwrap_or_default();
            Some(Line {
                boundary: Boundary::line(pixels(config.shape())?),
                name,
                config: config.clone(),
                inwards,
                outwards,
            })
        };
        self.lines = self.config.lines.iter().filter_map(line).collect();
        self.resize_masks(size);
    }

    fn resize_masks(&mut self, size: (u32, u32)) {
        let ground = self.ground.as_ref();
        let mask = |m: &MaskConfig| {
            let pixels = m.shape().pixels(size, ground)?;
            Some((m.ignore, Boundary::polygon(pixels)))
        };
        self.masks = self.config.masks.values().filter_map(mask).collect();
        self.masks_size = Some(size);
    }

    /// Whether detections with this foot point are ignored, in frames of `size` pixels. To be
    /// called before [`Scene::frame`] for the same frame.
    pub fn ignores_detection(&mut self, foot: Point, size: (u32, u32)) -> bool {
        if self.masks_size != Some(size) {
            self.resize_masks(size);
        }
        self.is_masked(foot, Ignore::Detections)
    }

    fn is_masked(&self, foot: Point, ignore: Ignore) -> bool {
        let masks = self.masks.iter().filter(|(what, _)| *what == ignore);
        masks.into_iter().any(|(_, mask)| mask.contains(foot))
    }

    /// Moves the people to where they are in the frame at `now`, whose size is `size` pixels.
    /// Tracks that are not among them stay where they were. Returns what changed: what crossings
    /// caused, in order of time, then the `dwell` and `over_limit` changes that are due.
    pub fn frame(
        &mut self,
        now: f64,
        size: (u32, u32),
        people: impl IntoIterator<Item = Person>,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        if self.size != Some(size) {
            changes = self.end_all(now);
            self.resize(size);
        }
        if self.zones.is_empty() && self.lines.is_empty() && self.ground.is_none() {
            return changes;
        }
        let mut counted = Vec::new();
        for person in people {
            if !self.is_masked(person.foot, Ignore::Counting) {
                self.step(now, &person, &mut counted);
            }
        }
        changes.extend(self.apply(counted));
        self.check_durations(now, &mut changes);
        changes
    }

    fn step(&mut self, now: f64, person: &Person, counted: &mut Vec<Counted>) {
        let sample = Sample {
            at: now,
            foot: person.foot,
            margin: (self.counting.margin * person.height).max(0.1),
        };
        let metres = self.ground.as_ref().and_then(|g| g.to_metres(person.foot));
        let (zones, lines) = (&self.zones, &self.lines);
        let boundaries = || {
            let zones = zones.iter().map(|z| (&z.boundary, true));
            zones.chain(lines.iter().map(|l| (&l.boundary, false)))
        };
        let Some(track) = self.tracks.get_mut(&person.track) else {
            let passages = boundaries().map(|(b, is_zone)| {
                if is_zone && b.contains(sample.foot) {
                    Passage::begin_inside(b, &sample)
                } else {
                    Passage::begin(b, &sample)
                }
            });
            let state = TrackState {
                last: sample,
                motion: metres.map(|m| GroundMotion::begin(now, m)),
                passages: passages.collect(),
                stays: Vec::new(),
            };
            self.tracks.insert(person.track, state);
            return;
        };
        let hold = self.counting.hold;
        let mut step = |i: usize, boundary: &Boundary, passage: &mut Passage| {
            passage.step(boundary, &track.last, &sample, hold, |crossing| {
                counted.push(Counted {
                    boundary: i,
                    track: person.track,
                    crossing,
                });
            });
        };
        let (of_zones, of_lines) = track.passages.split_at_mut(zones.len());
        for (i, (zone, passage)) in zones.iter().zip(of_zones).enumerate() {
            step(i, &zone.boundary, passage);
        }
        for (i, (line, passage)) in lines.iter().zip(of_lines).enumerate() {
            step(zones.len() + i, &line.boundary, passage);
        }
        track.last = sample;
        if let Some(metres) = metres {
            match &mut track.motion {
                Some(motion) => motion.update(now, metres),
                None => track.motion = Some(GroundMotion::begin(now, metres)),
            }
        }
    }

    /// Ends a track: its person leaves the zones. Returns what changed.
    pub fn end(&mut self, track: u64) -> Vec<Change> {
        let mut counted = Vec::new();
        self.finish(track, &mut counted);
        let changes = self.apply(counted);
        self.tracks.remove(&track);
        changes
    }

    fn end_all(&mut self, now: f64) -> Vec<Change> {
        let tracks: Vec<u64> = self.tracks.keys().copied().collect();
        let mut counted = Vec::new();
        for &track in &tracks {
            self.finish(track, &mut counted);
        }
        let mut changes = self.apply(counted);
        self.check_durations(now, &mut changes);
        self.tracks.clear();
        changes
    }

    fn finish(&mut self, track: u64, counted: &mut Vec<Counted>) {
        let Some(state) = self.tracks.get_mut(&track) else {
            return;
        };
        let hold = self.counting.hold;
        for (i, passage) in state.passages.drain(..).enumerate() {
            let zone = self.zones.get(i);
            let inside = zone.is_some_and(|z| z.boundary.contains(state.last.foot));
            passage.finish(inside.then_some(state.last.at), hold, |crossing| {
                counted.push(Counted {
                    boundary: i,
                    track,
                    crossing,
                });
            });
        }
    }

    /// Applies crossings in order of time.
    fn apply(&mut self, mut counted: Vec<Counted>) -> Vec<Change> {
        counted.sort_by(|a, b| a.crossing.at.total_cmp(&b.crossing.at));
        let mut changes = Vec::new();
        for c in counted {
            if c.boundary < self.zones.len() {
                self.cross_zone(&c, &mut changes);
            } else {
                self.cross_line(&c, &mut changes);
            }
        }
        changes
    }

    fn cross_zone(&mut self, c: &Counted, changes: &mut Vec<Change>) {
        let zone = &mut self.zones[c.boundary];
        let Some(track) = self.tracks.get_mut(&c.track) else {
            return;
        };
        let Crossing { at, point, .. } = c.crossing;
        let change = |zone: &Zone, kind, at, stay| {
            Change::Zone(ZoneChange {
                zone: zone.name.clone(),
                kind,
                track: Some(c.track),
                at,
                point: if kind == ZoneKind::Dwell { None } else { point },
                stay,
                occupancy: zone.occupancy(),
                entered: zone.entered,
                left: zone.left,
                limit: None,
            })
        };
        let stay = track.stays.iter().position(|s| s.zone == c.boundary);
        if c.crossing.net > 0 && stay.is_none() {
            zone.entered += 1;
            track.stays.push(Stay {
                zone: c.boundary,
                since: at,
                told: false,
            });
            changes.push(change(zone, ZoneKind::Enter, at, None));
            zone.entered_at(at);
        } else if let (true, Some(stay)) = (c.crossing.net < 0, stay) {
            let stay = track.stays.swap_remove(stay);
            if let Some(dwell) = zone
                .config
                .dwell
                .filter(|d| !stay.told && at - stay.since >= *d)
            {
                changes.push(change(
                    zone,
                    ZoneKind::Dwell,
                    stay.since + dwell,
                    Some(dwell),
                ));
            }
            zone.left += 1;
            changes.push(change(zone, ZoneKind::Leave, at, Some(at - stay.since)));
            if let Some(within) = zone.left_at(at) {
                changes.push(within);
            }
        }
    }

    fn cross_line(&mut self, c: &Counted, changes: &mut Vec<Change>) {
        let line = &mut self.lines[c.boundary - self.zones.len()];
        let direction = if c.crossing.net > 0 {
            Direction::In
        } else {
            Direction::Out
        };
        for _ in 0..c.crossing.net.abs() {
            match direction {
                Direction::In => line.inwards += 1,
                Direction::Out => line.outwards += 1,
            }
            changes.push(Change::Line(LineChange {
                line: line.name.clone(),
                direction,
                track: c.track,
                at: c.crossing.at,
                point: c.crossing.point,
                wrong: line.config.wrong == Some(direction),
                inwards: line.inwards,
                outwards: line.outwards,
            }));
        }
    }

    /// Adds `dwell` and `over_limit` changes that are due. A `dwell` change comes `hold` seconds
    /// late, as crossings do, so that an exit before it is known. An `over_limit` change comes
    /// after twice `hold`: the excess must last for `hold`, and exits are known `hold` seconds
    /// late.
    fn check_durations(&mut self, now: f64, changes: &mut Vec<Change>) {
        let hold = self.counting.hold;
        for (&track, state) in &mut self.tracks {
            for stay in state.stays.iter_mut().filter(|s| !s.told) {
                let zone = &self.zones[stay.zone];
                let Some(dwell) = zone.config.dwell else {
                    continue;
                };
                if now >= stay.since + dwell + hold {
                    stay.told = true;
                    changes.push(Change::Zone(ZoneChange {
                        zone: zone.name.clone(),
                        kind: ZoneKind::Dwell,
                        track: Some(track),
                        at: stay.since + dwell,
                        point: None,
                        stay: Some(dwell),
                        occupancy: zone.occupancy(),
                        entered: zone.entered,
                        left: zone.left,
                        limit: None,
                    }));
                }
            }
        }
        for zone in self.zones.iter_mut().filter(|z| !z.over_told) {
            if let Some(since) = zone.over_since.filter(|s| now >= s + 2.0 * hold) {
                zone.over_told = true;
                changes.push(zone.limit_change(ZoneKind::OverLimit, since));
            }
        }
    }

    /// The names of the zones that a track is in, in order of entry.
    pub fn zones_of(&self, track: u64) -> impl Iterator<Item = &Arc<str>> {
        let stays = self.tracks.get(&track).map_or(&[][..], |t| &t.stays);
        stays.iter().map(|s| &self.zones[s.zone].name)
    }

    /// Speed of a track in metres per second, and metres walked so far; 0 for a track that has just
    /// begun, and without a ground plane.
    pub fn motion(&self, track: u64) -> (f64, f64) {
        let motion = self.tracks.get(&track).and_then(|t| t.motion.as_ref());
        motion.map_or((0.0, 0.0), |m| (m.speed(), m.walked()))
    }

    /// As [`Scene::view`], for frames of `size` pixels, before the first of them.
    pub fn shapes(&mut self, size: (u32, u32)) -> SceneView {
        if self.size != Some(size) {
            self.resize(size);
        }
        self.view()
    }

    /// The shapes in pixels, and their counts so far. Without shapes before the first frame.
    pub fn view(&self) -> SceneView {
        SceneView {
            zones: self.zones.iter().map(Zone::view).collect(),
            lines: self.lines.iter().map(Line::view).collect(),
            masks: self.masks.iter().map(|(_, b)| b.points().into()).collect(),
        }
    }
}
