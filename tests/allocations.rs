//! An update of the tracker allocates memory for its output only, after its lists have reached
//! their size.
#![allow(clippy::unwrap_used, reason = "a test may")]

use allocation_counter::{AllocationInfo, measure};
use ndarray::Array2;
use twintrack::detection::{Detection, Embeddings};
use twintrack::geometry::BBox;
use twintrack::time::Seconds;
use twintrack::track::{Tracker, TrackerConfig};

const PEOPLE: usize = 30;
const DIMENSION: usize = 64;

/// People who walk to the right, in overlapping rows. One of them is not detected.
fn frame(number: usize, embedded: bool) -> (Vec<Detection>, Embeddings) {
    let all = (0..PEOPLE).filter(|i| !(i + number).is_multiple_of(PEOPLE));
    let which: Vec<usize> = all.collect();
    let detections: Vec<Detection> = which
        .iter()
        .map(|&i| Detection {
            bbox: BBox::new(
                60.0 * (i % 6) as f32 + 2.0 * number as f32,
                40.0 * (i / 6) as f32,
                40.0,
                100.0,
            ),
            confidence: if i % 5 == 0 {
                0.45
            } else {
                0.9 - 0.001 * i as f32
            },
        })
        .collect();
    if !embedded {
        return (detections, Embeddings::none());
    }
    let vectors = Array2::from_shape_fn((which.len(), DIMENSION), |(row, axis)| {
        f32::from(u8::from(axis == which[row]))
    });
    (detections, Embeddings::all(vectors))
}

/// The allocations of 100 updates after 200 uncounted ones, in which every person had five clear
/// views, and the number of tracks after the last update.
fn allocations(embedded: bool) -> (Vec<AllocationInfo>, usize) {
    let frames: Vec<_> = (0..300).map(|number| frame(number, embedded)).collect();
    let mut tracker = Tracker::new(TrackerConfig::default());
    let mut tracks = 0;
    let mut update = |(detections, embeddings): &(Vec<Detection>, Embeddings)| {
        let mut updated = None;
        let allocated = measure(|| {
            updated = Some(tracker.update(detections, embeddings, Seconds(0.1)));
        });
        let updated = updated.unwrap().unwrap();
        assert!(updated.ended.is_empty());
        tracks = updated.tracks.len();
        allocated
    };
    frames[..200].iter().for_each(|f| {
        update(f);
    });
    let allocated = frames[200..].iter().map(&mut update).collect();
    (allocated, tracks)
}

#[test]
fn an_update_allocates_its_output_only() {
    for embedded in [false, true] {
        let (allocated, tracks) = allocations(embedded);
        assert!(tracks >= PEOPLE - 6, "{tracks} tracks");
        let counts: Vec<u64> = allocated.iter().map(|a| a.count_total).collect();
        assert_eq!(counts, vec![1; 100], "embedded: {embedded}");
    }
}
