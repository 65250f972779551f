//! Reads data sets from disk. `docs/guide/train.md` describes the files of each kind.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::config::Config;
use crate::geometry::BBox;
use crate::mot_files;
use crate::source::{self, SourceOptions, image_folder};
use crate::train::association::LabelledFrame;
use crate::train::dataset::{Crop, Dataset, Protocol, cut, whole};
use crate::train::error::TrainError;
use crate::train::probe::atlas;
use crate::train::probe::footage::{self, BoxesByFrame, Footage};
use crate::train::visibility::{CROP_INTERVAL, MAX_COVERED, is_visible};
use crate::train::{from_video, scenes, synthetic};

/// A data set, given as KIND:WHERE; for sequences and videos optionally with a range of frames,
/// #FIRST-LAST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSpec {
    kind: DataKind,
    location: String,
    frames: (u64, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DataKind {
    Folders,
    Market,
    Msmt17,
    Viper,
    Mot,
    Video,
    Synthetic,
    Pictures,
    Figures,
}

const KINDS: [(&str, DataKind); 9] = [
    ("folders", DataKind::Folders),
    ("market", DataKind::Market),
    ("msmt17", DataKind::Msmt17),
    ("viper", DataKind::Viper),
    ("mot", DataKind::Mot),
    ("video", DataKind::Video),
    ("synthetic", DataKind::Synthetic),
    ("pictures", DataKind::Pictures),
    ("figures", DataKind::Figures),
];

impl fmt::Display for DataSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = KINDS
            .iter()
            .find(|(_, k)| *k == self.kind)
            .map_or("", |(name, _)| name);
        write!(f, "{kind}:{}", self.location)?;
        if self.frames == (1, u64::MAX) {
            Ok(())
        } else {
            write!(f, "#{}-{}", self.frames.0, self.frames.1)
        }
    }
}

impl FromStr for DataSpec {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{s}' is not KIND:WHERE; the kinds are {}",
                KINDS.map(|(n, _)| n).join(", ")
            )
        };
        let (kind, location) = s.split_once(':').ok_or_else(wrong)?;
        let kind = KINDS.iter().find(|(n, _)| *n == kind).ok_or_else(wrong)?.1;
        let (location, range) = location
            .rsplit_once('#')
            .map_or((location, None), |(p, r)| (p, Some(r)));
        let frames = match range.map(|r| {
            r.split_once('-')
                .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
        }) {
            None => (1, u64::MAX),
            Some(Some((a, b))) if 1 <= a && a <= b => (a, b),
            _ => {
                return Err(format!(
                    "'{s}': a range of frames is written #FIRST-LAST, for example #1-250"
                ));
            }
        };
        Ok(DataSpec {
            kind,
            location: location.to_string(),
            frames,
        })
    }
}

impl DataSpec {
    /// Reads the pictures with their identities.
    ///
    /// # Errors
    /// Fails when a file is missing or cannot be read, there is no picture of a person, or the kind
    /// has no identities.
    pub fn read(&self, seed: u64) -> Result<Dataset, TrainError> {
        let path = Path::new(&self.location);
        match self.kind {
            DataKind::Folders => folders(path),
            DataKind::Market => market(path),
            DataKind::Msmt17 => msmt17(path),
            DataKind::Viper => viper(path),
            DataKind::Mot => mot(path, self.frames),
            DataKind::Video => from_video::read(&self.location, self.frames),
            DataKind::Synthetic => {
                let count = self.location.parse().map_err(|_| {
                    TrainError::Setting(format!(
                        "synthetic:{} needs a number of people, for example synthetic:1000",
                        self.location
                    ))
                })?;
                synthetic::dataset(count, 8, seed)
            }
            DataKind::Pictures | DataKind::Figures => Err(TrainError::Setting(format!(
                "{}: these pictures have no identities; they can only be --probes of distil",
                self.location
            ))),
        }
    }

    /// Reads figures of people, which need no identities, in `size` (width, height).
    ///
    /// # Errors
    /// As [`DataSpec::read`].
    pub fn footage(&self, size: (usize, usize), seed: u64) -> Result<Footage, TrainError> {
        let path = Path::new(&self.location);
        match self.kind {
            DataKind::Mot => footage::of_video(
                &pixels_of_sequence(path)?,
                &boxes_of_sequence(path, self.frames)?,
                size,
            ),
            DataKind::Video => footage::of_video(
                &self.location,
                &from_video::boxes(&self.location, self.frames)?,
                size,
            ),
            DataKind::Figures => atlas::read(path, size),
            DataKind::Pictures => {
                let mut crops = Vec::new();
                for folder in std::iter::once(path.to_path_buf())
                    .chain(entries(path)?.into_iter().filter(|p| p.is_dir()))
                {
                    for file in pictures(&folder)? {
                        crops.push((0, picture(&file, 0, 0)?));
                    }
                }
                Ok(footage::of_pictures(
                    &Dataset::of(&self.location, crops, Protocol::All)?,
                    size,
                ))
            }
            _ => Ok(footage::of_pictures(&self.read(seed)?, size)),
        }
    }
}

/// The video or picture folder of a MOTChallenge sequence.
fn pixels_of_sequence(dir: &Path) -> Result<String, TrainError> {
    let info = mot_files::read_sequence(dir)?;
    let input = info
        .video
        .as_ref()
        .map_or_else(|| dir.to_path_buf(), |v| dir.join(v));
    Ok(input.to_string_lossy().into_owned())
}

/// Boxes of visible pedestrians in a sequence's ground truth, by frame.
fn boxes_of_sequence(dir: &Path, (first, last): (u64, u64)) -> Result<BoxesByFrame, TrainError> {
    let mut people = BoxesByFrame::new();
    for row in mot_files::read_rows(&dir.join("gt/gt.txt"))? {
        if (first..=last).contains(&row.frame)
            && row.confidence > 0.0
            && row.class == 1
            && row.visibility >= f64::from(1.0 - MAX_COVERED)
        {
            people.entry(row.frame).or_default().push(bbox(row.ltwh));
        }
    }
    for boxes in people.values_mut() {
        let all = boxes.clone();
        let mut i = 0;
        boxes.retain(|_| {
            i += 1;
            is_visible(&all, i - 1)
        });
    }
    Ok(people)
}

impl DataSpec {
    /// Reads labelled frames for the association head: sequences with public detections, videos, or
    /// simulated scenes.
    ///
    /// # Errors
    /// Fails when a file is missing or cannot be read, or the kind has no frames.
    pub fn scenes(
        &self,
        config: &Config,
        seed: u64,
    ) -> Result<Vec<Vec<LabelledFrame>>, TrainError> {
        match self.kind {
            DataKind::Mot => Ok(vec![scenes::sequence(
                Path::new(&self.location),
                self.frames,
            )?]),
            DataKind::Video => Ok(vec![scenes::video(&self.location, self.frames, config)?]),
            DataKind::Synthetic => {
                let count = self.location.parse().map_err(|_| {
                    TrainError::Setting(format!(
                        "synthetic:{} needs a number of scenes",
                        self.location
                    ))
                })?;
                scenes::simulated(count, config, seed)
            }
            _ => Err(TrainError::Setting(format!(
                "{}: single pictures do not show how people move; use mot, video or synthetic",
                self.location
            ))),
        }
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let fail = |source| TrainError::Read {
        path: dir.to_path_buf(),
        source,
    };
    let mut paths = fs::read_dir(dir)
        .map_err(fail)?
        .map(|e| e.map(|e| e.path()))
        .collect::<Result<Vec<_>, _>>()
        .map_err(fail)?;
    paths.sort();
    Ok(paths)
}

fn pictures(dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let ending = |p: &PathBuf| {
        p.extension().is_some_and(|e| {
            ["jpg", "jpeg", "png", "bmp"]
                .iter()
                .any(|k| e.eq_ignore_ascii_case(k))
        })
    };
    Ok(entries(dir)?.into_iter().filter(ending).collect())
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn picture(path: &Path, camera: u32, frame: u64) -> Result<Crop, TrainError> {
    Ok(whole(image_folder::read(path)?, camera, frame))
}

/// One folder per identity, with its pictures: people, signatures, faces, letters.
fn folders(dir: &Path) -> Result<Dataset, TrainError> {
    let mut crops = Vec::new();
    for folder in entries(dir)?.into_iter().filter(|p| p.is_dir()) {
        for path in pictures(&folder)? {
            crops.push((folder.clone(), picture(&path, 0, 0)?));
        }
    }
    Dataset::of(&dir.display().to_string(), crops, Protocol::All)
}

/// Parses identity, camera and frame of `0002_c1s1_000451_03.jpg` (Market-1501) or
/// `0002_c1_f0046182.jpg` (DukeMTMC-reID). Identities -1 and 0 are not people to compare
/// (distractors and junk).
fn market_name(name: &str) -> Option<(i64, u32, u64)> {
    let mut parts = name.split('_');
    let identity = parts.next()?.parse().ok()?;
    let camera: String = parts
        .next()?
        .strip_prefix('c')?
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let frame = parts.next()?.trim_start_matches('f').parse().ok()?;
    Some((identity, camera.parse().ok()?, frame))
}

fn market(dir: &Path) -> Result<Dataset, TrainError> {
    let mut crops = Vec::new();
    for path in pictures(dir)? {
        if let Some((identity, camera, frame)) = market_name(&stem(&path)).filter(|n| n.0 > 0) {
            crops.push((identity, picture(&path, camera, frame)?));
        }
    }
    Dataset::of(&dir.display().to_string(), crops, Protocol::CrossCamera)
}

/// A list file (`list_train.txt`) with lines `0000/0000_000_01_0303morning_0008_0.jpg 0`; the
/// pictures are in `train` or `test` beside it. The third number of a name is the camera.
fn msmt17(list: &Path) -> Result<Dataset, TrainError> {
    let text = fs::read_to_string(list).map_err(|source| TrainError::Read {
        path: list.to_path_buf(),
        source,
    })?;
    let beside = list.parent().unwrap_or(Path::new("."));
    let folder = if stem(list).contains("train") || stem(list).contains("val") {
        "train"
    } else {
        "test"
    };
    let mut crops = Vec::new();
    for (number, line) in text
        .lines()
        .enumerate()
        .filter(|(_, l)| !l.trim().is_empty())
    {
        let parsed = line.rsplit_once(' ').and_then(|(path, id)| {
            Some((
                path,
                id.trim().parse::<u32>().ok()?,
                path.rsplit('/').next()?.split('_').nth(2)?.parse().ok()?,
            ))
        });
        let (path, identity, camera) = parsed.ok_or_else(|| TrainError::Data {
            name: list.display().to_string(),
            problem: format!(
                "line {} is not 'folder/name_n_camera_….jpg identity'",
                number + 1
            ),
        })?;
        crops.push((
            identity,
            picture(&beside.join(folder).join(path), camera, 0)?,
        ));
    }
    Dataset::of(&list.display().to_string(), crops, Protocol::CrossCamera)
}

/// `cam_a` and `cam_b` with one picture of each person, named by identity and viewing angle:
/// `000_45.bmp`.
fn viper(dir: &Path) -> Result<Dataset, TrainError> {
    let mut crops = Vec::new();
    for (camera, folder) in ["cam_a", "cam_b"].into_iter().enumerate() {
        for path in pictures(&dir.join(folder))? {
            let identity = stem(&path)
                .split('_')
                .next()
                .unwrap_or_default()
                .to_string();
            crops.push((identity, picture(&path, camera as u32, 0)?));
        }
    }
    Dataset::of(&dir.display().to_string(), crops, Protocol::CrossCamera)
}

/// Minimum number of frames between two compared views, because nearer ones are almost identical.
const MIN_FRAMES_APART: u64 = 50;

/// A MOTChallenge sequence with ground truth: crops of every visible pedestrian in every fifth
/// frame. Visibility is judged by column nine, if given, and by the boxes of other people. A person
/// who leaves and comes back has a new identity in such data, so only people in the same frame are
/// certainly different.
fn mot(dir: &Path, frames: (u64, u64)) -> Result<Dataset, TrainError> {
    let rows = mot_files::read_rows(&dir.join("gt/gt.txt"))?;
    let mut source = source::open(&pixels_of_sequence(dir)?, &SourceOptions::default())?;
    let mut crops = Vec::new();
    let mut together = BTreeSet::new();
    while let Some(frame) = source.next_frame()? {
        if frame.number > frames.1 {
            break;
        }
        let Some(image) = frame.image.as_ref().filter(|_| {
            frame.number >= frames.0 && (frame.number - frames.0).is_multiple_of(CROP_INTERVAL)
        }) else {
            continue;
        };
        let people: Vec<_> = rows
            .iter()
            .filter(|r| r.frame == frame.number && r.confidence > 0.0 && r.class == 1)
            .collect();
        let boxes: Vec<BBox> = people.iter().map(|r| bbox(r.ltwh)).collect();
        together.extend(
            people
                .iter()
                .flat_map(|a| people.iter().filter(|b| a.id < b.id).map(|b| (a.id, b.id))),
        );
        for (i, row) in people
            .iter()
            .enumerate()
            .filter(|(i, r)| r.visibility >= f64::from(1.0 - MAX_COVERED) && is_visible(&boxes, *i))
        {
            crops.extend(cut(image, &boxes[i], 0, frame.number).map(|c| (row.id, c)));
        }
    }
    let ids: Vec<i64> = crops
        .iter()
        .map(|(id, _)| *id)
        .collect::<BTreeSet<_>>()
        .into_iter()
        .collect();
    let number = |id: i64| ids.binary_search(&id).ok();
    let apart = together
        .into_iter()
        .filter_map(|(a, b)| Some((number(a)?, number(b)?)))
        .collect();
    Ok(Dataset {
        apart: Some(apart),
        ..Dataset::of(
            &dir.display().to_string(),
            crops,
            Protocol::Apart(MIN_FRAMES_APART),
        )?
    })
}

fn bbox(ltwh: [f64; 4]) -> BBox {
    let [l, t, w, h] = ltwh.map(|v| v as f32);
    BBox::new(l, t, w, h)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn market_and_duke_names_are_parsed() {
        assert_eq!(market_name("0002_c1s1_000451_03"), Some((2, 1, 451)));
        assert_eq!(market_name("0005_c6_f0046182"), Some((5, 6, 46182)));
        assert_eq!(market_name("-1_c3s2_000001_00"), Some((-1, 3, 1)));
        assert_eq!(market_name("Thumbs"), None);
    }

    #[test]
    fn a_range_of_frames_is_parsed_and_formatted() {
        let spec: DataSpec = "video:a#b.mp4#1-250".parse().expect("a range");
        assert_eq!((spec.location.as_str(), spec.frames), ("a#b.mp4", (1, 250)));
        assert_eq!(spec.to_string(), "video:a#b.mp4#1-250");
        assert!(
            "video:a.mp4#250-1"
                .parse::<DataSpec>()
                .expect_err("backwards")
                .contains("#FIRST-LAST")
        );
        assert!(
            "cuhk:x"
                .parse::<DataSpec>()
                .expect_err("unknown")
                .contains("market")
        );
    }
}
