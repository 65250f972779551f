//! Continues from people who were decided before.

use crate::multi_camera::camera_track::{CameraTrack, RejectedTrack};
use crate::multi_camera::matcher::Matcher;

impl Matcher {
    /// Gives new people numbers greater than `last`.
    #[must_use]
    pub fn with_people_after(mut self, last: u64) -> Self {
        self.next = self.next.max(last + 1);
        self
    }

    /// Remembers a track whose person was decided before, for example by an earlier run. Nothing is
    /// learned about the cameras. Tracks come in the order in which they ended.
    ///
    /// # Errors
    /// The reason why the track cannot be compared. The matcher is unchanged.
    pub fn remember(&mut self, track: &CameraTrack, person: u64) -> Result<(), RejectedTrack> {
        let (sighting, embedding) = self.check(track)?;
        self.next = self.next.max(person + 1);
        self.now.0 = self.now.0.max(track.last.0);
        let views = self.config.views;
        let known = self.people.entry(person).or_default();
        known.learn(sighting, embedding, views);
        Ok(())
    }
}
