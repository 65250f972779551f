//! The layers: a module uses only modules of lower layers (see ARCHITECTURE.md).

use std::path::{Path, PathBuf};

const LAYERS: &[(&str, u32)] = &[
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
/// Exceptions within a layer (user, used): a source reads MOTChallenge sequences.
const EXCEPTIONS: &[(&str, &str)] = &[("source", "mot_format")];
/// Modules without I/O, threads and clocks.
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
        .expect("a folder of source files")
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
    let module = |p: &Path| {
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
                module(&p),
                std::fs::read_to_string(&p).expect("readable"),
            )
        })
        .collect()
}

fn layer(module: &str) -> u32 {
    LAYERS
        .iter()
        .find(|(r, _)| *r == module)
        .unwrap_or_else(|| {
            panic!("the module '{module}' has no layer; give it one here and in ARCHITECTURE.md")
        })
        .1
}

/// The modules that a file names in `crate::…` paths.
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
fn no_module_uses_one_of_its_own_or_a_higher_layer() {
    let mut checked = 0;
    for (path, module, text) in sources() {
        for other in used(&text).into_iter().filter(|o| *o != module) {
            let allowed = layer(&other) < layer(&module)
                || EXCEPTIONS.contains(&(module.as_str(), other.as_str()));
            assert!(
                allowed,
                "{} (layer {}) uses {other} (layer {})",
                path.display(),
                layer(&module),
                layer(&other)
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
fn pure_modules_use_no_io_threads_or_clocks() {
    for (path, module, text) in sources()
        .into_iter()
        .filter(|(_, module, _)| PURE.contains(&module.as_str()))
    {
        for name in IMPURE_CRATES {
            let named = text
                .match_indices(name)
                .any(|(at, _)| !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            assert!(!named, "{} (module {module}) uses {name}", path.display());
        }
    }
}

#[test]
fn mod_files_only_declare_and_files_have_at_most_500_lines() {
    for (path, _, text) in sources() {
        assert!(
            text.lines().count() <= 500,
            "{} has {} lines",
            path.display(),
            text.lines().count()
        );
        if path.ends_with("mod.rs") {
            assert!(!text.contains("fn "), "{} has code", path.display());
        }
    }
}
