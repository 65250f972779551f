//! Seeks into a recording whose container has an index of frame times (MP4, MOV), so that frames
//! keep their numbers. In other files the frames before the start are decoded and skipped.

use std::fs::File;
use std::io::{Cursor, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use mp4parse::{TimeOffsetVersion, TrackType};
use opencv::videoio::{self, VideoCapture, VideoCaptureTrait as _, VideoCaptureTraitConst as _};

use crate::time::Seconds;

/// If fewer frames than this precede the target, they are decoded and skipped instead of seeking.
const WORTH: usize = 100;
/// Seconds before the target to which FFmpeg seeks: it uses an average rate and must not land
/// beyond the target.
const MARGINS: [f64; 3] = [1.0, 10.0, 60.0];
/// Tolerance in seconds between a frame's time and the index.
const SAME: f64 = 0.0006;
/// Maximum size of the index in bytes.
const LARGEST: u64 = 256 << 20;
/// Maximum number of frames in the index.
const LONGEST: u64 = 20_000_000;

/// A capture positioned within a recording.
pub(super) struct Landing {
    pub capture: VideoCapture,
    /// Number of frames before the next one.
    pub read: u64,
    /// The time reported for the file's first frame.
    pub first: Seconds,
}

/// Opens the file shortly before the target: the first frame that is at least `start` later than
/// the file's first frame. `capture` opens it. `None` if the position would not be certain, or
/// seeking is not worth it.
pub(super) fn open(
    path: &str,
    start: Seconds,
    capture: impl FnOnce() -> Option<VideoCapture>,
) -> Option<Landing> {
    let times = index(Path::new(path))?;
    let target = times.partition_point(|t| *t < start.0 - 1e-6);
    if target < WORTH {
        return None;
    }
    let mut capture = capture()?;
    let time = |capture: &mut VideoCapture| {
        let grabbed = capture.grab().ok()?;
        // Some files report a slightly negative time for their first frame.
        grabbed.then(|| {
            capture
                .get(videoio::CAP_PROP_POS_MSEC)
                .unwrap_or(0.0)
                .max(0.0)
                / 1000.0
        })
    };
    let first = time(&mut capture)?;
    for margin in MARGINS {
        let aim = times[target.min(times.len() - 1)] - margin;
        if aim <= 0.0 {
            break;
        }
        capture.set(videoio::CAP_PROP_POS_MSEC, 1000.0 * aim).ok()?;
        let landed = time(&mut capture)? - first;
        let at = times.partition_point(|t| *t < landed - SAME);
        let known = times.get(at).is_some_and(|t| (t - landed).abs() < SAME);
        // OpenCV stops when its own count, estimated by the average rate, reaches the number of
        // frames: the estimate must not be ahead.
        let counted = capture
            .get(videoio::CAP_PROP_POS_FRAMES)
            .unwrap_or(f64::MAX);
        if known && at < target && counted <= (at + 1) as f64 {
            tracing::debug!(
                path,
                frame = at + 1,
                seconds = landed,
                "seek within the file"
            );
            return Some(Landing {
                capture,
                read: at as u64 + 1,
                first: Seconds(first),
            });
        }
    }
    None
}

/// The presentation times of all frames of a file, seconds since its first frame, ascending. `None`
/// if there is no complete index.
fn index(path: &Path) -> Option<Vec<f64>> {
    let moov = movie_box(path)?;
    let context = mp4parse::read_mp4(&mut Cursor::new(moov)).ok()?;
    let mut videos = context
        .tracks
        .iter()
        .filter(|t| t.track_type == TrackType::Video);
    let (Some(track), None) = (videos.next(), videos.next()) else {
        return None;
    };
    let (scale, durations) = (
        track.timescale.as_ref()?.0 as f64,
        &track.stts.as_ref()?.samples,
    );
    let count: u64 = durations.iter().map(|s| u64::from(s.sample_count)).sum();
    if count > LONGEST || scale < 1.0 {
        return None;
    }
    let steps = durations
        .iter()
        .flat_map(|s| std::iter::repeat_n(i64::from(s.sample_delta), s.sample_count as usize));
    let mut times: Vec<i64> = steps
        .scan(0, |next, step| Some(std::mem::replace(next, *next + step)))
        .collect();
    if let Some(offsets) = &track.ctts {
        let offset = |o: TimeOffsetVersion| match o {
            TimeOffsetVersion::Version0(v) => i64::from(v),
            TimeOffsetVersion::Version1(v) => i64::from(v),
        };
        let offsets = offsets
            .samples
            .iter()
            .flat_map(|s| std::iter::repeat_n(offset(s.time_offset), s.sample_count as usize));
        times
            .iter_mut()
            .zip(offsets)
            .for_each(|(time, offset)| *time += offset);
    }
    times.sort_unstable();
    let first = *times.first()?;
    // An edit list that begins later hides frames; two frames at one time cannot be distinguished.
    let trimmed = track
        .media_time
        .as_ref()
        .is_some_and(|t| t.0 as i64 > first);
    let doubled = times.windows(2).any(|w| w[0] == w[1]);
    (!trimmed && !doubled).then(|| {
        times
            .into_iter()
            .map(|t| (t - first) as f64 / scale)
            .collect()
    })
}

/// The box of ISO/IEC 14496-12 that holds the index, found without reading the pictures. `None` for
/// fragmented files, whose index is scattered, and for other containers.
fn movie_box(path: &Path) -> Option<Vec<u8>> {
    let mut file = File::open(path).ok()?;
    let (mut at, mut moov, length) = (0, None, file.metadata().ok()?.len());
    while at < length {
        let mut head = [0; 16];
        file.seek(SeekFrom::Start(at)).ok()?;
        let read = file.by_ref().take(16).read(&mut head).ok()?;
        let short = u64::from(u32::from_be_bytes(head[..4].try_into().ok()?));
        let size = match short {
            0 => length - at,
            1 => u64::from_be_bytes(head[8..].try_into().ok()?),
            size => size,
        };
        if read < 8 || size < 8 || size > length - at || (at == 0 && &head[4..8] != b"ftyp") {
            return None;
        }
        match &head[4..8] {
            b"moof" => return None,
            b"moov" => moov = Some((at, size)),
            _ => {}
        }
        at += size;
    }
    let (at, size) = moov.filter(|(_, size)| *size <= LARGEST)?;
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(at)).ok()?;
    file.take(size).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 == size).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::frame::Image;
    use crate::source::source::{Source as _, SourceOptions};
    use crate::source::video::Video;

    /// Number, time and pixel sum of frames.
    type Seen = Vec<(u64, f64, u64)>;

    fn frames(path: &str, start: f64, most: usize) -> Seen {
        let mut video = Video::open_file(
            Path::new(path),
            &SourceOptions {
                start: Seconds(start),
                ..SourceOptions::default()
            },
        )
        .expect("a video");
        let next = || video.next_frame().expect("readable");
        let sum = |image: Image| {
            let rows = (0..image.height as usize).flat_map(|y| image.row(y));
            rows.zip(1u64..).map(|(b, i)| u64::from(*b) * i).sum()
        };
        std::iter::from_fn(next)
            .take(most)
            .map(|f| (f.number, f.pts.0, sum(f.image.expect("pixels"))))
            .collect()
    }

    /// 40 s of video at 25 frames per second with B-frames; `more`: further options of ffmpeg.
    fn video(dir: &Path, name: &str, more: &[&str]) -> Option<String> {
        let path = dir.join(name).to_str().expect("UTF-8").to_string();
        let picture = [
            "-v",
            "error",
            "-f",
            "lavfi",
            "-i",
            "testsrc2=size=96x64:rate=25",
            "-t",
            "40",
            "-pix_fmt",
            "yuv420p",
            "-g",
            "100",
            "-bf",
            "2",
        ];
        match Command::new("ffmpeg")
            .args(picture)
            .args(more)
            .arg(&path)
            .status()
        {
            Ok(status) if status.success() => Some(path),
            other => {
                eprintln!("SKIPPED: no ffmpeg here that makes {name} ({other:?})");
                None
            }
        }
    }

    /// Regression: `--start 7200` decoded two hours of video.
    #[test]
    fn seeking_finds_the_right_frame_by_number_time_and_pixels() {
        let dir = tempfile::tempdir().expect("a folder");
        // For a while, every third frame only: a frame's number does not follow from its time.
        let sparse_first = [
            "-vf",
            "select='if(lt(n,600),not(mod(n,3)),1)'",
            "-vsync",
            "vfr",
        ];
        let sparse_last = [
            "-vf",
            "select='if(lt(n,500),1,not(mod(n,3)))'",
            "-vsync",
            "vfr",
        ];
        let index_first = ["-movflags", "+faststart"];
        let kinds = [
            ("even.mp4", &[][..]),
            ("index-first.mp4", &index_first[..]),
            ("sparse-first.mp4", &sparse_first[..]),
            ("sparse-last.mp4", &sparse_last[..]),
            ("quick.mov", &[][..]),
            ("other.mkv", &[][..]),
        ];
        for (name, more) in kinds {
            let Some(path) = video(dir.path(), name, more) else {
                continue;
            };
            let capture = || VideoCapture::from_file(&path, videoio::CAP_FFMPEG).ok();
            let mut sought = 0;
            let all = frames(&path, 0.0, usize::MAX);
            for start in [6.0, 19.97, 31.234, 39.9] {
                let want: Seen = all
                    .iter()
                    .filter(|f| f.1 - all[0].1 >= start - 1e-9)
                    .take(3)
                    .copied()
                    .collect();
                assert_eq!(frames(&path, start, 3), want, "{name} from {start} s");
                sought += usize::from(open(&path, Seconds(start), capture).is_some());
            }
            assert!(frames(&path, 41.0, 3).is_empty(), "{name} is 40 s long");
            assert!(
                open(&path, Seconds(1.0), capture).is_none(),
                "{name}: too few frames to seek"
            );
            match name {
                "other.mkv" => assert_eq!(sought, 0, "an index of MP4 in {name}"),
                // OpenCV's count would be ahead and end too early, so frames are decoded instead.
                "sparse-first.mp4" | "sparse-last.mp4" => {}
                _ => assert_eq!(sought, 4, "{name}: number of seeks"),
            }
        }
    }

    #[test]
    fn files_without_an_index_are_read_from_the_beginning() {
        let dir = tempfile::tempdir().expect("a folder");
        let (clip, cut) = (
            concat!(env!("CARGO_MANIFEST_DIR"), "/samples/pets2009-s2l1.mp4"),
            dir.path().join("cut.mp4"),
        );
        let bytes = std::fs::read(clip).expect("the clip");
        assert_eq!(index(Path::new(clip)).map(|i| i.len()), Some(400));
        for length in [0, 7, 20, 1000, bytes.len() / 2, bytes.len() - 1] {
            std::fs::write(&cut, &bytes[..length]).expect("written");
            assert!(index(&cut).is_none(), "{length} bytes");
        }
        std::fs::write(&cut, b"\0\0\0\x08ftyp\0\0\0\0moov").expect("written");
        assert!(index(&cut).is_none());
    }
}
