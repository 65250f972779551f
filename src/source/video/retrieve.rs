//! The picture of a frame that was grabbed, in its own size.

use opencv::core::{self, Mat};
use opencv::videoio::{self, VideoCaptureTrait as _};

use super::decoded::{self, Converter, Format};
use super::{Video, property, read_error};
use crate::source::error::SourceError;

impl Video {
    /// Reads the picture of the current frame into `mat`; `false` if it cannot be decoded.
    ///
    /// # Errors
    /// If OpenCV fails, or the size has changed to one that FFmpeg cannot convert.
    pub(super) fn retrieve(&mut self) -> Result<bool, SourceError> {
        let decoded = decoded::format();
        match decoded {
            Some(format) if !self.is_usual(format) => self.convert(format).map(|()| true),
            _ => {
                let read = self.capture.retrieve(&mut self.mat, 0);
                if self.usual.is_none() {
                    self.usual = decoded;
                }
                read.map_err(|e| read_error(&self.input, e))
            }
        }
    }

    /// Whether OpenCV converts frames of this format: it keeps to the format of the first frame that
    /// it read, and to the size in the stream's header.
    fn is_usual(&self, format: Format) -> bool {
        if let Some(usual) = self.usual {
            return usual == format;
        }
        let (width, height) = match self.rotation() {
            None | Some(core::ROTATE_180) => (self.info.width, self.info.height),
            Some(_) => (self.info.height, self.info.width),
        };
        (format.width as u32, format.height as u32) == (width, height)
    }

    /// Converts the current frame without OpenCV.
    fn convert(&mut self, format: Format) -> Result<(), SourceError> {
        let Format { width, height, .. } = format;
        let fail = |reason: String| SourceError::Read {
            input: self.input.clone(),
            reason: format!("frame {} is {width}x{height} pixels: {reason}", self.read),
        };
        let converter = match self.converter.take().filter(|c| c.format() == format) {
            Some(converter) => converter,
            None => {
                tracing::info!(
                    input = %self.input, frame = self.read, width, height,
                    "size or pixel format differs from the stream's header"
                );
                Converter::new(format)
                    .ok_or_else(|| fail("FFmpeg cannot convert this format".into()))?
            }
        };
        let picture = converter.convert().map_err(fail)?;
        self.mat = match self.rotation() {
            None => picture,
            Some(code) => {
                let mut turned = Mat::default();
                core::rotate(&picture, &mut turned, code)
                    .map_err(|e| read_error(&self.input, e))?;
                turned
            }
        };
        self.converter = Some(converter);
        Ok(())
    }

    /// The rotation that the stream asks for and OpenCV applies.
    fn rotation(&self) -> Option<i32> {
        if property(&self.capture, videoio::CAP_PROP_ORIENTATION_AUTO) == 0.0 {
            return None;
        }
        match property(&self.capture, videoio::CAP_PROP_ORIENTATION_META) as i32 {
            90 => Some(core::ROTATE_90_CLOCKWISE),
            180 => Some(core::ROTATE_180),
            270 => Some(core::ROTATE_90_COUNTERCLOCKWISE),
            _ => None,
        }
    }
}
