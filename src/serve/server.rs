//! The web server: its routes, the cameras, pictures, health and metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use thiserror::Error;
use tokio::net::TcpListener;

use crate::analytics::{LineView, ZoneView};
use crate::frame::CameraState;
use crate::pipeline::cameras::Member;
use crate::serve::access::login;
use crate::serve::access::requirement::{Requirement, role};
use crate::serve::access::role::Role;
use crate::serve::api;
use crate::serve::assets;
use crate::serve::connections;
use crate::serve::health::is_ready;
use crate::serve::hub::Hub;
use crate::serve::live::{LiveQuery, live};
use crate::serve::openapi;
use crate::serve::operation::Operation;
use crate::serve::pages;
use crate::serve::routes::Routes;
use crate::serve::service::Service;
use crate::serve::video::{self, CameraPath, PictureQuery, VideoQuery};
use crate::trajectory::RunId;

/// The server cannot bind its address.
#[derive(Debug, Error)]
#[error(
    "cannot listen on {address}: {source}; is another twintrack running? \
     Set serve.listen to another port, or to \"\" for no web server"
)]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// The cause.
    pub source: std::io::Error,
}

/// A camera in `/api/v1/cameras`, which the page shows.
#[derive(Debug, Serialize, JsonSchema)]
struct CameraView {
    name: Arc<str>,
    state: CameraState,
    /// Frames read and tracked since the start; clients compute frame rates from the differences.
    read: u64,
    tracked: u64,
    skipped: u64,
    dropped: Dropped,
    /// Latency in seconds of the last frames; absent before the first frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_p50: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latency_p95: Option<f32>,
    people: u64,
    present: u64,
    reconnects: u64,
    failures: u64,
    /// Why the camera delivers no frames; absent while it delivers frames.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Arc<str>>,
    /// The address, without credentials.
    url: String,
    /// Width and height of the frames in pixels; absent before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<[u32; 2]>,
    /// The zones by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    zones: BTreeMap<Arc<str>, ZoneState>,
    /// The lines by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    lines: BTreeMap<Arc<str>, LineState>,
}

/// People in a zone.
#[derive(Debug, Serialize, JsonSchema)]
struct ZoneState {
    /// Number of people inside.
    occupancy: u64,
    /// Whether they are more than the zone's limit.
    over_limit: bool,
}

/// Crossings of a line since the start of the run.
#[derive(Debug, Serialize, JsonSchema)]
struct LineState {
    r#in: u64,
    out: u64,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Dropped {
    decode_late: u64,
    detector_busy: u64,
    network_failed: u64,
    sink_slow: u64,
}

impl CameraView {
    fn of(m: &Member, hub: &Hub) -> Self {
        let scene = hub.scene(&m.name);
        let frame = scene.as_ref().map(|(size, _)| *size);
        let scene = scene.map(|(_, scene)| scene).unwrap_or_default();
        let zone = |z: &ZoneView| {
            let state = ZoneState {
                occupancy: z.occupancy,
                over_limit: z.over,
            };
            (z.name.clone(), state)
        };
        let line = |l: &LineView| {
            let state = LineState {
                r#in: l.inwards,
                out: l.outwards,
            };
            (l.name.clone(), state)
        };
        let (n, c) = (|count: &AtomicU64| count.load(Ordering::Relaxed), &m.counts);
        CameraView {
            name: m.name.clone(),
            state: m.state(),
            read: n(&c.read),
            tracked: n(&c.tracked),
            skipped: n(&c.skipped),
            dropped: Dropped {
                decode_late: m.late(),
                detector_busy: n(&c.detector_busy),
                network_failed: n(&c.network_failed),
                sink_slow: n(&c.sink_slow),
            },
            latency_p50: c.latency(0.5),
            latency_p95: c.latency(0.95),
            people: n(&c.people),
            present: n(&c.present),
            reconnects: m.reconnects(),
            failures: m.failures(),
            reason: m.link.reason(),
            url: m.config.url.to_string(),
            frame,
            zones: scene.zones.iter().map(zone).collect(),
            lines: scene.lines.iter().map(line).collect(),
        }
    }
}

/// Time for which the shutdown waits for open connections, and then for the audit log.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Binds the address. Must be called before other parts of the service start, so that a port in use
/// is reported at once.
///
/// # Errors
/// When the address cannot be bound.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| ListenError { address, source })
}

/// All routes, with what each requires.
pub fn routes() -> Routes {
    let viewer = role(Role::Viewer);
    Routes::default()
        // Health checks contain nothing confidential, and orchestrators have no token.
        .get("/healthz", Requirement::Nothing, health)
        .get("/readyz", Requirement::Nothing, readiness)
        .get("/", viewer, || async { Html(pages::INDEX) })
        .get("/login", Requirement::OwnOrigin, login::page)
        .get("/assets/{file}", Requirement::OwnOrigin, assets::asset)
        .get("/metrics", viewer, metrics)
        .merge(login::routes())
        .get("/api/v1/cameras", viewer, cameras)
        .documented(
            Operation::new("cameras", "State, counters, zones and lines of the cameras")
                .answers::<Overview>(),
        )
        .get(
            "/api/v1/cameras/{camera}/picture.jpg",
            viewer,
            video::picture,
        )
        .documented(
            Operation::new("cameras", "The latest picture of a camera")
                .path::<CameraPath>()
                .query::<PictureQuery>()
                .answers_of(&["image/jpeg"])
                .problem(
                    StatusCode::NOT_FOUND,
                    "not-found",
                    "no such camera, or no picture yet",
                )
                .problem(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "invalid-field",
                    "the width",
                ),
        )
        .get("/api/v1/cameras/{camera}/video", viewer, video::video)
        .documented(
            Operation::new(
                "cameras",
                "Pictures of a camera as they come: Motion JPEG, or over a WebSocket the number of \
                 the frame, its time and a JPEG",
            )
            .path::<CameraPath>()
            .query::<VideoQuery>()
            .answers_of(&["multipart/x-mixed-replace"])
            .problem(
                StatusCode::NOT_FOUND,
                "not-found",
                "no such camera, or no picture yet",
            )
            .problem(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid-field",
                "the width or rate",
            ),
        )
        .get("/api/v1/live", viewer, live)
        .documented(
            Operation::new("live", "Live events, server-sent or over a WebSocket")
                .query::<LiveQuery>()
                .answers_of(&["text/event-stream"])
                .problem(StatusCode::UNPROCESSABLE_ENTITY, "invalid-field", "a value"),
        )
        .merge(api::routes::routes())
}

/// The OpenAPI document of all routes, below a base path (empty: none).
pub fn openapi(base: &str) -> Value {
    openapi::document(&routes().table(), base)
}

/// Serves requests until shutdown, on at most `max_connections` connections at a time.
pub async fn run(listener: TcpListener, service: Service, max_connections: usize) {
    let (access, stop) = (service.access.clone(), service.stop.clone());
    let app = routes()
        .into_router(access.base_path(), access.clone())
        .with_state(service);
    let tls = access.certificate().map(|c| c.server_config()).transpose();
    let tls = match tls {
        Ok(tls) => tls,
        Err(error) => {
            tracing::error!(%error, "the web server does not start");
            return;
        }
    };
    let watching = tokio::spawn(access.clone().watch(stop.clone()));
    tokio::select! {
        () = connections::serve(listener, app, tls, max_connections, &stop) => {}
        () = async { stop.cancelled().await; tokio::time::sleep(SHUTDOWN_TIMEOUT).await } => {}
    }
    watching.abort();
    access.audit().flush(SHUTDOWN_TIMEOUT).await;
}

async fn health(State(service): State<Service>) -> Response {
    if service.health.is_healthy() {
        "ok\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "frames arrive, but no events are written\n",
        )
            .into_response()
    }
}

async fn readiness(State(service): State<Service>) -> Response {
    if service.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
    } else if is_ready(&service.cameras) {
        "ready\n".into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "no camera delivers frames\n",
        )
            .into_response()
    }
}

async fn metrics(State(service): State<Service>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &service.registry) {
        Ok(()) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}

#[derive(Serialize, JsonSchema)]
struct Overview {
    run: RunId,
    cameras: Vec<CameraView>,
}

async fn cameras(State(service): State<Service>) -> impl IntoResponse {
    let cameras = service.cameras.all();
    let cameras = cameras
        .iter()
        .map(|m| CameraView::of(m, &service.hub))
        .collect();
    (
        [(header::CACHE_CONTROL, "no-store")],
        Json(Overview {
            run: service.run,
            cameras,
        }),
    )
}
