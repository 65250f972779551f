//! Zones, lines and masks: reads all of a camera, changes those that were drawn.

use std::collections::BTreeMap;

use axum::extract::{Extension, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::analytics::{
    CountingConfig, GroundConfig, LineConfig, MaskConfig, Scene, SceneView, ZoneConfig,
};
use crate::serve::access::audit::{AuditAction, AuditEntry};
use crate::serve::access::client::Client;
use crate::serve::access::principal::Principal;
use crate::serve::access::requirement::role;
use crate::serve::access::role::Role;
use crate::serve::camera_settings::{CameraShapes, ShapeError};
use crate::serve::conditional::{Tagged, entity_tag, has_tag};
use crate::serve::drawn_shapes::{Shape, ShapeKind};
use crate::serve::hub::Hub;
use crate::serve::json_body::JsonBody;
use crate::serve::operation::Operation;
use crate::serve::problem::Problem;
use crate::serve::query::PathOf;
use crate::serve::routes::Routes;
use crate::serve::service::Service;
use crate::serve::video::CameraPath;

/// Camera and shape in the path.
#[derive(Debug, Deserialize, JsonSchema)]
struct ShapePath {
    /// Name of the camera.
    camera: String,
    /// Name of the shape.
    name: String,
}

/// Where a shape comes from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Origin {
    /// The configuration file; it cannot be changed here.
    Configuration,
    /// Drawn on the page, or set over HTTP.
    Drawn,
}

/// A shape with its origin.
#[derive(Debug, Serialize, JsonSchema)]
struct ShapeView<T> {
    #[serde(flatten)]
    shape: T,
    origin: Origin,
    /// The points in pixels; absent before the first frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pixels: Option<Vec<[f64; 2]>>,
}

/// The shapes of a camera.
#[derive(Debug, Serialize, JsonSchema)]
struct ShapesView {
    camera: String,
    /// Width and height of the frame in pixels; absent before the first frame.
    #[serde(skip_serializing_if = "Option::is_none")]
    frame: Option<[u32; 2]>,
    zones: BTreeMap<String, ShapeView<ZoneConfig>>,
    lines: BTreeMap<String, ShapeView<LineConfig>>,
    masks: BTreeMap<String, ShapeView<MaskConfig>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ground: Option<GroundConfig>,
}

/// The routes.
pub(super) fn routes() -> Routes {
    let (viewer, operator) = (role(Role::Viewer), role(Role::Operator));
    Routes::default()
        .get("/api/v1/cameras/{camera}/shapes", viewer, shapes)
        .documented(
            Operation::new("shapes", "The zones, lines and masks of a camera")
                .path::<CameraPath>()
                .answers::<ShapesView>()
                .problem(
                    StatusCode::NOT_FOUND,
                    "not-found",
                    "there is no such camera",
                ),
        )
        .put("/api/v1/cameras/{camera}/zones/{name}", operator, put_zone)
        .documented(changes("Adds or replaces a zone").body::<ZoneConfig>())
        .put("/api/v1/cameras/{camera}/lines/{name}", operator, put_line)
        .documented(changes("Adds or replaces a line").body::<LineConfig>())
        .put("/api/v1/cameras/{camera}/masks/{name}", operator, put_mask)
        .documented(changes("Adds or replaces a mask").body::<MaskConfig>())
        .delete(
            "/api/v1/cameras/{camera}/zones/{name}",
            operator,
            delete_zone,
        )
        .documented(removes("Removes a zone"))
        .delete(
            "/api/v1/cameras/{camera}/lines/{name}",
            operator,
            delete_line,
        )
        .documented(removes("Removes a line"))
        .delete(
            "/api/v1/cameras/{camera}/masks/{name}",
            operator,
            delete_mask,
        )
        .documented(removes("Removes a mask"))
}

fn removes(summary: &'static str) -> Operation {
    Operation::new("shapes", summary)
        .path::<ShapePath>()
        .answers_empty(StatusCode::NO_CONTENT)
        .problem(
            StatusCode::NOT_FOUND,
            "not-found",
            "there is no such camera or shape",
        )
        .problem(
            StatusCode::CONFLICT,
            "configured",
            "the configuration file has a shape of this name",
        )
        .problem(
            StatusCode::CONFLICT,
            "fleet",
            "the shapes of a fleet's cameras are part of their records",
        )
        .problem(
            StatusCode::PRECONDITION_FAILED,
            "changed",
            "the shapes have changed since those whose ETag is in If-Match",
        )
}

fn changes(summary: &'static str) -> Operation {
    let mut operation = removes(summary);
    operation.answers.clear();
    operation
        .answers_empty(StatusCode::OK)
        .answers_empty(StatusCode::CREATED)
        .problem(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid-field",
            "a value is not allowed; `field` names it",
        )
}

async fn shapes(
    State(service): State<Service>,
    PathOf(CameraPath { camera }): PathOf<CameraPath>,
) -> Result<Tagged<ShapesView>, Problem> {
    view(&service, &camera).map(Tagged)
}

fn view(service: &Service, camera: &str) -> Result<ShapesView, Problem> {
    let shapes = service.settings.shapes(camera);
    let shapes = shapes.ok_or_else(|| shape_problem(ShapeError::UnknownCamera(camera.into())))?;
    Ok(view_of(&service.hub, camera, shapes))
}

fn view_of(hub: &Hub, camera: &str, shapes: CameraShapes) -> ShapesView {
    let CameraShapes {
        configured,
        drawn,
        used,
    } = shapes;
    let size = hub.scene(camera).map(|(size, _)| size);
    let ground = used.ground.clone();
    let masks: Vec<String> = used.masks.keys().cloned().collect();
    // A scene of its own, because that of the tracker has a change from the next frame on.
    let pixels = size.and_then(|size| {
        let scene = Scene::new(used, CountingConfig::default()).ok();
        scene.map(|mut scene| scene.shapes(size.into()))
    });
    let pixels_of = |kind, name: &String| {
        let number = masks.iter().position(|n| n == name);
        pixels
            .as_ref()
            .and_then(|view| points(view, kind, name, number))
    };
    let mut all = ShapesView {
        camera: camera.into(),
        frame: size,
        zones: BTreeMap::new(),
        lines: BTreeMap::new(),
        masks: BTreeMap::new(),
        ground,
    };
    for (shapes, origin) in [
        (&configured, Origin::Configuration),
        (&drawn, Origin::Drawn),
    ] {
        for (name, shape) in shapes.all() {
            let pixels = pixels_of(shape.kind(), name);
            let name = name.clone();
            match shape {
                Shape::Zone(shape) => {
                    let view = ShapeView {
                        shape,
                        origin,
                        pixels,
                    };
                    all.zones.insert(name, view);
                }
                Shape::Line(shape) => {
                    let view = ShapeView {
                        shape,
                        origin,
                        pixels,
                    };
                    all.lines.insert(name, view);
                }
                Shape::Mask(shape) => {
                    let view = ShapeView {
                        shape,
                        origin,
                        pixels,
                    };
                    all.masks.insert(name, view);
                }
            }
        }
    }
    all
}

/// The points of a shape in pixels. Masks have no names in a view, but the order of their names.
fn points(
    view: &SceneView,
    kind: ShapeKind,
    name: &str,
    mask: Option<usize>,
) -> Option<Vec<[f64; 2]>> {
    match kind {
        ShapeKind::Zone => {
            let zone = view.zones.iter().find(|z| *z.name == *name)?;
            Some(zone.points.clone())
        }
        ShapeKind::Line => {
            let line = view.lines.iter().find(|l| *l.name == *name)?;
            Some(line.points.clone())
        }
        ShapeKind::Mask => view.masks.get(mask?).cloned(),
    }
}

fn shape_problem(error: ShapeError) -> Problem {
    let text: String = error.to_string().chars().take(300).collect();
    match error {
        ShapeError::UnknownCamera(_) | ShapeError::UnknownShape(_) => Problem::not_found(text),
        ShapeError::Changed => Problem::new(StatusCode::PRECONDITION_FAILED, "changed", text),
        ShapeError::Fleet => Problem::new(StatusCode::CONFLICT, "fleet", text),
        ShapeError::Configured(_) => Problem::new(StatusCode::CONFLICT, "configured", text),
        ShapeError::Scene(error) => {
            let (field, detail) = field_of(&error.to_string());
            Problem::field(field, detail)
        }
        ShapeError::File(error) => Problem::internal("store the shape", error),
    }
}

/// The field of a message such as `zones.door.dwell must be …`, or `zones.door cannot be used: …`,
/// which is about the points or the name.
fn field_of(message: &str) -> (String, String) {
    let (key, rest) = message.split_once(' ').unwrap_or((message, ""));
    let last = key.rsplit('.').next().unwrap_or(key);
    match rest.split_once("cannot be used: ") {
        Some((_, reason)) if reason.starts_with("its name") => ("name".into(), reason.into()),
        Some((_, reason)) => ("points".into(), reason.into()),
        None => (last.into(), message.into()),
    }
}

/// A change of a shape by a request.
struct ShapeChange {
    service: Service,
    principal: Principal,
    client: Client,
    path: ShapePath,
    headers: HeaderMap,
}

impl ShapeChange {
    /// Whether shapes are those that the client knows; true if it does not say.
    fn expected(&self) -> impl FnOnce(&CameraShapes) -> bool + Send + use<> {
        let (hub, camera) = (self.service.hub.clone(), self.path.camera.clone());
        let headers = self.headers.clone();
        move |shapes| {
            if !headers.contains_key(header::IF_MATCH) {
                return true;
            }
            let view = view_of(&hub, &camera, shapes.clone());
            let bytes = serde_json::to_vec(&view).unwrap_or_default();
            has_tag(&headers, header::IF_MATCH, &entity_tag(&bytes))
        }
    }

    fn record(&self, kind: ShapeKind, action: &str) {
        let (camera, name) = (&self.path.camera, &self.path.name);
        let object = format!("{camera} {}.{name} {action}", kind.section());
        let entry = AuditEntry::new(AuditAction::ZonesChanged);
        let entry = entry.by(&self.principal).from(&self.client).on(object);
        self.service.access.audit().record(entry);
    }

    async fn put(self, shape: Shape) -> Result<Response, Problem> {
        let (camera, name) = (self.path.camera.clone(), self.path.name.clone());
        let (settings, kind) = (self.service.settings.clone(), shape.kind());
        let expected = self.expected();
        let put = move || settings.put(&camera, &name, shape, expected);
        let put = tokio::task::spawn_blocking(put).await;
        let put = put.map_err(|e| Problem::internal("store the shape", e))?;
        let is_new = put.map_err(shape_problem)?;
        self.record(kind, if is_new { "added" } else { "replaced" });
        Ok(if is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        }
        .into_response())
    }

    async fn delete(self, kind: ShapeKind) -> Result<Response, Problem> {
        let (camera, name) = (self.path.camera.clone(), self.path.name.clone());
        let settings = self.service.settings.clone();
        let expected = self.expected();
        let remove = move || settings.remove(&camera, kind, &name, expected);
        let removed = tokio::task::spawn_blocking(remove).await;
        let removed = removed.map_err(|e| Problem::internal("remove the shape", e))?;
        removed.map_err(shape_problem)?;
        self.record(kind, "removed");
        Ok(StatusCode::NO_CONTENT.into_response())
    }
}

/// Handlers of a kind of shape.
macro_rules! handlers {
    ($($put:ident, $delete:ident, $config:ty, $kind:ident;)*) => {$(
        async fn $put(
            State(service): State<Service>,
            Extension(principal): Extension<Principal>,
            Extension(client): Extension<Client>,
            PathOf(path): PathOf<ShapePath>,
            headers: HeaderMap,
            JsonBody(config): JsonBody<$config>,
        ) -> Result<Response, Problem> {
            let change = ShapeChange { service, principal, client, path, headers };
            change.put(Shape::$kind(config)).await
        }

        async fn $delete(
            State(service): State<Service>,
            Extension(principal): Extension<Principal>,
            Extension(client): Extension<Client>,
            PathOf(path): PathOf<ShapePath>,
            headers: HeaderMap,
        ) -> Result<Response, Problem> {
            let change = ShapeChange { service, principal, client, path, headers };
            change.delete(ShapeKind::$kind).await
        }
    )*};
}

handlers! {
    put_zone, delete_zone, ZoneConfig, Zone;
    put_line, delete_line, LineConfig, Line;
    put_mask, delete_mask, MaskConfig, Mask;
}
