//! Watches the camera's own motion, where this build and the frames allow it.

use crate::frame::Frame;
use crate::geometry::Affine;

#[cfg(feature = "video")]
#[derive(Default)]
pub struct CameraWatch(Option<crate::camera_flow::CameraFlow>);

#[cfg(feature = "video")]
impl CameraWatch {
    pub fn new(wanted: bool) -> Self {
        CameraWatch(wanted.then(Default::default))
    }

    /// What the camera did since the frame before, where it did something.
    pub fn next(&mut self, frame: &Frame) -> Option<Affine> {
        if frame.restart && self.0.is_some() {
            self.0 = Some(Default::default());
        }
        let (flow, image) = (self.0.as_mut()?, frame.image.as_ref()?);
        flow.next(image, frame.pts).unwrap_or_else(|e| {
            tracing::warn!(camera = %frame.camera, error = %e.message, "optical flow failed; the camera's motion is told from the boxes alone");
            self.0 = None;
            None
        })
    }
}

/// Without OpenCV the boxes alone tell.
#[cfg(not(feature = "video"))]
pub struct CameraWatch;

#[cfg(not(feature = "video"))]
impl CameraWatch {
    pub fn new(_: bool) -> Self {
        CameraWatch
    }

    pub fn next(&mut self, _: &Frame) -> Option<Affine> {
        None
    }
}
