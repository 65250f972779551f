//! Searches people by appearance, with a picture or an embedding.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::serve::access::audit::{AuditAction, AuditEntry};
use crate::serve::access::client::Client;
use crate::serve::access::principal::Principal;
use crate::serve::access::requirement::role;
use crate::serve::access::role::Role;
use crate::serve::json_body::{PICTURE_TYPES, PictureBody};
use crate::serve::operation::Operation;
use crate::serve::people::PersonInPicture;
use crate::serve::problem::Problem;
use crate::serve::query::QueryOf;
use crate::serve::routes::Routes;
use crate::serve::service::Service;
use crate::store::query::Found;
use crate::store::search::SearchFilter;
use crate::time::Timestamp;

/// Where a person is searched.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SearchQuery {
    /// Name of the camera.
    camera: Option<String>,
    /// Tracks that were there at this time or later.
    from: Option<Timestamp>,
    /// Tracks that began before this time.
    to: Option<Timestamp>,
    /// Most tracks, 1 to 200; absent: 20.
    #[schemars(range(min = 1, max = 200))]
    limit: Option<usize>,
    /// For a search by picture: the person's box in it, `left,top,width,height` in pixels. Absent:
    /// the picture is cut to one person, or shows one person only.
    #[serde(rename = "box")]
    pub region: Option<String>,
}

/// A track that was found.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct FoundPerson {
    #[serde(flatten)]
    pub found: Found,
    /// Calibrated similarity in [0, 1]; absent if the embedder in use is another one, or not
    /// calibrated.
    #[serde(skip_serializing_if = "Option::is_none")]
    similarity: Option<f32>,
}

/// The tracks that were found, from the most similar one.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct FoundPeople {
    /// The person's box in the picture, [left, top, width, height] in pixels; absent if the whole
    /// picture was used.
    #[serde(skip_serializing_if = "Option::is_none", rename = "box")]
    region: Option<[f32; 4]>,
    pub items: Vec<FoundPerson>,
}

impl SearchQuery {
    /// Number of tracks that the client wants.
    ///
    /// # Errors
    /// 422 for an invalid limit.
    pub fn wanted(&self) -> Result<usize, Problem> {
        let wanted = self.limit.unwrap_or(20);
        if (1..=200).contains(&wanted) {
            Ok(wanted)
        } else {
            Err(Problem::field("limit", "it must be from 1 to 200"))
        }
    }

    /// Fails if there is a box, in a search without a picture.
    pub fn without_box(&self) -> Result<(), Problem> {
        match self.region {
            Some(_) => Err(Problem::field("box", "it is for searches by a picture")),
            None => Ok(()),
        }
    }

    /// The tracks most similar to an embedding of `embedder` (name and hash), `most` at most.
    ///
    /// # Errors
    /// 404 without a history.
    pub async fn find(
        &self,
        service: &Service,
        embedder: String,
        embedding: Vec<f32>,
        most: usize,
    ) -> Result<FoundPeople, Problem> {
        let filter = SearchFilter {
            camera: self.camera.clone(),
            from: self.from,
            to: self.to,
        };
        let people = service.people.as_ref();
        let calibration = people.and_then(|p| p.calibration_of(&embedder));
        let found = service.ask(move |h| h.search(&embedder, &embedding, most, &filter));
        let person = |found: Found| FoundPerson {
            similarity: calibration.map(|c| c.similarity(found.distance)),
            found,
        };
        Ok(FoundPeople {
            region: None,
            items: found.await?.into_iter().map(person).collect(),
        })
    }
}

/// The routes.
pub(super) fn routes() -> Routes {
    Routes::default()
        .post("/api/v1/search", role(Role::Operator), search)
        .documented(
            of_picture(Operation::new(
                "search",
                "The tracks most similar to the person in a picture",
            ))
            .query::<SearchQuery>()
            .answers::<FoundPeople>()
            .of_history(),
        )
}

/// States the body and the problems of a route that takes a picture of a person.
pub(super) fn of_picture(operation: Operation) -> Operation {
    operation
        .body_of(PICTURE_TYPES)
        .problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-picture",
            "the picture cannot be decoded, or is too large",
        )
        .problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "no-person",
            "nobody was detected in the picture",
        )
        .problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "several-people",
            "several people were detected; set `box`",
        )
        .problem(
            StatusCode::NOT_FOUND,
            "no-embedder",
            "the embedder is switched off",
        )
        .problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "pictures-busy",
            "too many pictures at the same time",
        )
}

/// The box `left,top,width,height` of a query.
///
/// # Errors
/// 422 if it is none.
fn parse_box(text: &str) -> Result<[f32; 4], Problem> {
    let numbers: Option<Vec<f32>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
    let numbers = numbers.and_then(|n| <[f32; 4]>::try_from(n).ok());
    let valid = numbers.filter(|[left, top, width, height]| {
        let finite = [left, top, width, height].iter().all(|v| v.is_finite());
        finite && *width >= 1.0 && *height >= 1.0
    });
    valid.ok_or_else(|| {
        Problem::field(
            "box",
            "it must be left,top,width,height in pixels, at least 1 wide and high",
        )
    })
}

/// The person in the picture of a request.
///
/// # Errors
/// 404 without an embedder; 422 for a picture that cannot be used, with nobody, or with several
/// people and no box.
pub(super) async fn person(
    service: &Service,
    picture: PictureBody,
    region: Option<&str>,
) -> Result<PersonInPicture, Problem> {
    let region = region.map(parse_box).transpose()?;
    let people = service.people.clone().ok_or_else(|| {
        let detail = "this service does not embed people: embedder.enabled or \
                      privacy.embeddings is false";
        Problem::new(StatusCode::NOT_FOUND, "no-embedder", detail)
    })?;
    let read = tokio::task::spawn_blocking(move || {
        // The whole picture is moved here: it counts until it has been read, also if the client
        // has disconnected.
        let picture = picture;
        people.read(&picture.bytes, region)
    });
    let read = read.await;
    read.map_err(|e| Problem::internal("read the picture", e))?
}

async fn search(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    QueryOf(query): QueryOf<SearchQuery>,
    picture: PictureBody,
) -> Result<axum::Json<FoundPeople>, Problem> {
    service.history()?;
    let most = query.wanted()?;
    let person = person(&service, picture, query.region.as_deref()).await?;
    let entry = AuditEntry::new(AuditAction::Search);
    let entry = entry.by(&principal).from(&client).on("by a picture");
    service.access.audit().record(entry);
    let found = query
        .find(&service, person.embedder, person.embedding, most)
        .await?;
    Ok(axum::Json(FoundPeople {
        region: person.region,
        ..found
    }))
}
