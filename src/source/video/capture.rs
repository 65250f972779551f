//! Opens OpenCV's captures with the decoder that the settings ask for.

use opencv::core::Vector;
use opencv::videoio::{self, VideoCapture, VideoCaptureTraitConst as _};

use super::{decoded, property};
use crate::source::source_config::{Hardware, SourceConfig};

/// Opens the file or address `name`; `more`: further parameters of OpenCV, keys followed by values.
/// `None` if FFmpeg cannot open it.
///
/// # Errors
/// If OpenCV fails.
pub(super) fn open(
    name: &str,
    config: SourceConfig,
    more: &[i32],
) -> Result<Option<VideoCapture>, opencv::Error> {
    let hardware = match config.hardware {
        Hardware::None => None,
        // OpenCV tries the decoders of OPENCV_FFMPEG_CAPTURE_OPTIONS in order, then the CPU.
        _ => Some([
            videoio::CAP_PROP_HW_ACCELERATION,
            videoio::VideoAccelerationType::VIDEO_ACCELERATION_ANY as i32,
        ]),
    };
    let hardware = hardware.into_iter().flatten();
    let parameters = Vector::from_iter(hardware.chain(more.iter().copied()));
    let capture = decoded::with_threads(config.decoder_threads(), || {
        VideoCapture::from_file_with_params(name, videoio::CAP_FFMPEG, &parameters)
    })?;
    Ok(capture.is_opened().unwrap_or(false).then_some(capture))
}

/// Logs which decoder was found, once for each input that is opened.
pub(super) fn log_decoder(capture: &VideoCapture, input: &str, hardware: Hardware) {
    if hardware == Hardware::None {
        return;
    }
    if property(capture, videoio::CAP_PROP_HW_ACCELERATION) > 0.0 {
        tracing::info!(%input, %hardware, "decoded in hardware");
    } else if hardware == Hardware::Auto {
        tracing::info!(%input, "no decoder in hardware; decoded on the CPU");
    } else {
        tracing::warn!(
            %input, %hardware,
            "no such decoder in hardware (source.hardware); decoded on the CPU"
        );
    }
}
