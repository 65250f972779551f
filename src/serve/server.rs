//! The web server: its routes, the cameras, pictures, health and metrics.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::TcpListener;

use crate::frame::CameraState;
use crate::pipeline::cameras::Member;
use crate::serve::access::audit::AuditAction;
use crate::serve::access::client::Client;
use crate::serve::access::login;
use crate::serve::access::principal::Principal;
use crate::serve::access::requirement::{Requirement, role};
use crate::serve::access::role::Role;
use crate::serve::assets;
use crate::serve::connections;
use crate::serve::health::is_ready;
use crate::serve::live::live;
use crate::serve::pages;
use crate::serve::routes::Routes;
use crate::serve::service::Service;
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
#[derive(Debug, Serialize)]
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
}

#[derive(Debug, Serialize)]
struct Dropped {
    decode_late: u64,
    detector_busy: u64,
    network_failed: u64,
    sink_slow: u64,
}

impl CameraView {
    fn of(m: &Member) -> Self {
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
        }
    }
}

/// Time for which the shutdown waits for open connections.
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
    let (viewer, admin) = (role(Role::Viewer), role(Role::Admin));
    Routes::default()
        // Health checks contain nothing confidential, and orchestrators have no token.
        .get("/healthz", Requirement::Nothing, health)
        .get("/readyz", Requirement::Nothing, readiness)
        .get("/", viewer, || async { Html(pages::INDEX) })
        .get("/login", Requirement::OwnOrigin, login::page)
        .get("/assets/{file}", Requirement::OwnOrigin, assets::asset)
        .post("/api/v1/session", Requirement::OwnOrigin, login::log_in)
        .get("/api/v1/session", viewer, login::whoami)
        .delete("/api/v1/session", viewer, login::log_out)
        .get("/api/v1/audit", admin, login::audit)
        .get("/metrics", viewer, metrics)
        .get("/api/v1/cameras", viewer, cameras)
        .get("/api/v1/cameras/{name}/picture.jpg", viewer, picture)
        .get("/api/v1/live", viewer, live)
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

#[derive(Serialize)]
struct Overview {
    run: RunId,
    cameras: Vec<CameraView>,
}

async fn cameras(State(service): State<Service>) -> impl IntoResponse {
    (
        [(header::CACHE_CONTROL, "no-store")],
        Json(Overview {
            run: service.run,
            cameras: service.cameras.all().iter().map(CameraView::of).collect(),
        }),
    )
}

#[derive(Deserialize)]
struct Size {
    width: Option<u32>,
}

async fn picture(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    Path(name): Path<String>,
    Query(size): Query<Size>,
) -> Response {
    let width = size.width.unwrap_or(u32::MAX).max(16);
    // Drawing takes milliseconds, which is too long for an async thread.
    let (hub, camera) = (service.hub, name.clone());
    let made = tokio::task::spawn_blocking(move || hub.jpeg(&camera, width)).await;
    match made {
        Ok(Some(jpeg)) => {
            let audit = service.access.audit();
            audit.seen(&principal, &client, AuditAction::PictureSeen, &name);
            let headers = [
                (header::CONTENT_TYPE, "image/jpeg"),
                (header::CACHE_CONTROL, "no-store"),
            ];
            (headers, jpeg).into_response()
        }
        Ok(None) => (
            StatusCode::NOT_FOUND,
            "unknown camera, or no picture of it yet\n",
        )
            .into_response(),
        Err(e) => (StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response(),
    }
}
