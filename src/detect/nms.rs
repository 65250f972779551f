//! Non-maximum suppression: of boxes that overlap too much only the most confident is kept.

use crate::detection::Detection;

/// Drops each detection that overlaps a kept one of higher confidence by more than `iou`. Returns
/// at most `limit` detections, in descending order of confidence. Equal confidences are ordered by
/// their boxes, so that the result does not depend on the input's order.
pub fn suppress(mut detections: Vec<Detection>, iou: f32, limit: usize) -> Vec<Detection> {
    let key = |d: &Detection| (d.bbox.left, d.bbox.top, d.bbox.width, d.bbox.height);
    detections.sort_by(|a, b| {
        b.confidence.total_cmp(&a.confidence).then_with(|| {
            key(a)
                .partial_cmp(&key(b))
                .unwrap_or(std::cmp::Ordering::Equal)
        })
    });
    let mut kept: Vec<Detection> = Vec::new();
    for d in detections {
        if kept.len() == limit {
            break;
        }
        if kept.iter().all(|k| k.bbox.iou(&d.bbox) <= iou) {
            kept.push(d);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geometry::BBox;

    fn at(left: f32, confidence: f32) -> Detection {
        Detection {
            bbox: BBox::new(left, 0.0, 10.0, 20.0),
            confidence,
        }
    }

    #[test]
    fn the_most_confident_of_a_group_stays() {
        let kept = suppress(vec![at(1.0, 0.6), at(0.0, 0.9), at(30.0, 0.5)], 0.6, 10);
        assert_eq!(kept, [at(0.0, 0.9), at(30.0, 0.5)]);
    }

    #[test]
    fn neighbours_that_overlap_less_both_stay() {
        assert_eq!(suppress(vec![at(0.0, 0.9), at(5.0, 0.8)], 0.6, 10).len(), 2);
    }

    #[test]
    fn the_limit_keeps_the_best() {
        assert_eq!(
            suppress(vec![at(0.0, 0.1), at(50.0, 0.9), at(100.0, 0.5)], 0.6, 2),
            [at(50.0, 0.9), at(100.0, 0.5)]
        );
    }
}
