//! Tracks, their crops, and people who look similar.

use axum::extract::{Extension, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::serve::access::audit::{AuditAction, AuditEntry};
use crate::serve::access::client::Client;
use crate::serve::access::principal::Principal;
use crate::serve::access::requirement::role;
use crate::serve::access::role::Role;
use crate::serve::api::search::{FoundPeople, SearchQuery};
use crate::serve::conditional::Tagged;
use crate::serve::operation::Operation;
use crate::serve::problem::Problem;
use crate::serve::query::{PathOf, QueryOf};
use crate::serve::routes::Routes;
use crate::serve::service::Service;
use crate::store::StoreError;
use crate::store::query::{Cursor, Page, TrackDetail, TrackFilter, TrackSummary};
use crate::time::Timestamp;
use crate::trajectory::RunId;

/// A track in the path.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
pub(super) struct TrackPath {
    /// The run.
    pub run: RunId,
    /// Name of the camera.
    pub camera: String,
    /// Id of the track within run and camera.
    pub track: u64,
}

/// A crop in the path.
#[derive(Debug, Deserialize, JsonSchema)]
struct CropPath {
    /// Key of the crop, as in the `views` of a track.
    crop: i64,
}

/// Which tracks.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TracksQuery {
    /// Name of the camera.
    camera: Option<String>,
    /// Tracks that were there at this time or later.
    from: Option<Timestamp>,
    /// Tracks that began before this time.
    to: Option<Timestamp>,
    /// Tracks that were in this zone.
    zone: Option<String>,
    /// Tracks with this identity.
    identity: Option<String>,
    /// Tracks of at least this duration in seconds.
    #[schemars(range(min = 0))]
    min_duration: Option<f64>,
    /// Tracks of this run.
    run: Option<RunId>,
    /// Tracks of this person across cameras, by number.
    person: Option<u64>,
    /// Where the page begins: `next` of the page before.
    cursor: Option<String>,
    /// Most tracks on the page, 1 to 1000; absent: 50.
    #[schemars(range(min = 1, max = 1000))]
    limit: Option<usize>,
}

/// Rows of a page.
pub(super) const PAGE: usize = 50;

/// The routes.
pub(super) fn routes() -> Routes {
    let viewer = role(Role::Viewer);
    let unknown = |operation: Operation| {
        let reason = "the history has no such track or crop";
        operation.problem(StatusCode::NOT_FOUND, "not-found", reason)
    };
    Routes::default()
        .get("/api/v1/tracks", viewer, tracks)
        .documented(
            Operation::new("tracks", "Tracks, from those that began last")
                .query::<TracksQuery>()
                .answers::<Page<TrackSummary>>()
                .of_history(),
        )
        .get("/api/v1/tracks/{run}/{camera}/{track}", viewer, track)
        .documented(unknown(
            Operation::new("tracks", "A track with its path and the list of its crops")
                .path::<TrackPath>()
                .answers::<TrackDetail>()
                .of_history(),
        ))
        .get(
            "/api/v1/tracks/{run}/{camera}/{track}/similar",
            viewer,
            similar,
        )
        .documented(unknown(
            Operation::new("search", "The tracks most similar to a track")
                .path::<TrackPath>()
                .query::<SearchQuery>()
                .answers::<FoundPeople>()
                .problem(
                    StatusCode::CONFLICT,
                    "no-embedding",
                    "no embedding of the track is stored",
                )
                .of_history(),
        ))
        .get("/api/v1/crops/{crop}", viewer, crop)
        .documented(unknown(
            Operation::new("tracks", "A crop of a track")
                .path::<CropPath>()
                .answers_of(&["image/jpeg"])
                .of_history(),
        ))
}

/// The cursor in a query.
///
/// # Errors
/// 422 if it is none.
pub(super) fn cursor(text: Option<&str>) -> Result<Option<Cursor>, Problem> {
    let parsed = text.map(str::parse::<Cursor>).transpose();
    parsed.map_err(|e| match e {
        StoreError::Argument { argument, reason } => Problem::field(argument, reason),
        other => Problem::internal("read the cursor", other),
    })
}

async fn tracks(
    State(service): State<Service>,
    QueryOf(query): QueryOf<TracksQuery>,
) -> Result<Tagged<Page<TrackSummary>>, Problem> {
    let cursor = cursor(query.cursor.as_deref())?;
    let filter = TrackFilter {
        camera: query.camera,
        from: query.from,
        to: query.to,
        zone: query.zone,
        identity: query.identity,
        min_duration: query.min_duration,
        run: query.run,
        person: query.person,
    };
    let limit = query.limit.unwrap_or(PAGE);
    let page = service
        .ask(move |h| h.tracks(&filter, cursor, limit))
        .await?;
    Ok(Tagged(page))
}

async fn track(
    State(service): State<Service>,
    PathOf(path): PathOf<TrackPath>,
) -> Result<Tagged<TrackDetail>, Problem> {
    let TrackPath { run, camera, track } = path;
    let found = service.ask(move |h| h.track(run, &camera, track)).await?;
    found.map(Tagged).ok_or_else(unknown_track)
}

/// 404 for a track that the history does not have.
fn unknown_track() -> Problem {
    Problem::not_found("the history has no such track")
}

/// The embedder (name and hash) and the stored embedding of a track.
///
/// # Errors
/// 404 without a history, or for an unknown track; 409 if no embedding of it is stored.
pub(super) async fn embedding_of(
    service: &Service,
    run: RunId,
    camera: &str,
    track: u64,
) -> Result<(String, Vec<f32>), Problem> {
    let camera = camera.to_string();
    let asked = service.ask(move |h| {
        let embedding = h.embedding(run, &camera, track)?;
        let known = embedding.is_some() || h.track(run, &camera, track)?.is_some();
        Ok((known, embedding))
    });
    // If embeddings may not be stored, those of earlier runs do not count.
    let wanted = service.history()?.config().embeddings;
    match asked.await? {
        (_, Some(found)) if wanted => Ok(found),
        (false, None) => Err(unknown_track()),
        _ => Err(no_embedding()),
    }
}

/// 409 for a track without a stored embedding.
pub(super) fn no_embedding() -> Problem {
    let detail = "no embedding of this track is stored or may be used: it has not ended, or \
                  embeddings are switched off (history.embeddings or privacy.embeddings)";
    Problem::new(StatusCode::CONFLICT, "no-embedding", detail)
}

async fn similar(
    State(service): State<Service>,
    Extension(principal): Extension<Principal>,
    Extension(client): Extension<Client>,
    PathOf(path): PathOf<TrackPath>,
    QueryOf(query): QueryOf<SearchQuery>,
) -> Result<Tagged<FoundPeople>, Problem> {
    query.without_box()?;
    let wanted = query.wanted()?;
    let TrackPath { run, camera, track } = path;
    let object = format!("like track {track} of {camera}");
    let (embedder, embedding) = embedding_of(&service, run, &camera, track).await?;
    let entry = AuditEntry::new(AuditAction::Search);
    let entry = entry.by(&principal).from(&client).on(object);
    service.access.audit().record(entry);
    let more = wanted + 1; // the track itself is among those found
    let mut found = query.find(&service, embedder, embedding, more).await?;
    found.items.retain(|f| {
        (f.found.track.run, f.found.track.id) != (run, track) || f.found.track.camera != camera
    });
    found.items.truncate(wanted);
    Ok(Tagged(found))
}

async fn crop(
    State(service): State<Service>,
    PathOf(CropPath { crop }): PathOf<CropPath>,
) -> Result<Response, Problem> {
    // Crops of earlier runs may not be blurred as those of this one.
    if !service.history()?.config().crops {
        return Err(Problem::not_found(
            "crops are switched off (history.crops or privacy.crops)",
        ));
    }
    let jpeg = service.ask(move |h| h.crop(crop)).await?;
    let jpeg = jpeg.ok_or_else(|| Problem::not_found("the history has no such crop"))?;
    // Keys are never used again, so that a crop does not change. It is not kept for long, because
    // it can be deleted with its person.
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("image/jpeg")),
        (
            header::CACHE_CONTROL,
            HeaderValue::from_static("private, max-age=300"),
        ),
    ];
    Ok((headers, jpeg).into_response())
}
