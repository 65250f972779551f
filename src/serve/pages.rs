//! The pages, compiled in. `make web` builds them from `web/`; they load nothing from other hosts.

/// The dashboard.
pub const INDEX: &str = include_str!("../../web/dist/index.html");
/// The page on which users log in.
pub const LOGIN: &str = include_str!("../../web/dist/login.html");

/// All pages.
pub const ALL: [&str; 2] = [INDEX, LOGIN];
