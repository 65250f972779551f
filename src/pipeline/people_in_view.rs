//! Everybody whom a frame may show, for pictures in which people are blurred.

use std::collections::VecDeque;

use crate::detection::Detection;
use crate::geometry::BBox;
use crate::time::Seconds;
use crate::track::Tracker;

/// Time for which the place of a detection stays hidden: detectors miss people now and then.
const HOLD: Seconds = Seconds(0.5);
/// Time for which the predicted place of a track that is not detected is hidden.
const LOST: Seconds = Seconds(1.0);

/// The latest detections of a camera, including those that no track continues.
#[derive(Debug, Default)]
pub(super) struct PeopleInView {
    /// Times and boxes, oldest first.
    recent: VecDeque<(Seconds, Vec<BBox>)>,
}

impl PeopleInView {
    /// Adds the detections of a frame.
    pub fn see(&mut self, at: Seconds, detections: &[Detection]) {
        self.add(at, detections.iter().map(|d| d.bbox).collect());
    }

    /// Adds the latest detections again.
    pub fn see_again(&mut self, at: Seconds) {
        self.add(at, self.latest().to_vec());
    }

    fn add(&mut self, at: Seconds, boxes: Vec<BBox>) {
        while self.recent.front().is_some_and(|r| (at - r.0).0 > HOLD.0) {
            self.recent.pop_front();
        }
        self.recent.push_back((at, boxes));
    }

    /// Forgets the detections, which were in another view.
    pub fn clear(&mut self) {
        self.recent.clear();
    }

    /// The boxes that are blurred in a frame at time `at`: of detections at most [`HOLD`] before
    /// it, and of tracks detected at most [`LOST`] before it.
    pub fn boxes(&self, at: Seconds, tracker: &Tracker) -> Vec<BBox> {
        let recent = self.recent.iter().filter(|r| (at - r.0).0 <= HOLD.0);
        let recent = recent.flat_map(|(_, boxes)| boxes.iter().copied());
        recent.chain(tracker.boxes(LOST)).collect()
    }

    /// The detections of the latest frame.
    pub fn latest(&self) -> &[BBox] {
        self.recent.back().map_or(&[], |(_, boxes)| boxes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detection::Embeddings;
    use crate::track::TrackerConfig;

    fn detection(left: f32) -> Detection {
        Detection {
            bbox: BBox::new(left, 10.0, 40.0, 100.0),
            confidence: 0.9,
        }
    }

    /// Somebody who is seen for the first time has a tentative track, which no event shows.
    #[test]
    fn people_are_in_view_from_their_first_detection_and_for_a_while_after_the_last() {
        let (mut people, mut tracker) = (
            PeopleInView::default(),
            Tracker::new(TrackerConfig::default()),
        );
        let mut last = -0.1;
        let mut step = |at: f64, seen: &[Detection]| {
            let (pts, none) = (Seconds(at), Embeddings::none());
            let elapsed = Seconds(at - std::mem::replace(&mut last, at));
            people.see(pts, seen);
            let update = tracker.update(seen, &none, elapsed).expect("valid");
            (update.tracks.len(), people.boxes(pts, &tracker))
        };
        let first = [detection(100.0)];
        let (tracks, boxes) = step(0.0, &first);
        assert_eq!(tracks, 0, "not confirmed yet");
        assert!(boxes.contains(&first[0].bbox));
        let (_, boxes) = step(0.4, &[]);
        assert!(boxes.contains(&first[0].bbox), "the detector missed them");
        let (_, boxes) = step(1.2, &[detection(300.0)]);
        assert!(!boxes.contains(&first[0].bbox));
        assert_eq!(people.latest(), [detection(300.0).bbox]);
        people.see_again(Seconds(2.0));
        assert!(
            people
                .boxes(Seconds(2.0), &tracker)
                .contains(&detection(300.0).bbox)
        );
    }
}
