//! The pages, compiled in. They load nothing from other hosts.

/// The page with the cameras.
pub const INDEX: &str = include_str!("../../web/index.html");
/// The page on which users log in.
pub const LOGIN: &str = include_str!("../../web/login.html");

/// All pages.
pub const ALL: [&str; 2] = [INDEX, LOGIN];
