//! Data sets from disk. `docs/training.md` shows the layout of each kind.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::config::Config;
use crate::geometry::BBox;
use crate::mot_format::{self, SequenceInfo};
use crate::source::{self, SourceOptions, image_folder};
use crate::train::association::Labelled;
use crate::train::dataset::{Crop, Dataset, Protocol, TrainError, cut, whole};
use crate::train::probe::atlas;
use crate::train::probe::footage::{self, Boxes, Footage};
use crate::train::{from_video, scenes, synthetic};

/// What kind of data and where: KIND:WHERE, and for sequences and videos #FIRST-LAST for a range of frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataSpec {
    kind: Kind,
    place: String,
    frames: (u64, u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
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

const KINDS: [(&str, Kind); 9] = [
    ("folders", Kind::Folders),
    ("market", Kind::Market),
    ("msmt17", Kind::Msmt17),
    ("viper", Kind::Viper),
    ("mot", Kind::Mot),
    ("video", Kind::Video),
    ("synthetic", Kind::Synthetic),
    ("pictures", Kind::Pictures),
    ("figures", Kind::Figures),
];

impl fmt::Display for DataSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = KINDS
            .iter()
            .find(|(_, k)| *k == self.kind)
            .map_or("", |(name, _)| name);
        write!(f, "{kind}:{}", self.place)?;
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
                "'{s}' is not KIND:WHERE with a kind of {}",
                KINDS.map(|(n, _)| n).join(", ")
            )
        };
        let (kind, place) = s.split_once(':').ok_or_else(wrong)?;
        let kind = KINDS.iter().find(|(n, _)| *n == kind).ok_or_else(wrong)?.1;
        let (place, range) = place
            .rsplit_once('#')
            .map_or((place, None), |(p, r)| (p, Some(r)));
        let frames = match range.map(|r| {
            r.split_once('-')
                .and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)))
        }) {
            None => (1, u64::MAX),
            Some(Some((a, b))) if 1 <= a && a <= b => (a, b),
            _ => {
                return Err(format!(
                    "'{s}': a range of frames is written #FIRST-LAST, as in #1-250"
                ));
            }
        };
        Ok(DataSpec {
            kind,
            place: place.to_string(),
            frames,
        })
    }
}

impl DataSpec {
    /// Reads the pictures.
    ///
    /// # Errors
    /// When something is missing or unreadable, or there is no picture of a person.
    pub fn read(&self, seed: u64) -> Result<Dataset, TrainError> {
        let path = Path::new(&self.place);
        match self.kind {
            Kind::Folders => folders(path),
            Kind::Market => market(path),
            Kind::Msmt17 => msmt17(path),
            Kind::Viper => viper(path),
            Kind::Mot => mot(path, self.frames),
            Kind::Video => from_video::read(&self.place, self.frames),
            Kind::Synthetic => {
                let count = self.place.parse().map_err(|_| {
                    TrainError::Setting(format!(
                        "synthetic:{} needs a number of people, as in synthetic:1000",
                        self.place
                    ))
                })?;
                synthetic::dataset(count, 8, seed)
            }
            Kind::Pictures | Kind::Figures => Err(TrainError::Setting(format!(
                "{}: nobody says who is in these pictures; they are for --probes of distil only",
                self.place
            ))),
        }
    }

    /// Reads people to make probes of, each `size` (width, height): nobody has to know who they are.
    ///
    /// # Errors
    /// As [`DataSpec::read`].
    pub fn footage(&self, size: (usize, usize), seed: u64) -> Result<Footage, TrainError> {
        let path = Path::new(&self.place);
        match self.kind {
            Kind::Mot => footage::of_video(
                &pixels_of_sequence(path)?,
                &boxes_of_sequence(path, self.frames)?,
                size,
            ),
            Kind::Video => footage::of_video(
                &self.place,
                &from_video::boxes(&self.place, self.frames)?,
                size,
            ),
            Kind::Figures => atlas::read(path, size),
            Kind::Pictures => {
                let mut crops = Vec::new();
                for folder in std::iter::once(path.to_path_buf())
                    .chain(entries(path)?.into_iter().filter(|p| p.is_dir()))
                {
                    for file in pictures(&folder)? {
                        crops.push((0, picture(&file, 0, 0)?));
                    }
                }
                Ok(footage::of_pictures(
                    &Dataset::of(&self.place, crops, Protocol::All)?,
                    size,
                ))
            }
            _ => Ok(footage::of_pictures(&self.read(seed)?, size)),
        }
    }
}

/// The video or folder of pictures of a MOTChallenge sequence.
fn pixels_of_sequence(dir: &Path) -> Result<String, TrainError> {
    let info = SequenceInfo::read(dir)?;
    let input = info
        .video
        .as_ref()
        .map_or_else(|| dir.to_path_buf(), |v| dir.join(v));
    Ok(input.to_string_lossy().into_owned())
}

/// The pedestrians of a sequence's ground truth that can be seen, by frame.
fn boxes_of_sequence(dir: &Path, (first, last): (u64, u64)) -> Result<Boxes, TrainError> {
    let mut people = Boxes::new();
    for row in mot_format::read_rows(&dir.join("gt/gt.txt"))? {
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
            is_clear(&all, i - 1)
        });
    }
    Ok(people)
}

impl DataSpec {
    /// Reads scenes for the association head: sequences with public detections, videos, or simulated scenes.
    ///
    /// # Errors
    /// When something is missing or unreadable, or the kind has no frames.
    pub fn scenes(&self, config: &Config, seed: u64) -> Result<Vec<Vec<Labelled>>, TrainError> {
        match self.kind {
            Kind::Mot => Ok(vec![scenes::sequence(Path::new(&self.place), self.frames)?]),
            Kind::Video => Ok(vec![scenes::video(&self.place, self.frames, config)?]),
            Kind::Synthetic => {
                let count = self.place.parse().map_err(|_| {
                    TrainError::Setting(format!(
                        "synthetic:{} needs a number of scenes",
                        self.place
                    ))
                })?;
                scenes::simulated(count, config, seed)
            }
            _ => Err(TrainError::Setting(format!(
                "{}: single pictures do not show how people move; use mot, video or synthetic",
                self.place
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

/// A folder an identity, its pictures inside: people, signatures, faces, letters.
fn folders(dir: &Path) -> Result<Dataset, TrainError> {
    let mut crops = Vec::new();
    for folder in entries(dir)?.into_iter().filter(|p| p.is_dir()) {
        for path in pictures(&folder)? {
            crops.push((folder.clone(), picture(&path, 0, 0)?));
        }
    }
    Dataset::of(&dir.display().to_string(), crops, Protocol::All)
}

/// `0002_c1s1_000451_03.jpg` (Market-1501) or `0002_c1_f0046182.jpg` (DukeMTMC-reID): identity, camera, frame. Identities
/// -1 and 0 are distractors and junk.
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

/// A list file (`list_train.txt`): `0000/0000_000_01_0303morning_0008_0.jpg 0` a line, the pictures in `train` or `test`
/// beside it; the third number of a name is the camera.
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

/// `cam_a` and `cam_b`, one picture of each person in both: `000_45.bmp`, identity and viewing angle.
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

/// Share of a person that others may hide before the picture is one of them rather.
pub(super) const MAX_COVERED: f32 = 0.3;
/// Frames between two evaluated views: nearer ones are almost the same picture.
const APART: u64 = 50;

/// Whether the person at `i` can be seen: who stands lower in the picture is nearer to the camera.
pub(super) fn is_clear(boxes: &[BBox], i: usize) -> bool {
    let me = &boxes[i];
    boxes.iter().enumerate().all(|(j, other)| {
        j == i || other.bottom() < me.bottom() || me.covered_by(other) < MAX_COVERED
    })
}

/// A MOTChallenge sequence with ground truth: a picture of every pedestrian in every fifth frame, those hidden left out (by
/// the visibility in column nine where it is given, and by the boxes of the others). In such data a person who leaves and
/// comes back is somebody new, so only people seen in one frame are certainly two.
fn mot(dir: &Path, frames: (u64, u64)) -> Result<Dataset, TrainError> {
    let rows = mot_format::read_rows(&dir.join("gt/gt.txt"))?;
    let mut source = source::open(&pixels_of_sequence(dir)?, &SourceOptions::default())?;
    let mut crops = Vec::new();
    let mut together = BTreeSet::new();
    while let Some(frame) = source.next_frame()? {
        if frame.number > frames.1 {
            break;
        }
        let Some(image) = frame.image.as_ref().filter(|_| {
            frame.number >= frames.0 && (frame.number - frames.0).is_multiple_of(EVERY)
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
            .filter(|(i, r)| r.visibility >= f64::from(1.0 - MAX_COVERED) && is_clear(&boxes, *i))
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
        ..Dataset::of(&dir.display().to_string(), crops, Protocol::Apart(APART))?
    })
}

/// Of a moving person only every so many frames give a new view.
pub(super) const EVERY: u64 = 5;

fn bbox(ltwh: [f64; 4]) -> BBox {
    let [l, t, w, h] = ltwh.map(|v| v as f32);
    BBox::new(l, t, w, h)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn market_and_duke_names() {
        assert_eq!(market_name("0002_c1s1_000451_03"), Some((2, 1, 451)));
        assert_eq!(market_name("0005_c6_f0046182"), Some((5, 6, 46182)));
        assert_eq!(market_name("-1_c3s2_000001_00"), Some((-1, 3, 1)));
        assert_eq!(market_name("Thumbs"), None);
    }

    #[test]
    fn a_place_with_a_range() {
        let spec: DataSpec = "video:a#b.mp4#1-250".parse().expect("a range");
        assert_eq!((spec.place.as_str(), spec.frames), ("a#b.mp4", (1, 250)));
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

    #[test]
    fn who_stands_in_front_hides_who_stands_behind() {
        let boxes = [
            BBox::new(0.0, 0.0, 10.0, 20.0),
            BBox::new(4.0, 4.0, 10.0, 20.0),
            BBox::new(40.0, 0.0, 10.0, 20.0),
        ];
        assert_eq!([0, 1, 2].map(|i| is_clear(&boxes, i)), [false, true, true]);
    }
}
