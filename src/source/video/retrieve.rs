//! The picture of a frame that was grabbed, in its own size.

use opencv::core::{self, Mat, MatTraitConst as _, Rect};
use opencv::videoio::{self, VideoCaptureTrait as _};

use super::decoded::{self, Converter, Format};
use super::{Video, image_of, property, read_error};
use crate::frame::Image;
use crate::source::error::SourceError;

impl Video {
    /// The picture of the current frame; `None` if it cannot be decoded.
    ///
    /// # Errors
    /// If it cannot be converted to BGR.
    pub(super) fn retrieve(&mut self) -> Result<Option<Image>, SourceError> {
        match decoded::format() {
            Some(format) if self.prepare(format)? => self.convert(format).map(Some),
            _ => self.retrieve_by_opencv(),
        }
    }

    /// OpenCV's picture, of the size in the stream's header. Reading it takes two more copies.
    fn retrieve_by_opencv(&mut self) -> Result<Option<Image>, SourceError> {
        let mut mat = Mat::default();
        if !self
            .capture
            .retrieve(&mut mat, 0)
            .map_err(|e| read_error(&self.input, e))?
        {
            return Ok(None);
        }
        image_of(&mat).map(Some).map_err(|reason| self.fail(reason))
    }

    /// Prepares the converter for this format. Returns `false` if FFmpeg cannot convert it and
    /// OpenCV can: a frame in the memory of a hardware decoder, of the size in the stream's header.
    ///
    /// # Errors
    /// If neither can.
    fn prepare(&mut self, format: Format) -> Result<bool, SourceError> {
        if self
            .converter
            .as_ref()
            .is_some_and(|c| c.format() == format)
        {
            return Ok(true);
        }
        let Format { width, height, .. } = format;
        if self.converter.is_some() || !self.is_usual(format) {
            tracing::info!(
                input = %self.input, frame = self.read, width, height,
                "size or pixel format differs from the stream's header"
            );
        }
        self.converter = Converter::new(format);
        if self.converter.is_none() && !self.is_usual(format) {
            return Err(self.fail(format!(
                "{width}x{height} pixels, not as in the stream's header, and FFmpeg cannot convert \
                 them; if they are decoded in hardware, set source.hardware = \"none\""
            )));
        }
        Ok(self.converter.is_some())
    }

    /// Whether a frame has the size in the stream's header, which OpenCV assumes for all frames.
    fn is_usual(&self, format: Format) -> bool {
        let (width, height) = match self.rotation() {
            None | Some(core::ROTATE_180) => (self.info.width, self.info.height),
            Some(_) => (self.info.height, self.info.width),
        };
        (format.width as u32, format.height as u32) == (width, height)
    }

    /// Converts the current frame without OpenCV.
    fn convert(&mut self, format: Format) -> Result<Image, SourceError> {
        let converter = self.converter.as_ref();
        let image = converter
            .ok_or_else(|| format!("no converter for {format:?}"))
            .and_then(|c| c.convert(&mut self.buffers))
            .map_err(|reason| self.fail(reason))?;
        match self.rotation() {
            None => Ok(image),
            Some(code) => rotated(&image, code)
                .map_err(|e| read_error(&self.input, e))
                .and_then(|mat| image_of(&mat).map_err(|reason| self.fail(reason))),
        }
    }

    fn fail(&self, reason: String) -> SourceError {
        SourceError::Read {
            input: self.input.clone(),
            reason: format!("frame {}: {reason}", self.read),
        }
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

/// The image turned by OpenCV's rotation `code`.
fn rotated(image: &Image, code: i32) -> Result<Mat, opencv::Error> {
    let rows = image.data.len() / image.stride;
    let bytes = Mat::from_slice(&image.data)?;
    let padded = bytes.reshape(3, rows as i32)?;
    let inner = Rect::new(0, 0, image.width as i32, image.height as i32);
    let mut turned = Mat::default();
    core::rotate(&Mat::roi(&padded, inner)?, &mut turned, code)?;
    Ok(turned)
}
