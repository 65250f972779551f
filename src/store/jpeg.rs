//! Encoding of crops as JPEG.

use crate::frame::Image;

/// Quality of the JPEGs, of 100.
#[cfg(feature = "video")]
const QUALITY: i32 = 85;

/// Encodes an image.
///
/// # Errors
/// A message, when OpenCV cannot encode it.
#[cfg(feature = "video")]
pub fn encode(image: &Image) -> Result<Vec<u8>, String> {
    use opencv::core::{Mat, MatTraitConst as _, Vector};
    use opencv::imgcodecs;
    let encode = || {
        let packed: Vec<u8> = (0..image.height as usize)
            .flat_map(|y| image.row(y).iter().copied())
            .collect();
        let flat = Mat::from_slice(&packed)?;
        let mat = flat.reshape(3, image.height as i32)?;
        let mut bytes = Vector::new();
        let quality = Vector::from_slice(&[imgcodecs::IMWRITE_JPEG_QUALITY, QUALITY]);
        imgcodecs::imencode(".jpg", &mat, &mut bytes, &quality)?;
        Ok(bytes.into())
    };
    encode().map_err(|e: opencv::Error| e.message)
}

/// Without OpenCV there is no encoder.
///
/// # Errors
/// Always.
#[cfg(not(feature = "video"))]
pub fn encode(_: &Image) -> Result<Vec<u8>, String> {
    Err("this program was built without the feature `video`".into())
}
