//! Baselines that the matcher is compared with.

use std::collections::BTreeSet;

use crate::multi_camera::camera_track::CameraTrack;
use crate::multi_camera::person::dot;

/// For each track, the person of the nearest track that ended earlier, by at most `remember`
/// seconds, if the cosine distance is at most `distance`; else a new person. Tracks of one camera
/// at the same time are of different people. `tracks` are in the order in which they end; the
/// people are returned in the same order.
pub fn nearest_neighbour(tracks: &[CameraTrack], distance: f32, remember: f64) -> Vec<u64> {
    let mut people: Vec<u64> = Vec::with_capacity(tracks.len());
    let mut next = 1;
    let mut oldest = 0;
    for (at, track) in tracks.iter().enumerate() {
        while tracks[oldest].last.0 < track.last.0 - remember {
            oldest += 1;
        }
        let excluded = excluded(&tracks[oldest..at], &people[oldest..], track);
        let nearest = (oldest..at)
            .filter(|&other| !excluded.contains(&people[other]))
            .filter_map(|other| {
                let embedding = &tracks[other].embedding;
                let comparable = embedding.len() == track.embedding.len();
                let d = comparable.then(|| 1.0 - dot(embedding, &track.embedding))?;
                (d <= distance).then_some((d, people[other]))
            })
            .min_by(|a, b| a.0.total_cmp(&b.0));
        people.push(nearest.map_or_else(
            || {
                next += 1;
                next - 1
            },
            |(_, person)| person,
        ));
    }
    people
}

/// The people who are at the track's camera at the same time.
fn excluded(tracks: &[CameraTrack], people: &[u64], track: &CameraTrack) -> BTreeSet<u64> {
    let at_once = tracks.iter().zip(people).filter(|(other, _)| {
        other.camera == track.camera && other.last.0 > track.first.0 && other.first.0 < track.last.0
    });
    at_once.map(|(_, person)| *person).collect()
}
