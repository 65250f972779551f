//! Reads galleries: folders with one picture, or several, per person, named after the person. A
//! person is added by adding a picture, without training (one-shot identification, Koch et al.
//! 2015).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::Config;
use crate::detect::Detector;
use crate::detection::Detection;
use crate::embed::Embedder;
use crate::frame::Image;
use crate::geometry::BBox;
use crate::infer::{InferError, Runtime};
use crate::source::{SourceError, image_folder};
use crate::track::appearance::mean_direction;
use crate::track::identity::GalleryPerson;

/// A picture whose width is at most this share of its height is used as the crop of one person. In
/// wider pictures the person is detected.
const CROP_ASPECT: f32 = 0.62;
/// Minimum confidence of the detections that are counted in a picture that must show one person
/// only.
#[cfg(feature = "serve")]
const SURE: f32 = 0.5;

/// Errors of reading pictures of people.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GalleryError {
    /// A picture cannot be read.
    #[error(transparent)]
    Picture(#[from] SourceError),
    /// A network cannot be opened or run.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The folder cannot be read.
    #[error(
        "cannot read the gallery {}: {source}; it must be a folder with one picture per person, \
         named after the person (ada.jpg)",
        path.display()
    )]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The folder has no pictures.
    #[error(
        "the gallery {} has no pictures; put one picture per person there, named after the person \
         (ada.jpg)",
        .0.display()
    )]
    Empty(PathBuf),
    /// No person is detected in a picture.
    #[error(
        "no person was detected in {}; cut the picture to the person (upright, at most \
         {CROP_ASPECT} times as wide as high); `twintrack compare --whole` compares pictures of \
         other things",
        .0.display()
    )]
    Nobody(PathBuf),
    /// A picture in memory cannot be decoded.
    #[error("the picture cannot be used: {0}")]
    Encoded(String),
    /// The box that a client states is not in the picture.
    #[error("the box is not in the picture")]
    Outside,
    /// No person is detected in a picture in memory.
    #[error(
        "nobody was detected in the picture; cut it to the person (upright, at most {CROP_ASPECT} \
         times as wide as high)"
    )]
    NoPerson,
    /// Several people are detected in a picture in memory.
    #[error(
        "{} people were detected in the picture, at {}; state the box of the one you mean, or cut \
         the picture to the person",
        .0.len(),
        boxes(.0)
    )]
    Several(Vec<BBox>),
}

/// Boxes as `left,top,width,height`.
fn boxes(all: &[BBox]) -> String {
    let text = |bbox: &BBox| {
        let numbers: [f32; 4] = (*bbox).into();
        numbers.map(|v| format!("{v:.0}")).join(",")
    };
    let texts: Vec<String> = all.iter().map(text).collect();
    texts.join(" and ")
}

/// The embedding of a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct GalleryPicture {
    /// The embedding, unit length.
    pub embedding: Vec<f32>,
    /// The part of the picture that was embedded.
    pub region: Region,
}

/// The part of a picture that is embedded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Region {
    /// The whole picture.
    Whole,
    /// The most confidently detected person.
    Person {
        /// The person's box in pixels.
        bbox: BBox,
        /// Confidence of the detection, in [0, 1].
        confidence: f32,
        /// Number of people detected in the picture.
        people: usize,
    },
}

impl fmt::Display for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Region::Whole => f.write_str("using the whole picture"),
            Region::Person {
                bbox,
                confidence,
                people,
            } => {
                let [left, top, width, height]: [f32; 4] = (*bbox).into();
                let which = if *people == 1 {
                    "the person".into()
                } else {
                    format!("the most confident of {people} people")
                };
                write!(
                    f,
                    "using {which} at left {left:.0}, top {top:.0}, {width:.0}x{height:.0} pixels \
                     (confidence {confidence:.2})"
                )
            }
        }
    }
}

/// Finds the person in a picture and computes the embedding.
pub struct GalleryReader {
    /// Detector for pictures that are not cut to one person; opened when first needed.
    detector: Option<Detector>,
    config: Config,
    embedder: Embedder,
}

impl GalleryReader {
    /// Creates a reader; `config` is used to open the detector.
    pub fn new(embedder: Embedder, config: Config) -> Self {
        GalleryReader {
            detector: None,
            config,
            embedder,
        }
    }

    /// Creates a reader with the embedder of the configuration, or with `embedder` if it is given.
    ///
    /// # Errors
    /// When the embedder cannot be opened.
    pub fn open(mut config: Config, embedder: Option<&Path>) -> Result<Self, InferError> {
        if let Some(model) = embedder {
            config.embedder.model = model.into();
        }
        let embedder = Embedder::open(&Runtime::load()?, &config.embedder, config.session())?;
        Ok(GalleryReader::new(embedder, config))
    }

    /// The embedder.
    pub fn embedder(&self) -> &Embedder {
        &self.embedder
    }

    /// Embeds the person in a picture.
    ///
    /// # Errors
    /// When the picture cannot be read, no person is detected in it, or a network fails.
    pub fn read(&mut self, path: &Path) -> Result<GalleryPicture, GalleryError> {
        let image = read_image(path)?;
        let region = self
            .find_person(&image)?
            .ok_or_else(|| GalleryError::Nobody(path.into()))?;
        tracing::info!(picture = %path.display(), "{region}");
        self.embed(&image, region)
    }

    /// Embeds a picture as a whole, of any proportions, for networks trained on letters, signatures
    /// or faces.
    ///
    /// # Errors
    /// When the picture cannot be read or the network fails.
    pub fn read_whole(&mut self, path: &Path) -> Result<GalleryPicture, GalleryError> {
        self.embed(&read_image(path)?, Region::Whole)
    }

    /// Embeds the person in an encoded picture (JPEG, PNG): the one in `bbox` (pixels) if it is
    /// given, else the only one, who is detected unless the picture is cut to a person.
    ///
    /// # Errors
    /// When the picture cannot be decoded, shows nobody or several people, the box is outside, or a
    /// network fails.
    #[cfg(feature = "serve")]
    pub fn read_encoded(
        &mut self,
        picture: &[u8],
        bbox: Option<BBox>,
    ) -> Result<GalleryPicture, GalleryError> {
        let image = image_folder::decode(picture).map_err(GalleryError::Encoded)?;
        let stated = |bbox: BBox| {
            let frame = BBox::new(0.0, 0.0, image.width as f32, image.height as f32);
            let inside = bbox.intersection(&frame) >= 1.0;
            let region = Region::Person {
                bbox,
                confidence: 1.0,
                people: 1,
            };
            inside.then_some(region).ok_or(GalleryError::Outside)
        };
        let region = match bbox {
            Some(bbox) => stated(bbox)?,
            None => self.only_person(&image)?,
        };
        self.embed(&image, region)
    }

    /// The region of the only person in a picture.
    #[cfg(feature = "serve")]
    fn only_person(&mut self, image: &Image) -> Result<Region, GalleryError> {
        if is_crop(image) {
            return Ok(Region::Whole);
        }
        let people = self.detect(image)?;
        let mut sure: Vec<&Detection> = people.iter().filter(|d| d.confidence >= SURE).collect();
        if sure.is_empty() {
            sure.extend(people.first());
        }
        match sure[..] {
            [] => Err(GalleryError::NoPerson),
            [one] => Ok(Region::Person {
                bbox: one.bbox,
                confidence: one.confidence,
                people: 1,
            }),
            _ => Err(GalleryError::Several(sure.iter().map(|d| d.bbox).collect())),
        }
    }

    fn embed(&mut self, image: &Image, region: Region) -> Result<GalleryPicture, GalleryError> {
        let bbox = match region {
            Region::Whole => BBox::new(0.0, 0.0, image.width as f32, image.height as f32),
            Region::Person { bbox, .. } => bbox,
        };
        let embedding = self
            .embedder
            .embed_crops(&[(image, &bbox)])?
            .into_raw_vec_and_offset()
            .0;
        Ok(GalleryPicture { embedding, region })
    }

    /// The region of the person: the whole of an upright crop, else the most confident detection.
    fn find_person(&mut self, image: &Image) -> Result<Option<Region>, InferError> {
        if is_crop(image) {
            return Ok(Some(Region::Whole));
        }
        let people = self.detect(image)?;
        Ok(people.first().map(|d| Region::Person {
            bbox: d.bbox,
            confidence: d.confidence,
            people: people.len(),
        }))
    }

    /// The people in a picture, from the most confidently detected one.
    fn detect(&mut self, image: &Image) -> Result<Vec<Detection>, InferError> {
        let detector = match &mut self.detector {
            Some(d) => d,
            none => none.insert(Detector::open(
                &Runtime::load()?,
                &self.config.detector(),
                self.config.session(),
            )?),
        };
        detector.detect_image(image)
    }

    /// Reads a gallery. Pictures with the same name and different extensions, or in one sub-folder,
    /// are of one person; their embeddings are averaged.
    ///
    /// # Errors
    /// As [`GalleryReader::read`], and when the folder cannot be read or has no pictures.
    pub fn gallery(&mut self, dir: &Path) -> Result<Vec<GalleryPerson>, GalleryError> {
        let entries = std::fs::read_dir(dir).map_err(|source| GalleryError::Folder {
            path: dir.into(),
            source,
        })?;
        let mut pictures: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
        for path in image_folder::list(dir) {
            pictures.entry(stem(&path)).or_default().push(path);
        }
        for folder in entries.flatten().map(|e| e.path()).filter(|p| p.is_dir()) {
            pictures
                .entry(name(&folder))
                .or_default()
                .extend(image_folder::list(&folder));
        }
        let mut known = Vec::new();
        for (name, paths) in pictures.into_iter().filter(|(_, paths)| !paths.is_empty()) {
            let pictures = paths
                .iter()
                .map(|p| self.read(p))
                .collect::<Result<Vec<_>, _>>()?;
            known.push(GalleryPerson {
                name,
                embedding: mean_direction(pictures.iter().map(|p| (p.embedding.as_slice(), 1.0))),
            });
        }
        if known.is_empty() {
            Err(GalleryError::Empty(dir.into()))
        } else {
            Ok(known)
        }
    }

    /// Returns the embedder for further use.
    pub fn into_embedder(self) -> Embedder {
        self.embedder
    }
}

/// Whether a picture is cut to one person.
fn is_crop(image: &Image) -> bool {
    image.width as f32 <= CROP_ASPECT * image.height as f32
}

/// Reads an image file. The file is first opened without OpenCV, which does not report why a file
/// cannot be opened.
fn read_image(path: &Path) -> Result<Image, SourceError> {
    let wrong = |reason: String| SourceError::Picture {
        path: path.into(),
        reason,
    };
    image_folder::check_regular(path, None).map_err(|reason| wrong(reason.into()))?;
    std::fs::File::open(path).map_err(|e| wrong(e.to_string()))?;
    image_folder::read(path)
}

fn stem(path: &Path) -> String {
    path.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}
