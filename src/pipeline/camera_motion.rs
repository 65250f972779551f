//! Estimates the camera's own motion from the pixels, if this build has OpenCV.

use crate::frame::Frame;
use crate::geometry::Affine;

#[cfg(feature = "video")]
#[derive(Default)]
pub struct CameraMotion(Option<crate::camera_flow::CameraFlow>);

#[cfg(feature = "video")]
impl CameraMotion {
    pub fn new(enabled: bool) -> Self {
        CameraMotion(enabled.then(Default::default))
    }

    /// The camera's motion since the frame before; `None` if it did not move or its motion cannot
    /// be estimated, for example because the frame has no pixels.
    pub fn next(&mut self, frame: &Frame) -> Option<Affine> {
        if frame.restart && self.0.is_some() {
            self.0 = Some(Default::default());
        }
        let (flow, image) = (self.0.as_mut()?, frame.image.as_ref()?);
        flow.next(image, frame.pts).unwrap_or_else(|e| {
            tracing::warn!(
                camera = %frame.camera, error = %e.message,
                "optical flow failed; from now on camera motion is estimated from the boxes alone"
            );
            self.0 = None;
            None
        })
    }
}

/// Without OpenCV, motion is estimated from the boxes alone.
#[cfg(not(feature = "video"))]
pub struct CameraMotion;

#[cfg(not(feature = "video"))]
impl CameraMotion {
    pub fn new(_: bool) -> Self {
        CameraMotion
    }

    pub fn next(&mut self, _: &Frame) -> Option<Affine> {
        None
    }
}
