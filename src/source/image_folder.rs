//! A folder of pictures, or a MOTChallenge sequence folder (with `seqinfo.ini`, its pictures in
//! `img1`).

use std::collections::BTreeMap;
use std::fs::FileType;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::frame::{Frame, Image};
use crate::mot_files;
use crate::mot_format::Known;
use crate::source::error::{SourceError, check_size};
use crate::source::source::{Source, SourceInfo, SourceOptions};
use crate::source::timeline::Breaks;
use crate::time::Seconds;

const EXTENSIONS: [&str; 11] = [
    "jpg", "jpeg", "png", "bmp", "webp", "tif", "tiff", "ppm", "pgm", "pnm", "jp2",
];

/// The pictures of a folder, one per frame. A picture that is missing or cannot be read is dropped
/// and counted, like a damaged frame of a video.
pub struct ImageFolder {
    info: SourceInfo,
    folder: PathBuf,
    /// Pictures by frame number; empty for a sequence without pictures.
    pictures: BTreeMap<u64, PathBuf>,
    /// Number of the next frame.
    next: u64,
    /// Number of the last frame.
    last: u64,
    /// Size in pixels of frames without pictures.
    size: (u32, u32),
    breaks: Breaks,
    /// Whether a frame was returned.
    began: bool,
    /// The first failure, as long as no picture could be read.
    failure: Option<SourceError>,
    options: SourceOptions,
}

/// Frame rate of folders that do not state one.
const DEFAULT_RATE: f64 = 25.0;

impl ImageFolder {
    /// Opens the folder.
    ///
    /// # Errors
    /// If it contains no pictures but needs them, or `seqinfo.ini` is wrong.
    pub fn open(folder: &Path, options: &SourceOptions) -> Result<Self, SourceError> {
        let sequence = mot_files::find_sequence(
            folder,
            Known {
                frame_rate: options.frame_rate,
                size: options.frame_size,
            },
        )?;
        let images = sequence
            .as_ref()
            .map_or(folder.to_path_buf(), |s| folder.join(&s.image_dir));
        let files = list(&images);
        if files.is_empty() && !(options.pixels_optional && sequence.is_some()) {
            let reason = if sequence.is_some() {
                "; use --detections and --no-embed to track without pictures"
            } else {
                ""
            };
            return Err(SourceError::Open {
                input: images.display().to_string(),
                kind: "a folder of pictures",
                reason: format!("it contains none ({}){reason}", EXTENSIONS.join(", ")),
            });
        }
        let mut pictures = match &sequence {
            Some(s) => by_number(files, s.length),
            None => in_order(files),
        };
        let mut total = pictures.keys().next_back().copied().unwrap_or_default();
        if let Some(s) = &sequence {
            if total > s.length {
                let (beyond, length) = (pictures.range(s.length + 1..).count(), s.length);
                tracing::warn!(
                    sequence = %folder.display(), beyond, length,
                    "pictures are numbered beyond the sequence's length; check seqLength in \
                     seqinfo.ini"
                );
            }
            total = total.max(s.length);
            if options.pixels_optional && (1..=s.length).any(|n| !pictures.contains_key(&n)) {
                pictures.clear(); // frames come from the detections alone
                total = s.length;
            }
        }
        let stated = sequence.as_ref().map(|s| s.frame_rate);
        let stated = stated.filter(|r| *r > 0.0).or(options.frame_rate);
        let rate = stated.unwrap_or_else(|| {
            tracing::warn!(
                input = %folder.display(),
                "the frame rate is unknown: {DEFAULT_RATE} frames per second are assumed; set \
                 --frame-rate"
            );
            DEFAULT_RATE
        });
        let first = (options.start.0 * rate).ceil() as u64 + 1;
        let last = options.duration.map_or(total, |d| {
            total.min(((options.start.0 + d.0) * rate - 1e-9).ceil() as u64)
        });
        let name = sequence.as_ref().map(|s| s.name.clone()).or_else(|| {
            folder
                .canonicalize()
                .ok()?
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
        });
        let camera: Arc<str> = options
            .camera
            .clone()
            .or(name)
            .unwrap_or_else(|| "pictures".into())
            .into();
        let size = sequence.as_ref().map_or((0, 0), |s| (s.width, s.height));
        let info = SourceInfo {
            camera,
            width: size.0,
            height: size.1,
            frame_rate: rate,
            frames: Some((last + 1).saturating_sub(first)),
            live: false,
            has_pixels: !pictures.is_empty(),
        };
        let (breaks, options) = (Breaks::default(), options.clone());
        Ok(ImageFolder {
            info,
            folder: folder.into(),
            pictures,
            next: first,
            last,
            size,
            breaks,
            began: false,
            failure: None,
            options,
        })
    }

    /// The picture of frame `number`. `None` if it is missing or cannot be read, which is counted.
    fn picture(&mut self, number: u64) -> Option<Image> {
        let read = match self.pictures.get(&number) {
            Some(path) => read(path),
            None => Err(SourceError::Picture {
                path: self.folder.clone(),
                reason: format!("there is no picture of frame {number}"),
            }),
        };
        match read {
            Ok(image) => Some(image),
            Err(e) => {
                tracing::warn!(error = %e, "the frame is skipped");
                self.options.link.count_damaged(1);
                if !self.began {
                    self.failure.get_or_insert(e);
                }
                None
            }
        }
    }
}

/// Numbers pictures by their order.
fn in_order(files: Vec<PathBuf>) -> BTreeMap<u64, PathBuf> {
    (1..).zip(files).collect()
}

/// Numbers a sequence's pictures by the last number in their names, so that a missing picture does
/// not shift the others; numbers from 0 are shifted to begin at 1. Numbers the pictures by their
/// order if a name has no number, if two names have the same number, or if all numbers exceed the
/// sequence's length.
fn by_number(files: Vec<PathBuf>, length: u64) -> BTreeMap<u64, PathBuf> {
    let number = |p: &PathBuf| {
        let stem = p.file_stem()?.to_string_lossy().into_owned();
        let end = stem.trim_end_matches(|c: char| !c.is_ascii_digit());
        end[end.trim_end_matches(|c: char| c.is_ascii_digit()).len()..]
            .parse::<u64>()
            .ok()
            .filter(|n| *n < u64::MAX)
    };
    let Some(numbers) = files.iter().map(number).collect::<Option<Vec<u64>>>() else {
        return in_order(files);
    };
    let shift = u64::from(numbers.contains(&0));
    let named: BTreeMap<u64, PathBuf> = numbers
        .iter()
        .map(|n| n + shift)
        .zip(files.iter().cloned())
        .collect();
    let are_frames =
        named.len() == files.len() && named.keys().next().is_some_and(|first| *first <= length);
    if are_frames { named } else { in_order(files) }
}

impl Source for ImageFolder {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        while self.next <= self.last && !self.options.link.stopped() {
            self.options.link.mark_active();
            let number = self.next;
            self.next += 1;
            let image = if self.info.has_pixels {
                let Some(image) = self.picture(number) else {
                    continue;
                };
                Some(image)
            } else {
                None
            };
            let size = image.as_ref().map_or(self.size, |i| (i.width, i.height));
            let (width, height) = size;
            check_size(&self.folder.display().to_string(), number, width, height)?;
            let pts = Seconds((number - 1) as f64 / self.info.frame_rate);
            self.began = true;
            let restart = self.breaks.before(pts, size);
            let time = self.options.wall_time(pts);
            return Ok(Some(Frame {
                camera: self.info.camera.clone(),
                number,
                pts,
                time,
                width,
                height,
                image,
                restart,
            }));
        }
        // If no picture could be read, the first failure is the error.
        self.failure
            .take()
            .filter(|_| !self.began)
            .map_or(Ok(None), Err)
    }
}

/// The pictures of a folder in natural order of their names; empty if it cannot be read. Folders,
/// pipes and devices with the name of a picture are reported and left out: reading a pipe blocks.
pub(crate) fn list(folder: &Path) -> Vec<PathBuf> {
    // macOS writes a hidden file `._000001.jpg` beside a picture; it is not a picture.
    let hidden = |p: &Path| {
        p.file_name()
            .is_some_and(|n| n.as_encoded_bytes().starts_with(b"."))
    };
    let is_picture = |p: &Path| {
        p.extension()
            .is_some_and(|e| EXTENSIONS.iter().any(|x| e.eq_ignore_ascii_case(x)))
    };
    let mut pictures = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !is_picture(&path) || hidden(&path) {
            continue;
        }
        match check_regular(&path, entry.file_type().ok()) {
            Ok(()) => pictures.push(path),
            Err(reason) => tracing::warn!(file = %path.display(), "left out: {reason}"),
        }
    }
    pictures
        .sort_by_cached_key(|p| natural_key(&p.file_name().unwrap_or_default().to_string_lossy()));
    pictures
}

/// Rejects a path that exists and is not a regular file. `kind` is the type of the path itself, if
/// known; links are followed. A path that leads to nothing passes: reading it fails at once.
///
/// # Errors
/// What it is instead.
pub(crate) fn check_regular(path: &Path, kind: Option<FileType>) -> Result<(), &'static str> {
    let kind = kind
        .filter(|k| !k.is_symlink())
        .or_else(|| Some(path.metadata().ok()?.file_type()));
    match kind {
        Some(k) if k.is_dir() => Err("it is a folder, not a picture"),
        Some(k) if !k.is_file() => Err("it is a pipe or a device, not a file"),
        _ => Ok(()),
    }
}

/// The pictures of the `folders` and of the folders in them, such as `img1` of a sequence or the
/// folder of a person in a gallery.
pub fn pictures_below<'a>(folders: impl IntoIterator<Item = &'a PathBuf>) -> Vec<PathBuf> {
    let below = |folder: &PathBuf| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let inner = entries.map(|e| e.path()).filter(|p| p.is_dir());
        inner.chain([folder.clone()]).collect::<Vec<_>>()
    };
    let folders = folders.into_iter().flat_map(below);
    folders.flat_map(|folder| list(&folder)).collect()
}

/// Splits a name into text and numbers, so that 2 sorts before 10.
fn natural_key(name: &str) -> Vec<(String, u64)> {
    let mut key = vec![(String::new(), 0u64)];
    let mut in_number = false;
    for c in name.chars() {
        let end = key.last_mut().expect("the key is never empty");
        match c.to_digit(10) {
            Some(d) => {
                end.1 = end.1.saturating_mul(10).saturating_add(u64::from(d));
                in_number = true;
            }
            None if in_number => {
                key.push((c.to_string(), 0));
                in_number = false;
            }
            None => end.0.push(c),
        }
    }
    key
}

/// Reads a picture.
///
/// # Errors
/// If the picture cannot be read or decoded.
#[cfg(feature = "video")]
pub fn read(path: &Path) -> Result<Image, SourceError> {
    use opencv::imgcodecs;
    let fail = |reason: String| SourceError::Picture {
        path: path.into(),
        reason,
    };
    let name = path
        .to_str()
        .ok_or_else(|| fail("its name is not UTF-8".into()))?;
    check_regular(path, None).map_err(|reason| fail(reason.into()))?;
    let mat = imgcodecs::imread(name, imgcodecs::IMREAD_COLOR)
        .map_err(|e| fail(undecodable(&e.message)))?;
    crate::source::video::image_of(&mat).map_err(fail)
}

/// Maximum number of pixels of a picture that a client sends: about 150 MB when decoded.
#[cfg(feature = "serve")]
const MAX_PIXELS: usize = 50_000_000;

/// Decodes a picture in memory. Its size is read before it is decoded, because a small file can
/// hold a huge picture.
///
/// # Errors
/// The reason why it cannot be decoded.
#[cfg(feature = "serve")]
pub fn decode(picture: &[u8]) -> Result<Image, String> {
    use opencv::{core::Mat, imgcodecs};
    let size = imagesize::blob_size(picture).map_err(|_| "it is not a picture".to_string())?;
    if size.width.saturating_mul(size.height) > MAX_PIXELS {
        let (width, height) = (size.width, size.height);
        return Err(format!(
            "it has {width}x{height} pixels; at most {MAX_PIXELS} are decoded"
        ));
    }
    let bytes = Mat::from_slice(picture).map_err(|e| e.message)?;
    let mat = imgcodecs::imdecode(&bytes, imgcodecs::IMREAD_COLOR)
        .map_err(|e| undecodable(&e.message))?;
    crate::source::video::image_of(&mat)
}

/// Why the picture cannot be decoded, from OpenCV's exception `message`.
#[cfg(feature = "video")]
fn undecodable(message: &str) -> String {
    if message.contains("CV_IO_MAX_IMAGE") {
        "it is too large; OpenCV reads up to 1048576 pixels a side and 2^30 in all".into()
    } else {
        format!("OpenCV cannot decode it ({})", message.trim())
    }
}

/// Fails: this build cannot decode pictures.
///
/// # Errors
/// [`SourceError::NoVideo`].
#[cfg(not(feature = "video"))]
pub fn read(path: &Path) -> Result<Image, SourceError> {
    Err(SourceError::NoVideo {
        input: path.display().to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_their_numbers() {
        let mut names = ["img10.jpg", "img2.jpg", "img1.jpg", "a3.png"];
        names.sort_by_key(|n| natural_key(n));
        assert_eq!(names, ["a3.png", "img1.jpg", "img2.jpg", "img10.jpg"]);
    }

    fn numbers(names: &[&str], length: u64) -> Vec<(u64, String)> {
        let named = by_number(names.iter().map(PathBuf::from).collect(), length);
        named
            .into_iter()
            .map(|(n, p)| (n, p.display().to_string()))
            .collect()
    }

    #[test]
    fn pictures_of_a_sequence_are_numbered_by_their_names() {
        let of = |names: &[&str]| {
            numbers(names, 9)
                .into_iter()
                .map(|(n, _)| n)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&["000001.jpg", "000002.jpg", "000004.jpg"]), [1, 2, 4]);
        assert_eq!(
            of(&["frame_000000.PNG", "frame_000003.PNG"]),
            [1, 4],
            "numbers from 0"
        );
        assert_eq!(of(&["a1_left.jpg", "a3_left.jpg"]), [1, 3]);
        assert_eq!(of(&["x.jpg", "y2.jpg"]), [1, 2], "no number");
        assert_eq!(
            of(&["2026-11-26 10-05-00.jpg", "2026-11-26 10-06-00.jpg"]),
            [1, 2],
            "a repeated number"
        );
        assert_eq!(
            of(&["20261126100500.jpg", "20261126100600.jpg"]),
            [1, 2],
            "times, not numbers of frames"
        );
    }

    #[test]
    fn hidden_files_are_skipped_and_all_usual_extensions_are_accepted() {
        let dir = tempfile::tempdir().expect("a folder");
        for name in [
            "._1.jpg", ".2.png", "3.TIFF", "4.ppm", "5.pgm", "6.jpeg", "7.txt", "8.tif",
        ] {
            std::fs::write(dir.path().join(name), "x").expect("written");
        }
        let names: Vec<String> = list(dir.path())
            .iter()
            .map(|p| {
                p.file_name()
                    .expect("a name")
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        assert_eq!(names, ["3.TIFF", "4.ppm", "5.pgm", "6.jpeg", "8.tif"]);
    }

    #[test]
    fn a_sequence_without_pictures_uses_seqinfo_ini() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(
            dir.path().join("seqinfo.ini"),
            "[Sequence]\nname=S\nframeRate=10\nseqLength=30\nimWidth=640\nimHeight=480\n",
        )
        .expect("written");
        let options = SourceOptions {
            pixels_optional: true,
            start: Seconds(1.0),
            duration: Some(Seconds(0.5)),
            ..Default::default()
        };
        let mut s = ImageFolder::open(dir.path(), &options).expect("opens");
        let frames: Vec<Frame> = std::iter::from_fn(|| s.next_frame().expect("readable")).collect();
        assert_eq!(
            frames.iter().map(|f| f.number).collect::<Vec<_>>(),
            [11, 12, 13, 14, 15]
        );
        assert_eq!(
            (frames[0].pts, frames[0].width, frames[0].height),
            (Seconds(1.0), 640, 480)
        );
        assert!(
            ImageFolder::open(dir.path(), &SourceOptions::default()).is_err(),
            "pictures are required"
        );
    }
}
