//! Output layouts of detectors, their names in settings, and the pixel formats they imply.

use serde::{Deserialize, Serialize};

use crate::infer::PixelFormat;

/// How a detector's output tensors are to be read. N pictures, P places, C classes. "Places of
/// strides s" are the cells of s by s pixels of the input, stride by stride, row by row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "serve", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Layout {
    /// [N, P, 5]: left, top, right, bottom (pixels), score; optionally with `labels` [N, P]
    /// (MMDeploy). Used by the shipped detector.
    Boxes,
    /// YOLOX (Ge et al. 2021), undecoded: [N, P, 5 + C], places of strides 8, 16, 32: offset x, y
    /// in cells, log width, log height, objectness, class scores.
    Yolox,
    /// YOLOX exported with its boxes decoded: centre x, y, width, height (pixels), objectness,
    /// class scores.
    YoloxDecoded,
    /// YOLOv5 and YOLOv7: [N, P, 5 + C], three boxes per place of strides 8, 16, 32 and possibly
    /// 64: centre x, y, width, height (pixels), objectness, class scores.
    Yolov5,
    /// YOLOv8 and YOLO11 without built-in suppression: [N, 4 + C, P] or [N, P, 4 + C]: centre x, y,
    /// width, height (pixels), scores, possibly followed by mask coefficients.
    Yolo,
    /// YOLOv10, YOLO26 and others exported with `nms=True`: [N, P, 6]: left, top, right, bottom
    /// (pixels), score, class, possibly followed by mask coefficients.
    End2end,
    /// NanoDet (RangiLyu 2020), also as in OpenCV Zoo: two outputs for each stride s of 8, 16, 32
    /// and possibly 64. The first holds class scores [N, P, C] after the sigmoid, the second
    /// distances [N, P, 4 B]: for the left, top, right and bottom side B = 8 or 11 logits of a
    /// distribution over 0 to B - 1, in cells, from the cell's centre (i + 0.5) s.
    Nanodet,
    /// ATSS (Zhang et al. 2020) for one class, cut before box decoding, as in Intel's
    /// person-detection-0303: [N, 5, H / s, W / s] for each stride s of 8, 16, 32 and possibly 64
    /// and 128: score, offsets of the centre and log sizes relative to an anchor of 8 s pixels.
    Atss,
    /// RT-DETR, raw: `logits` [N, P, C] and boxes [N, P, 4], or one output [N, P, 4 + C] with
    /// scores: centre x, y, width, height relative to the picture.
    Detr,
    /// RF-DETR: `dets` [N, P, 4] (as RT-DETR's boxes) and `labels` [N, P, C], logits.
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

    /// The name in settings and metadata.
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

    /// The layout with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|l| l.name() == name)
    }

    /// The pixel format in the authors' code; `None` where the file or a setting must give it.
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

    /// Whether the picture is stretched to the network's square input instead of letterboxed.
    pub fn stretches(self) -> bool {
        matches!(self, Layout::Detr | Layout::Rfdetr | Layout::Dfine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_their_serialized_form() {
        for layout in Layout::ALL {
            assert_eq!(serde_json::to_value(layout).expect("a name"), layout.name());
            assert_eq!(Layout::from_name(layout.name()), Some(layout));
        }
        assert_eq!(Layout::from_name("auto"), None);
    }
}
