//! The routes of the HTTP interface.

use crate::serve::api::{events, export, fleet, identities, overview, search, shapes, tracks};
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
        .merge(fleet::routes())
}
