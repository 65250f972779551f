//! The fleet: its workers and cameras.

use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};

use crate::fleet::FleetError;
use crate::fleet::buckets::Fleet;
use crate::fleet::overview::FleetOverview;
use crate::fleet::records::check_camera;
use crate::serve::access::audit::{AuditAction, AuditEntry};
use crate::serve::access::client::Client;
use crate::serve::access::principal::Principal;
use crate::serve::access::requirement::role;
use crate::serve::access::role::Role;
use crate::serve::conditional::Tagged;
use crate::serve::json_body::JsonBody;
use crate::serve::operation::Operation;
use crate::serve::problem::Problem;
use crate::serve::query::PathOf;
use crate::serve::routes::Routes;
use crate::serve::service::Service;
use crate::serve::video::CameraPath;
use crate::source::CameraConfig;

/// The routes.
pub(super) fn routes() -> Routes {
    let (viewer, admin) = (role(Role::Viewer), role(Role::Admin));
    Routes::default()
        .get("/api/v1/fleet", viewer, fleet)
        .documented(of_fleet(
            Operation::new("fleet", "The workers and cameras of the fleet")
                .answers::<FleetOverview>(),
        ))
        .put("/api/v1/fleet/cameras/{camera}", admin, put)
        .documented(of_fleet(
            Operation::new(
                "fleet",
                "Adds a camera to the fleet, or replaces its record",
            )
            .path::<CameraPath>()
            .body::<CameraConfig>()
            .problem(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-field",
                "the camera cannot be one of a fleet",
            )
            .answers_empty(StatusCode::OK)
            .answers_empty(StatusCode::CREATED)
            .problem(
                StatusCode::CONFLICT,
                "changed",
                "the record has changed at the same time",
            ),
        ))
        .delete("/api/v1/fleet/cameras/{camera}", admin, delete)
        .documented(of_fleet(
            Operation::new("fleet", "Removes a camera from the fleet")
                .path::<CameraPath>()
                .answers_empty(StatusCode::NO_CONTENT)
                .problem(
                    StatusCode::NOT_FOUND,
                    "not-found",
                    "the fleet has no such camera",
                )
                .problem(
                    StatusCode::CONFLICT,
                    "changed",
                    "the record has changed at the same time",
                ),
        ))
}

/// The answers of all of these routes.
fn of_fleet(operation: Operation) -> Operation {
    operation
        .problem(
            StatusCode::NOT_FOUND,
            "no-fleet",
            "the service is not part of a fleet",
        )
        .problem(
            StatusCode::SERVICE_UNAVAILABLE,
            "fleet-unavailable",
            "the fleet's NATS server does not answer",
        )
}

fn fleet_of(service: &Service) -> Result<Fleet, Problem> {
    service.fleet.clone().ok_or_else(|| {
        let detail = "this service is not part of a fleet: there is no section [fleet]";
        Problem::new(StatusCode::NOT_FOUND, "no-fleet", detail)
    })
}

fn problem(error: FleetError) -> Problem {
    match error {
        FleetError::Changed(_) => Problem::new(StatusCode::CONFLICT, "changed", error.to_string()),
        FleetError::Camera { reason, .. } => Problem::field("camera", reason),
        error => Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "fleet-unavailable",
            error.to_string(),
        ),
    }
}

async fn fleet(State(service): State<Service>) -> Result<Tagged<FleetOverview>, Problem> {
    let overview = FleetOverview::read(&fleet_of(&service)?).await;
    overview.map(Tagged).map_err(problem)
}

fn record(service: &Service, principal: &Principal, client: &Client, object: String) {
    let entry = AuditEntry::new(AuditAction::CamerasChanged);
    let entry = entry.by(principal).from(client).on(object);
    service.access.audit().record(entry);
}

async fn put(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    PathOf(CameraPath { camera }): PathOf<CameraPath>,
    JsonBody(config): JsonBody<CameraConfig>,
) -> Result<Response, Problem> {
    let fleet = fleet_of(&service)?;
    check_camera(&camera, &config).map_err(problem)?;
    let before = fleet.cameras.get(&camera).await.map_err(problem)?;
    let (written, status, action) = match before {
        Some(before) => {
            let written = fleet
                .cameras
                .update(&camera, &config, before.revision)
                .await;
            (written, StatusCode::OK, "replaced")
        }
        None => {
            let written = fleet.cameras.create(&camera, &config).await;
            (written, StatusCode::CREATED, "added")
        }
    };
    written.map_err(problem)?;
    record(&service, &principal, &client, format!("{camera} {action}"));
    Ok(status.into_response())
}

async fn delete(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    PathOf(CameraPath { camera }): PathOf<CameraPath>,
) -> Result<Response, Problem> {
    let fleet = fleet_of(&service)?;
    let before = fleet.cameras.get(&camera).await.map_err(problem)?;
    let before = before.ok_or_else(|| Problem::not_found("the fleet has no such camera"))?;
    let deleted = fleet.cameras.delete(&camera, before.revision).await;
    deleted.map_err(problem)?;
    record(&service, &principal, &client, format!("{camera} removed"));
    Ok(StatusCode::NO_CONTENT.into_response())
}
