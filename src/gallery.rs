//! The gallery: one picture a person, the file's name is the person's. Adding a person is adding a picture; nothing is
//! trained (one-shot identification, Koch et al. 2015).

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::config::Config;
use crate::detect::Detector;
use crate::embed::Embedder;
use crate::frame::Image;
use crate::geometry::BBox;
use crate::infer::{InferError, Runtime};
use crate::source::{SourceError, image_folder};
use crate::track::appearance::mean_direction;
use crate::track::identity::GalleryPerson;

/// A picture at most so wide for its height holds one person and little else. Wider ones are searched for the person.
const CROP_ASPECT: f32 = 0.62;

/// Why pictures of people cannot be used.
#[derive(Debug, Error)]
pub enum GalleryError {
    /// A picture cannot be read.
    #[error(transparent)]
    Picture(#[from] SourceError),
    /// A network.
    #[error(transparent)]
    Infer(#[from] InferError),
    /// The folder cannot be read.
    #[error("cannot read the gallery {}: {source}; it is a folder with one picture a person, named after the person (ada.jpg)", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is no picture.
    #[error("the gallery {} holds no picture; put one picture a person there, named after the person (ada.jpg)", .0.display())]
    Empty(PathBuf),
    /// Nobody is in a picture.
    #[error("no person was found in {}; cut the picture to the person (upright, at most {CROP_ASPECT} times as wide as high); `twintrack compare --whole` compares pictures of other things", .0.display())]
    Nobody(PathBuf),
}

/// What somebody in a picture looks like.
#[derive(Debug, Clone, PartialEq)]
pub struct Portrait {
    /// The embedding, unit length.
    pub look: Vec<f32>,
    /// What of the picture was taken.
    pub taken: Taken,
}

/// What of a picture is taken for the person.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Taken {
    /// All of it.
    Whole,
    /// The surest person in it.
    Person {
        /// Where, pixels.
        bbox: BBox,
        /// How sure the detector is, in [0, 1].
        confidence: f32,
        /// How many people it found.
        of: usize,
    },
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Taken::Whole => f.write_str("the whole picture is taken"),
            Taken::Person {
                bbox,
                confidence,
                of,
            } => {
                let [left, top, width, height]: [f32; 4] = (*bbox).into();
                let which = if *of == 1 {
                    "the person".into()
                } else {
                    format!("the surest of {of} people")
                };
                write!(
                    f,
                    "{which} at left {left:.0}, top {top:.0}, {width:.0}x{height:.0} pixels is taken (confidence {confidence:.2})"
                )
            }
        }
    }
}

/// Finds the person in a picture and tells what it looks like.
pub struct GalleryReader {
    /// Who finds people in pictures that are not cut to one; opened when first needed.
    detector: Option<Detector>,
    config: Config,
    embedder: Embedder,
}

impl GalleryReader {
    /// With an embedder, and the configuration of the detector for pictures that are not cut to a person.
    pub fn new(embedder: Embedder, config: Config) -> Self {
        GalleryReader {
            detector: None,
            config,
            embedder,
        }
    }

    /// With a configuration, and another embedder than its own where one is given.
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

    /// The look of the person in a picture.
    ///
    /// # Errors
    /// When it cannot be read, nobody is found in it, or a network fails.
    pub fn look(&mut self, path: &Path) -> Result<Portrait, GalleryError> {
        let image = picture(path)?;
        let taken = self
            .person(&image)?
            .ok_or_else(|| GalleryError::Nobody(path.into()))?;
        tracing::info!(picture = %path.display(), "{taken}");
        self.portrait(&image, taken)
    }

    /// The look of a whole picture, whatever its shape: for networks of letters, signatures or faces.
    ///
    /// # Errors
    /// When it cannot be read or the network fails.
    pub fn look_whole(&mut self, path: &Path) -> Result<Portrait, GalleryError> {
        self.portrait(&picture(path)?, Taken::Whole)
    }

    fn portrait(&mut self, image: &Image, taken: Taken) -> Result<Portrait, GalleryError> {
        let bbox = match taken {
            Taken::Whole => BBox::new(0.0, 0.0, image.width as f32, image.height as f32),
            Taken::Person { bbox, .. } => bbox,
        };
        let look = self
            .embedder
            .embed_crops(&[(image, &bbox)])?
            .into_raw_vec_and_offset()
            .0;
        Ok(Portrait { look, taken })
    }

    /// Where the person is: everywhere in an upright crop, else where the detector is surest.
    fn person(&mut self, image: &Image) -> Result<Option<Taken>, InferError> {
        let (w, h) = (image.width as f32, image.height as f32);
        if w <= CROP_ASPECT * h {
            return Ok(Some(Taken::Whole));
        }
        let detector = match &mut self.detector {
            Some(d) => d,
            none => none.insert(Detector::open(
                &Runtime::load()?,
                &self.config.detector,
                self.config.session(),
            )?),
        };
        let people = detector.detect_image(image)?;
        Ok(people.first().map(|d| Taken::Person {
            bbox: d.bbox,
            confidence: d.confidence,
            of: people.len(),
        }))
    }

    /// Everybody in a folder; several pictures of one name (in sub-folders of that name, or with other endings) are one
    /// person known from several sides.
    ///
    /// # Errors
    /// As [`GalleryReader::look`], and when there is no picture.
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
            let looks = paths
                .iter()
                .map(|p| self.look(p))
                .collect::<Result<Vec<_>, _>>()?;
            known.push(GalleryPerson {
                name,
                embedding: mean_direction(looks.iter().map(|l| (l.look.as_slice(), 1.0))),
            });
        }
        if known.is_empty() {
            Err(GalleryError::Empty(dir.into()))
        } else {
            Ok(known)
        }
    }

    /// The embedder, for who goes on with it.
    pub fn into_embedder(self) -> Embedder {
        self.embedder
    }
}

/// Reads a picture; says why where the file cannot even be opened.
fn picture(path: &Path) -> Result<Image, SourceError> {
    let wrong = |reason: String| SourceError::Picture {
        path: path.into(),
        reason,
    };
    let file = std::fs::File::open(path).map_err(|e| wrong(e.to_string()))?;
    if file.metadata().is_ok_and(|m| m.is_dir()) {
        return Err(wrong("it is a folder".into()));
    }
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
