//! The house: a room uses those on floors below it only (see ARCHITECTURE.md).

use std::path::{Path, PathBuf};

const FLOORS: &[(&str, u32)] = &[
    ("geometry", 1),
    ("time", 1),
    ("range", 1),
    ("secret", 1),
    ("address", 1),
    ("onnx", 1),
    ("frame", 2),
    ("detection", 2),
    ("track", 3),
    ("source", 3),
    ("infer", 3),
    ("mot_format", 3),
    ("camera_flow", 4),
    ("detect", 4),
    ("embed", 4),
    ("models", 4),
    ("eval", 4),
    ("trajectory", 4),
    ("refine", 5),
    ("sink", 6),
    ("config", 7),
    ("gallery", 8),
    ("pipeline", 8),
    ("train", 8),
    ("serve", 9),
    ("app", 10),
    ("fuzzing", 10),
    ("bin", 11),
    ("main", 11),
];
/// On one floor, but one stands on the other: pictures come in MOTChallenge folders.
const NEIGHBOURS: &[(&str, &str)] = &[("source", "mot_format")];
const PURE: &[&str] = &[
    "geometry",
    "time",
    "range",
    "frame",
    "detection",
    "track",
    "mot_format",
    "eval",
    "trajectory",
    "refine",
];
const IMPURE_CRATES: &[&str] = &[
    "opencv::",
    "ort::",
    "tokio::",
    "std::time::Instant",
    "std::thread",
];

fn files(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir)
        .expect("a folder of sources")
        .flatten()
    {
        let path = entry.path();
        if path.is_dir() {
            files(&path, out)
        } else {
            out.push(path)
        }
    }
}

fn sources() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    files(&root, &mut paths);
    let room = |p: &Path| {
        let first = p
            .strip_prefix(&root)
            .expect("below src")
            .components()
            .next()
            .expect("a name")
            .as_os_str()
            .to_string_lossy()
            .into_owned();
        first.trim_end_matches(".rs").to_string()
    };
    paths
        .into_iter()
        .filter(|p| !p.ends_with("lib.rs"))
        .map(|p| {
            (
                p.clone(),
                room(&p),
                std::fs::read_to_string(&p).expect("readable"),
            )
        })
        .collect()
}

fn floor(room: &str) -> u32 {
    FLOORS
        .iter()
        .find(|(r, _)| *r == room)
        .unwrap_or_else(|| {
            panic!("the room '{room}' has no floor; give it one here and in ARCHITECTURE.md")
        })
        .1
}

/// The rooms that a file names in `crate::…` paths.
fn used(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    code.split("crate::")
        .skip(1)
        .map(|rest| {
            rest.chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect()
        })
        .filter(|r: &String| !r.is_empty())
        .collect()
}

#[test]
fn no_room_uses_one_above_or_beside_it() {
    let mut checked = 0;
    for (path, room, text) in sources() {
        for other in used(&text).into_iter().filter(|o| *o != room) {
            let allowed = floor(&other) < floor(&room)
                || NEIGHBOURS.contains(&(room.as_str(), other.as_str()));
            assert!(
                allowed,
                "{} (floor {}) uses {other} (floor {})",
                path.display(),
                floor(&room),
                floor(&other)
            );
            checked += 1;
        }
    }
    assert!(
        checked > 50,
        "only {checked} uses found: is the search broken?"
    );
}

#[test]
fn the_pure_rooms_know_no_machine() {
    for (path, room, text) in sources()
        .into_iter()
        .filter(|(_, room, _)| PURE.contains(&room.as_str()))
    {
        for name in IMPURE_CRATES {
            let named = text
                .match_indices(name)
                .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            assert!(!named, "{} (room {room}) uses {name}", path.display());
        }
    }
}

#[test]
fn mod_files_only_declare_and_files_stay_readable() {
    for (path, _, text) in sources() {
        assert!(
            text.lines().count() <= 500,
            "{} has {} lines",
            path.display(),
            text.lines().count()
        );
        if path.ends_with("mod.rs") {
            assert!(!text.contains("fn "), "{} does work", path.display());
        }
    }
}
