//! The history: each behaviour is tested on SQLite and, if it is installed, on PostgreSQL.
#![cfg(feature = "serve")]
#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "history/data.rs"]
mod data;
#[path = "history/fleet.rs"]
mod fleet;
#[path = "history/listing.rs"]
mod listing;
#[path = "history/order.rs"]
mod order;
#[path = "history/people.rs"]
mod people;
#[path = "history/server.rs"]
mod server;
#[path = "history/service.rs"]
mod service;
#[path = "history/survival.rs"]
mod survival;

use data::Place;
use server::Server;

/// A behaviour, tested on an empty database.
type Behaviour = fn(&Place);

/// Makes a test of each behaviour on SQLite, and the list for PostgreSQL.
macro_rules! behaviours {
    ($($module:ident::$name:ident,)*) => {
        const BEHAVIOURS: &[(&str, Behaviour)] =
            &[$((stringify!($name), $module::$name),)*];

        mod sqlite {
            $(#[test]
            fn $name() {
                super::$module::$name(&super::Place::file());
            })*
        }
    };
}

behaviours! {
    fleet::what_an_older_lease_wrote_behind_a_newer_one_is_left_out,
    fleet::zones_of_a_track_are_found_in_any_order_of_reading,
    fleet::people_across_cameras_get_a_number,
    listing::tracks_are_listed_by_filters_in_pages_that_new_tracks_do_not_shift,
    listing::a_track_has_its_path_zones_and_crops,
    listing::repeated_and_late_rows_change_nothing,
    listing::events_are_listed_by_filters_in_pages,
    listing::the_sink_takes_events_of_zones_and_lines,
    listing::cameras_have_their_last_state,
    listing::statistics_count_people_crossings_and_occupancy,
    listing::texts_are_stored_as_they_are,
    listing::invalid_arguments_are_named,
    people::search_finds_the_nearest_of_the_same_embedder,
    people::identities_are_enrolled_renamed_and_deleted_with_everything,
    people::events_are_renamed_and_deleted_with_their_person,
    people::old_data_are_deleted_by_kind,
    people::the_oldest_data_beyond_the_size_are_deleted,
    survival::a_newer_database_is_refused,
    survival::tracks_of_a_killed_run_are_ended,
    survival::what_is_acknowledged_survives_fifty_kills,
}

#[test]
fn every_behaviour_holds_on_postgresql() {
    let Some(server) = Server::start() else {
        return;
    };
    let failed: Vec<&str> = BEHAVIOURS
        .iter()
        .filter(|(name, behaviour)| {
            let place = Place::server(&server, name);
            std::panic::catch_unwind(|| behaviour(&place)).is_err()
        })
        .map(|(name, _)| *name)
        .collect();
    assert!(failed.is_empty(), "failed on PostgreSQL: {failed:?}");
}
