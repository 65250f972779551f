//! Identities: lists, enrols, renames and deletes them.

use axum::Json;
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::serve::access::audit::{AuditAction, AuditEntry};
use crate::serve::access::client::Client;
use crate::serve::access::principal::Principal;
use crate::serve::access::requirement::role;
use crate::serve::access::role::Role;
use crate::serve::api::history::problem;
use crate::serve::api::search::{of_picture, person};
use crate::serve::api::tracks::{embedding_of, no_embedding};
use crate::serve::conditional::Tagged;
use crate::serve::json_body::{JsonBody, PictureBody};
use crate::serve::operation::Operation;
use crate::serve::problem::Problem;
use crate::serve::query::{PathOf, QueryOf};
use crate::serve::routes::Routes;
use crate::serve::service::Service;
use crate::store::identities::{Deleted, check_name};
use crate::store::query::StoredIdentity;
use crate::trajectory::RunId;

/// An identity in the path.
#[derive(Debug, Deserialize, JsonSchema)]
struct IdentityPath {
    /// The person's name.
    name: String,
}

/// The enrolled identities, by name.
#[derive(Debug, Serialize, JsonSchema)]
struct Identities {
    items: Vec<StoredIdentity>,
}

/// A track of which the embedding is used.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TrackName {
    /// The run.
    run: RunId,
    /// Name of the camera.
    camera: String,
    /// Id of the track within run and camera.
    id: u64,
}

/// A person to enrol.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Enrolment {
    /// The person's name, 1 to 200 characters.
    #[schemars(length(min = 1, max = 200))]
    name: String,
    /// A track of the person.
    track: TrackName,
}

/// A new name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewName {
    /// The person's new name, 1 to 200 characters.
    #[schemars(length(min = 1, max = 200))]
    name: String,
}

/// Where the person is in the picture.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BoxQuery {
    /// The person's box in the picture, `left,top,width,height` in pixels. Absent: the picture is
    /// cut to one person, or shows one person only.
    #[serde(rename = "box")]
    region: Option<String>,
}

/// The routes.
pub(super) fn routes() -> Routes {
    let (viewer, operator, admin) = (role(Role::Viewer), role(Role::Operator), role(Role::Admin));
    let unknown = |operation: Operation| {
        operation.problem(
            StatusCode::NOT_FOUND,
            "not-found",
            "there is no such person or track",
        )
    };
    Routes::default()
        .get("/api/v1/identities", viewer, list)
        .documented(
            Operation::new("identities", "The enrolled people, by name")
                .answers::<Identities>()
                .of_history(),
        )
        .post("/api/v1/identities", operator, enrol)
        .documented(unknown(
            Operation::new("identities", "Enrols a person by a track, or adds the track's embedding")
                .body::<Enrolment>()
                .answers_empty(StatusCode::CREATED)
                .problem(
                    StatusCode::CONFLICT,
                    "no-embedding",
                    "no embedding of the track is stored",
                )
                .of_history(),
        ))
        .post("/api/v1/identities/{name}/pictures", operator, enrol_picture)
        .documented(of_picture(
            Operation::new("identities", "Enrols a person by a picture, or adds the picture")
                .path::<IdentityPath>()
                .query::<BoxQuery>()
                .answers_empty(StatusCode::CREATED)
                .of_history(),
        ))
        .post("/api/v1/identities/{name}/rename", operator, rename)
        .documented(unknown(
            Operation::new("identities", "Renames a person, also in the tracks")
                .path::<IdentityPath>()
                .body::<NewName>()
                .answers_empty(StatusCode::NO_CONTENT)
                .problem(StatusCode::CONFLICT, "exists", "another person has the name")
                .of_history(),
        ))
        .delete("/api/v1/identities/{name}", admin, delete)
        .documented(unknown(
            Operation::new(
                "identities",
                "Deletes a person with everything about them: embeddings and crops, and the name in \
                 tracks",
            )
            .path::<IdentityPath>()
            .answers::<Deleted>()
            .of_history(),
        ))
}

fn record(
    service: &Service,
    principal: &Principal,
    client: &Client,
    action: AuditAction,
    object: String,
) {
    let entry = AuditEntry::new(action).by(principal).from(client);
    service.access.audit().record(entry.on(object));
}

async fn list(State(service): State<Service>) -> Result<Tagged<Identities>, Problem> {
    let items = service.ask(|h| h.identities()).await?;
    Ok(Tagged(Identities { items }))
}

async fn enrol(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    JsonBody(Enrolment { name, track }): JsonBody<Enrolment>,
) -> Result<Response, Problem> {
    let object = format!("{name}, by track {} of {}", track.id, track.camera);
    let (embedder, embedding) = embedding_of(&service, track.run, &track.camera, track.id).await?;
    // Without an embedder, or if embeddings may not be stored, those of earlier runs do not count.
    if service.people.is_none() {
        return Err(no_embedding());
    }
    let enrolled = service.ask(move |h| h.enrol(&name, &embedder, &[embedding]));
    enrolled.await?;
    service.identities_changed();
    record(&service, &principal, &client, AuditAction::Enrol, object);
    Ok(StatusCode::CREATED.into_response())
}

async fn enrol_picture(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    PathOf(IdentityPath { name }): PathOf<IdentityPath>,
    QueryOf(query): QueryOf<BoxQuery>,
    picture: PictureBody,
) -> Result<Response, Problem> {
    service.history()?;
    check_name(&name).map_err(problem)?;
    let person = person(&service, picture, query.region.as_deref()).await?;
    let object = format!("{name}, by a picture");
    let enrolled = service.ask(move |h| h.enrol(&name, &person.embedder, &[person.embedding]));
    enrolled.await?;
    service.identities_changed();
    record(&service, &principal, &client, AuditAction::Enrol, object);
    Ok(StatusCode::CREATED.into_response())
}

async fn rename(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    PathOf(IdentityPath { name }): PathOf<IdentityPath>,
    JsonBody(NewName { name: new }): JsonBody<NewName>,
) -> Result<Response, Problem> {
    let object = format!("{name}, now {new}");
    service.ask(move |h| h.rename_identity(&name, &new)).await?;
    service.identities_changed();
    record(&service, &principal, &client, AuditAction::Enrol, object);
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn delete(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    PathOf(IdentityPath { name }): PathOf<IdentityPath>,
) -> Result<Json<Deleted>, Problem> {
    let object = name.clone();
    let deleted = service.ask(move |h| h.delete_identity(&name)).await?;
    service.identities_changed();
    record(&service, &principal, &client, AuditAction::Delete, object);
    Ok(Json(deleted))
}
