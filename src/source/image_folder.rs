//! A folder of pictures, or a MOTChallenge sequence folder (with `seqinfo.ini`, its pictures in `img1`).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::frame::{Frame, Image};
use crate::mot_format::SequenceInfo;
use crate::source::source::{Source, SourceError, SourceInfo, SourceOptions, check_size};
use crate::time::Seconds;

const ENDINGS: [&str; 6] = ["jpg", "jpeg", "png", "bmp", "webp", "tif"];

/// The pictures of a folder in the natural order of their names (2 before 10).
pub struct ImageFolder {
    info: SourceInfo,
    folder: PathBuf,
    /// One a frame; empty for a sequence without pictures.
    pictures: Vec<PathBuf>,
    /// Frames still to come: next number, last number.
    next: u64,
    last: u64,
    size: Option<(u32, u32)>,
    options: SourceOptions,
}

impl ImageFolder {
    /// Opens the folder.
    ///
    /// # Errors
    /// When it holds no pictures (and they are needed), or its `seqinfo.ini` is wrong.
    pub fn open(folder: &Path, options: &SourceOptions) -> Result<Self, SourceError> {
        let sequence = if folder.join("seqinfo.ini").is_file() { Some(SequenceInfo::read(folder)?) } else { None };
        let images = sequence.as_ref().map_or(folder.to_path_buf(), |s| folder.join(&s.image_dir));
        let mut pictures = list(&images);
        if pictures.is_empty() && !(options.pixels_optional && sequence.is_some()) {
            let reason = if sequence.is_some() { "; give --detections and --no-embed to track without pictures" } else { "" };
            return Err(SourceError::Open {
                input: images.display().to_string(),
                kind: "a folder of pictures",
                reason: format!("it holds none ({}){reason}", ENDINGS.join(", ")),
            });
        }
        let rate = sequence.as_ref().map(|s| s.frame_rate).or(options.frame_rate).unwrap_or(25.0);
        let total = match &sequence {
            Some(s) if options.pixels_optional => {
                if (pictures.len() as u64) < s.length {
                    pictures.clear(); // some or all are missing: go by the detections alone
                }
                s.length
            }
            _ => pictures.len() as u64,
        };
        let first = (options.start.0 * rate).ceil() as u64 + 1;
        let last = options.duration.map_or(total, |d| total.min(((options.start.0 + d.0) * rate - 1e-9).ceil() as u64));
        let name = sequence.as_ref().map(|s| s.name.clone()).or_else(|| folder.canonicalize().ok()?.file_name().map(|n| n.to_string_lossy().into_owned()));
        let camera: Arc<str> = options.camera.clone().or(name).unwrap_or_else(|| "pictures".into()).into();
        let (width, height) = sequence.as_ref().map_or((0, 0), |s| (s.width, s.height));
        let info = SourceInfo {
            camera,
            width,
            height,
            frame_rate: rate,
            frames: Some((last + 1).saturating_sub(first)),
            live: false,
            has_pixels: !pictures.is_empty(),
        };
        let size = sequence.map(|s| (s.width, s.height));
        Ok(ImageFolder { info, folder: folder.into(), pictures, next: first, last, size, options: options.clone() })
    }
}

impl Source for ImageFolder {
    fn info(&self) -> &SourceInfo {
        &self.info
    }

    fn next_frame(&mut self) -> Result<Option<Frame>, SourceError> {
        if self.next > self.last {
            return Ok(None);
        }
        let number = self.next;
        self.next += 1;
        let image = self.pictures.get(number as usize - 1).map(|p| read(p)).transpose()?;
        let (width, height) = image.as_ref().map(|i| (i.width, i.height)).or(self.size).unwrap_or_default();
        check_size(&self.folder.display().to_string(), number, width, height)?;
        let pts = Seconds((number - 1) as f64 / self.info.frame_rate);
        let time = self.options.wall_time(pts);
        Ok(Some(Frame { camera: self.info.camera.clone(), number, pts, time, width, height, image, restart: false }))
    }
}

/// The pictures of a folder in the natural order of their names; none when it cannot be read.
pub(crate) fn list(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|e| e.path());
    let mut pictures: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| ENDINGS.iter().any(|x| e.eq_ignore_ascii_case(x)))).collect();
    pictures.sort_by_cached_key(|p| natural_key(&p.file_name().unwrap_or_default().to_string_lossy()));
    pictures
}

/// Splits a name into texts and numbers, so that 2 comes before 10.
fn natural_key(name: &str) -> Vec<(String, u64)> {
    let mut key = vec![(String::new(), 0u64)];
    let mut in_number = false;
    for c in name.chars() {
        let end = key.last_mut().expect("the key never is empty");
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

#[cfg(feature = "video")]
pub(crate) fn read(path: &Path) -> Result<Image, SourceError> {
    use opencv::imgcodecs;
    let fail = |reason: String| SourceError::Picture { path: path.into(), reason };
    let name = path.to_str().ok_or_else(|| fail("its name is not UTF-8".into()))?;
    let mat = imgcodecs::imread(name, imgcodecs::IMREAD_COLOR).map_err(|e| fail(e.message))?;
    crate::source::video::image_of(&mat).map_err(fail)
}

#[cfg(not(feature = "video"))]
pub(crate) fn read(path: &Path) -> Result<Image, SourceError> {
    Err(SourceError::NoVideo { input: path.display().to_string() })
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

    #[test]
    fn a_sequence_without_pictures_goes_by_its_description() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("seqinfo.ini"), "[Sequence]\nname=S\nframeRate=10\nseqLength=30\nimWidth=640\nimHeight=480\n").expect("written");
        let options = SourceOptions { pixels_optional: true, start: Seconds(1.0), duration: Some(Seconds(0.5)), ..Default::default() };
        let mut s = ImageFolder::open(dir.path(), &options).expect("opens");
        let frames: Vec<Frame> = std::iter::from_fn(|| s.next_frame().expect("readable")).collect();
        assert_eq!(frames.iter().map(|f| f.number).collect::<Vec<_>>(), [11, 12, 13, 14, 15]);
        assert_eq!((frames[0].pts, frames[0].width, frames[0].height), (Seconds(1.0), 640, 480));
        assert!(ImageFolder::open(dir.path(), &SourceOptions::default()).is_err(), "pictures are needed here");
    }
}
