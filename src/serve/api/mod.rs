//! The HTTP interface `/api/v1`: tracks, events, statistics, search, identities, shapes, exports.

mod events;
mod export;
mod export_mot;
mod export_parquet;
mod history;
mod identities;
mod overview;
mod search;
mod shapes;
mod tracks;

use crate::serve::routes::Routes;

/// The routes of the interface, except for session, audit log and live streams.
pub fn routes() -> Routes {
    overview::routes()
        .merge(shapes::routes())
        .merge(tracks::routes())
        .merge(events::routes())
        .merge(search::routes())
        .merge(identities::routes())
        .merge(export::routes())
}
