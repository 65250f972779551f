//! Output layouts of detectors: their names in settings, and what pixels such networks take.

use serde::{Deserialize, Serialize};

use crate::infer::PixelFormat;

/// How a detector writes what it found. N pictures, P places, C classes; "places of strides s" are
/// the cells of s by s pixels of the input, stride by stride, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// [N, P, 5]: left, top, right, bottom (pixels), score; possibly `labels` [N, P] beside it
    /// (MMDeploy). The shipped detector's.
    Boxes,
    /// YOLOX (Ge et al. 2021): [N, P, 5 + C], places of strides 8, 16, 32, not yet decoded: offset
    /// x, y in cells, log width, log height, objectness, class scores.
    Yolox,
    /// YOLOX exported with its boxes decoded: centre x, y, width, height (pixels), objectness,
    /// class scores.
    YoloxDecoded,
    /// YOLOv5 and YOLOv7: [N, P, 5 + C], three boxes a place of strides 8, 16, 32 and possibly 64:
    /// centre x, y, width, height (pixels), objectness, class scores.
    Yolov5,
    /// YOLOv8 and YOLO11 without built-in suppression: [N, 4 + C, P] or [N, P, 4 + C]: centre x, y,
    /// width, height (pixels), scores. Coefficients of masks may follow the scores.
    Yolo,
    /// YOLOv10, YOLO26 and others exported with `nms=True`: [N, P, 6]: left, top, right, bottom
    /// (pixels), score, class. Coefficients of masks may follow.
    End2end,
    /// NanoDet (RangiLyu 2020), also as OpenCV Zoo ships it: for each stride s of 8, 16, 32 and
    /// possibly 64 two outputs, class scores [N, P, C] after the sigmoid and distances [N, P, 4 B]:
    /// for the left, top, right and bottom side B = 8 or 11 logits of a distribution over 0 to B -
    /// 1, in cells, from the cell's centre (i + 0.5) s.
    Nanodet,
    /// ATSS (Zhang et al. 2020) for one class, cut before its boxes are decoded, as Intel's
    /// person-detection-0303: [N, 5, H / s, W / s] for each stride s of 8, 16, 32 and possibly 64 and
    /// 128: score, offsets of the centre and logarithms of the sides over an anchor of 8 s pixels.
    Atss,
    /// RT-DETR, raw: `logits` [N, P, C] and boxes [N, P, 4], or one output [N, P, 4 + C] with
    /// scores: centre x, y, width, height as shares of the picture.
    Detr,
    /// RF-DETR: `dets` [N, P, 4] (as those of RT-DETR) and `labels` [N, P, C], logits.
    Rfdetr,
    /// D-FINE and RT-DETR as their authors export them: `labels` [N, P], `boxes` [N, P, 4] (left,
    /// top, right, bottom in pixels), `scores` [N, P], with a second input `orig_target_sizes`.
    Dfine,
}

impl Layout {
    /// All layouts.
    pub const ALL: [Layout; 11] = [
        Layout::Boxes,
        Layout::Yolox,
        Layout::YoloxDecoded,
        Layout::Yolov5,
        Layout::Yolo,
        Layout::End2end,
        Layout::Nanodet,
        Layout::Atss,
        Layout::Detr,
        Layout::Rfdetr,
        Layout::Dfine,
    ];

    /// Its name in settings and metadata.
    pub fn name(self) -> &'static str {
        match self {
            Layout::Boxes => "boxes",
            Layout::Yolox => "yolox",
            Layout::YoloxDecoded => "yolox-decoded",
            Layout::Yolov5 => "yolov5",
            Layout::Yolo => "yolo",
            Layout::End2end => "end2end",
            Layout::Nanodet => "nanodet",
            Layout::Atss => "atss",
            Layout::Detr => "detr",
            Layout::Rfdetr => "rfdetr",
            Layout::Dfine => "dfine",
        }
    }

    /// The layout of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.name() == name)
    }

    /// The pixels such a network was trained on, by its authors' code; `None` where the file or a
    /// setting must say so.
    pub fn pixel_format(self) -> Option<PixelFormat> {
        match self {
            Layout::Boxes => None,
            Layout::Nanodet => Some(PixelFormat::IMAGENET_BGR),
            Layout::Rfdetr => Some(PixelFormat::IMAGENET_RGB),
            Layout::Yolox | Layout::YoloxDecoded | Layout::Atss => Some(PixelFormat::BYTES_BGR),
            Layout::Yolov5 | Layout::Yolo | Layout::End2end | Layout::Detr | Layout::Dfine => {
                Some(PixelFormat::UNIT_RGB)
            }
        }
    }

    /// Whether such a network takes the picture stretched to its square input instead of
    /// letterboxed.
    pub fn stretches(self) -> bool {
        matches!(self, Layout::Detr | Layout::Rfdetr | Layout::Dfine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_settings() {
        for layout in Layout::ALL {
            assert_eq!(serde_json::to_value(layout).expect("a name"), layout.name());
            assert_eq!(Layout::of_name(layout.name()), Some(layout));
        }
        assert_eq!(Layout::of_name("auto"), None);
    }
}
