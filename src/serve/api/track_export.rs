//! What the formats of an export have in common.

use std::io;

use crate::store::query::TrackDetail;

/// Writes tracks in a format.
pub(super) trait TrackExport {
    /// Writes a track.
    ///
    /// # Errors
    /// When writing fails.
    fn track(&mut self, track: &TrackDetail) -> io::Result<()>;

    /// Writes what comes after the last track.
    ///
    /// # Errors
    /// When writing fails.
    fn finish(self: Box<Self>) -> io::Result<()>;
}
