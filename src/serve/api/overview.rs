//! What the service can do, and the OpenAPI document.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;

use crate::serve::access::requirement::role;
use crate::serve::access::role::Role;
use crate::serve::conditional::Tagged;
use crate::serve::operation::Operation;
use crate::serve::routes::Routes;
use crate::serve::service::Service;
use crate::trajectory::RunId;

/// What the service can do.
#[derive(Debug, Serialize, JsonSchema)]
struct ServiceView {
    /// Version of the program.
    version: &'static str,
    /// The run.
    run: RunId,
    /// Whether tracks and events are stored, so that they can be listed.
    history: bool,
    /// Whether crops are stored.
    crops: bool,
    /// Whether embeddings are stored, so that similar people can be found.
    embeddings: bool,
    /// Whether people can be searched by a picture.
    search: bool,
    /// Whether the service is part of a fleet.
    fleet: bool,
}

/// The routes.
pub(super) fn routes() -> Routes {
    let viewer = role(Role::Viewer);
    Routes::default()
        .get("/api/v1/service", viewer, service)
        .documented(Operation::new("service", "What this service can do").answers::<ServiceView>())
        .get("/api/v1/openapi.json", viewer, openapi)
        .documented(Operation::new("service", "This document").answers_of(&["application/json"]))
}

async fn service(State(service): State<Service>) -> Tagged<ServiceView> {
    let history = service.history.as_ref().map(|h| h.config());
    let embeddings = history.is_some_and(|h| h.embeddings);
    Tagged(ServiceView {
        version: env!("CARGO_PKG_VERSION"),
        run: service.run,
        history: history.is_some(),
        crops: history.is_some_and(|h| h.crops),
        embeddings,
        search: embeddings && service.people.is_some(),
        fleet: service.fleet.is_some(),
    })
}

async fn openapi(State(service): State<Service>) -> Response {
    Json(&*service.openapi).into_response()
}
