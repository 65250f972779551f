//! Finds and embeds the person in a picture that a client sends.
//!
//! The pipeline owns its networks; those here are opened when the first picture comes.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;

use crate::config::Config;
use crate::gallery::{GalleryError, GalleryReader, Region};
use crate::geometry::BBox;
use crate::serve::problem::Problem;
use crate::store::write::embedder_hash;
use crate::track::similarity::Calibration;

/// Reads pictures of people. Clones share the networks, which work on one picture at a time.
#[derive(Clone)]
pub struct People {
    config: Arc<Config>,
    /// Name and hash of the embedder.
    embedder: Arc<str>,
    calibration: Option<Calibration>,
    reader: Arc<Mutex<Option<GalleryReader>>>,
}

/// A person in a picture.
#[derive(Debug)]
pub struct PersonInPicture {
    /// Name and hash of the embedder.
    pub embedder: String,
    /// The embedding, unit length.
    pub embedding: Vec<f32>,
    /// The person's box, [left, top, width, height] in pixels; None: the whole picture.
    pub region: Option<[f32; 4]>,
}

impl People {
    /// Creates it for an embedder (name and hash) with its calibration, and for the settings with
    /// which detector and embedder are opened.
    pub fn new(config: Config, embedder: String, calibration: Option<Calibration>) -> Self {
        People {
            config: Arc::new(config),
            embedder: embedder.into(),
            calibration,
            reader: Arc::default(),
        }
    }

    /// Name and hash of the embedder.
    pub fn embedder(&self) -> &str {
        &self.embedder
    }

    /// The calibration, if `embedder` is the one in use.
    pub fn calibration_of(&self, embedder: &str) -> Option<Calibration> {
        self.calibration
            .filter(|_| embedder_hash(embedder) == embedder_hash(&self.embedder))
    }

    /// Finds and embeds the person in an encoded picture. `region` is the person's box, [left, top,
    /// width, height] in pixels. Blocks for the time of the networks.
    ///
    /// # Errors
    /// 422 for a picture that cannot be used, with nobody, or with several people and no box; 500
    /// if a network fails.
    pub fn read(
        &self,
        picture: &[u8],
        region: Option<[f32; 4]>,
    ) -> Result<PersonInPicture, Problem> {
        let mut reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        let reader = match &mut *reader {
            Some(reader) => reader,
            none => {
                let opened = GalleryReader::open(Config::clone(&self.config), None);
                none.insert(opened.map_err(|e| Problem::internal("open the embedder", e))?)
            }
        };
        let region = region.map(|[left, top, width, height]| BBox::new(left, top, width, height));
        let read = reader.read_encoded(picture, region).map_err(problem)?;
        Ok(PersonInPicture {
            embedder: reader.embedder().identity(),
            embedding: read.embedding,
            region: match read.region {
                Region::Whole => None,
                Region::Person { bbox, .. } => Some(bbox.into()),
            },
        })
    }
}

fn problem(error: GalleryError) -> Problem {
    let unusable = |code| {
        let detail = error.to_string();
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail)
    };
    match &error {
        GalleryError::Encoded(_) => unusable("invalid-picture"),
        GalleryError::Outside => unusable("invalid-field").with_field(Some("box".into())),
        GalleryError::NoPerson => unusable("no-person"),
        GalleryError::Several(_) => unusable("several-people").with_field(Some("box".into())),
        _ => Problem::internal("embed the person", error),
    }
}
