//! Events of zones and lines, changes of cameras' states, statistics and heat maps.

use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::serve::access::requirement::role;
use crate::serve::access::role::Role;
use crate::serve::api::tracks::{PAGE, cursor};
use crate::serve::conditional::Tagged;
use crate::serve::operation::Operation;
use crate::serve::problem::Problem;
use crate::serve::query::{PathOf, QueryOf};
use crate::serve::routes::Routes;
use crate::serve::service::Service;
use crate::serve::video::CameraPath;
use crate::store::heat_map::{HeatMap, HeatMapQuery};
use crate::store::query::{Bucket, EventFilter, Page, StatusChange, StoredEvent};
use crate::store::rows::EventKind;
use crate::store::statistics::StatisticsQuery;
use crate::time::Timestamp;

/// Which events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct EventsQuery {
    /// Name of the camera.
    camera: Option<String>,
    /// Events at this time or later.
    from: Option<Timestamp>,
    /// Events before this time.
    to: Option<Timestamp>,
    /// Of zones or of lines.
    kind: Option<EventKind>,
    /// Name of the zone or line.
    name: Option<String>,
    /// What happened: enter, leave, dwell, `over_limit`, `within_limit`, in or out.
    action: Option<String>,
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
    /// Most events on the page, 1 to 1000; absent: 50.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

/// How many changes of state.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StatusQuery {
    /// Most changes, 1 to 1000; absent: 50.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

/// The changes of a camera's state, from new to old.
#[derive(Debug, Serialize, JsonSchema)]
struct StatusChanges {
    items: Vec<StatusChange>,
}

/// What is counted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct BucketsQuery {
    /// Begin of the first bucket.
    from: Timestamp,
    /// End of the last bucket.
    to: Timestamp,
    /// Length of a bucket in seconds, at least 1; absent: 3600. A request for more than
    /// 10000 buckets is refused.
    #[schemars(range(min = 1))]
    bucket: Option<f64>,
    /// Name of the camera; absent: all.
    camera: Option<String>,
    /// Name of the zone or line; absent: all.
    name: Option<String>,
}

/// Counts per bucket.
#[derive(Debug, Serialize, JsonSchema)]
struct Buckets {
    buckets: Vec<Bucket>,
}

/// Which tracks, and how fine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CellsQuery {
    /// Name of the camera.
    camera: String,
    /// Tracks that were there at this time or later.
    from: Option<Timestamp>,
    /// Tracks that began before this time.
    to: Option<Timestamp>,
    /// Number of columns, 1 to 256; absent: 64.
    #[schemars(range(min = 1, max = 256))]
    columns: Option<u32>,
}

/// The routes.
pub(super) fn routes() -> Routes {
    let viewer = role(Role::Viewer);
    Routes::default()
        .get("/api/v1/events", viewer, events)
        .documented(
            Operation::new("events", "Events of zones and lines, from new to old")
                .query::<EventsQuery>()
                .answers::<Page<StoredEvent>>()
                .of_history(),
        )
        .get("/api/v1/cameras/{camera}/status", viewer, status)
        .documented(
            Operation::new(
                "cameras",
                "The changes of a camera's state, from new to old",
            )
            .path::<CameraPath>()
            .query::<StatusQuery>()
            .answers::<StatusChanges>()
            .problem(
                StatusCode::NOT_FOUND,
                "not-found",
                "no such camera was ever seen",
            )
            .of_history(),
        )
        .get("/api/v1/statistics", viewer, statistics)
        .documented(
            Operation::new(
                "statistics",
                "People, crossings and occupancy per span of time",
            )
            .query::<BucketsQuery>()
            .answers::<Buckets>()
            .of_history(),
        )
        .get("/api/v1/heatmap", viewer, heat_map)
        .documented(
            Operation::new("statistics", "Where people were, and for how long")
                .query::<CellsQuery>()
                .answers::<HeatMap>()
                .of_history(),
        )
}

async fn events(
    State(service): State<Service>,
    QueryOf(query): QueryOf<EventsQuery>,
) -> Result<Tagged<Page<StoredEvent>>, Problem> {
    let cursor = cursor(query.cursor.as_deref())?;
    let filter = EventFilter {
        camera: query.camera,
        from: query.from,
        to: query.to,
        kind: query.kind,
        name: query.name,
        action: query.action,
    };
    let limit = query.limit.unwrap_or(PAGE);
    let page = service
        .ask(move |h| h.events(&filter, cursor, limit))
        .await?;
    Ok(Tagged(page))
}

async fn status(
    State(service): State<Service>,
    PathOf(CameraPath { camera }): PathOf<CameraPath>,
    QueryOf(query): QueryOf<StatusQuery>,
) -> Result<Tagged<StatusChanges>, Problem> {
    let limit = query.limit.unwrap_or(PAGE);
    if !(1..=1000).contains(&limit) {
        return Err(Problem::field("limit", "it must be from 1 to 1000"));
    }
    let answer = service.ask(move |h| {
        let items = h.camera_status(&camera, limit)?;
        let known = !items.is_empty() || h.cameras()?.iter().any(|c| c.camera == camera);
        Ok(known.then_some(items))
    });
    let items = answer.await?;
    let items = items.ok_or_else(|| Problem::not_found("no such camera was ever seen"))?;
    Ok(Tagged(StatusChanges { items }))
}

async fn statistics(
    State(service): State<Service>,
    QueryOf(query): QueryOf<BucketsQuery>,
) -> Result<Tagged<Buckets>, Problem> {
    let question = StatisticsQuery {
        from: query.from,
        to: query.to,
        bucket: query.bucket.unwrap_or(3600.0),
        camera: query.camera,
        name: query.name,
    };
    let buckets = service.ask(move |h| h.statistics(&question)).await?;
    Ok(Tagged(Buckets { buckets }))
}

async fn heat_map(
    State(service): State<Service>,
    QueryOf(query): QueryOf<CellsQuery>,
) -> Result<Tagged<HeatMap>, Problem> {
    let question = HeatMapQuery {
        camera: query.camera,
        from: query.from,
        to: query.to,
        columns: query.columns.unwrap_or(64),
    };
    service
        .ask(move |h| h.heat_map(&question))
        .await
        .map(Tagged)
}
