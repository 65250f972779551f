//! The structure of the source files (see ARCHITECTURE.md): modules use modules of lower layers
//! only, pure modules use nothing impure, imports have no cycles, and files are short.

#[path = "layering/imports.rs"]
mod imports;
#[path = "layering/tree.rs"]
mod tree;

use std::collections::{BTreeMap, BTreeSet};

use tree::{SourceFile, Tree};

/// Modules and their layers.
const LAYERS: &[(&str, u32)] = &[
    ("geometry", 1),
    ("time", 1),
    ("range", 1),
    ("secret", 1),
    ("address", 1),
    ("auto_or", 1),
    ("onnx", 1),
    ("mot_format", 1),
    ("text_file", 1),
    ("analytics", 2),
    ("clock", 2),
    ("frame", 2),
    ("detection", 2),
    ("mot_files", 2),
    ("track", 3),
    ("source", 3),
    ("infer", 3),
    ("camera_flow", 4),
    ("detect", 4),
    ("embed", 4),
    ("models", 4),
    ("eval", 4),
    ("trajectory", 4),
    ("multi_camera", 5),
    ("refine", 5),
    ("sink", 6),
    ("store", 7),
    ("config", 7),
    ("gallery", 8),
    ("pipeline", 8),
    ("train", 8),
    ("fleet", 9),
    ("serve", 10),
    ("prelude", 11),
    ("fuzzing", 11),
    ("app", 11),
    ("bin", 12),
    ("main", 12),
];
/// Modules without I/O, threads and clocks. They use no other modules.
const PURE: &[&str] = &[
    "analytics",
    "auto_or",
    "geometry",
    "time",
    "range",
    "mot_format",
    "frame",
    "detection",
    "track",
    "eval",
    "trajectory",
    "multi_camera",
    "refine",
];
/// Names that pure modules must not use.
const IMPURE: &[&str] = &[
    "opencv",
    "ort",
    "tokio",
    "std::env",
    "std::fs",
    "std::net",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "jiff::Timestamp::now",
    "jiff::Zoned::now",
];
/// Longest file, lines.
const MAX_LINES: usize = 500;

fn layer(module: &str) -> u32 {
    LAYERS
        .iter()
        .find(|(name, _)| *name == module)
        .unwrap_or_else(|| {
            panic!("the module '{module}' has no layer; give it one here and in ARCHITECTURE.md")
        })
        .1
}

/// The uses of modules of the same or a higher layer.
fn upward_uses(file: &SourceFile) -> Vec<String> {
    let used: BTreeSet<&str> = file
        .uses
        .iter()
        .filter_map(|path| path.strip_prefix("crate::")?.split("::").next())
        .filter(|module| LAYERS.iter().any(|(name, _)| name == module))
        .collect();
    used.into_iter()
        .filter(|module| *module != file.module && layer(module) >= layer(&file.module))
        .map(str::to_string)
        .collect()
}

/// The names in a pure module's file that make it impure.
fn impure_names(file: &SourceFile) -> Vec<String> {
    let forbidden = |path: &&String| {
        let named = IMPURE.iter().any(|name| {
            let within = |inner: &str, outer: &str| {
                inner == outer
                    || inner
                        .strip_prefix(outer)
                        .is_some_and(|rest| rest.starts_with("::"))
            };
            within(path, name)
                || path
                    .strip_suffix("::*")
                    .is_some_and(|all| within(name, all))
        });
        let module = path
            .strip_prefix("crate::")
            .and_then(|rest| rest.split("::").next());
        named
            || module
                .is_some_and(|m| LAYERS.iter().any(|(name, _)| *name == m) && !PURE.contains(&m))
    };
    file.uses.iter().filter(forbidden).cloned().collect()
}

/// A cycle in a graph, as its nodes in order; None if there is none.
fn cycle(graph: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    fn visit<'a>(
        node: &'a str,
        graph: &'a BTreeMap<String, BTreeSet<String>>,
        path: &mut Vec<&'a str>,
        done: &mut BTreeSet<&'a str>,
    ) -> Option<Vec<String>> {
        if let Some(at) = path.iter().position(|n| *n == node) {
            return Some(path[at..].iter().map(ToString::to_string).collect());
        }
        if done.contains(node) {
            return None;
        }
        path.push(node);
        let found = graph
            .get(node)
            .into_iter()
            .flatten()
            .find_map(|next| visit(next, graph, path, done));
        path.pop();
        done.insert(node);
        found
    }
    let mut done = BTreeSet::new();
    graph
        .keys()
        .find_map(|node| visit(node, graph, &mut Vec::new(), &mut done))
}

#[test]
fn no_module_uses_one_of_its_own_or_a_higher_layer() {
    let tree = Tree::read();
    for file in &tree.files {
        let (layer, upward) = (layer(&file.module), upward_uses(file));
        let path = file.path.display();
        assert!(upward.is_empty(), "{path} (layer {layer}) uses {upward:?}");
    }
    let checked: usize = tree.files.iter().map(|f| f.uses.len()).sum();
    assert!(checked > 1000, "only {checked} paths found");
}

#[test]
fn pure_modules_use_no_io_threads_or_clocks() {
    for file in Tree::read().files {
        if PURE.contains(&file.module.as_str()) {
            let names = impure_names(&file);
            assert!(names.is_empty(), "{} uses {names:?}", file.path.display());
        }
    }
}

#[test]
fn files_do_not_import_each_other_in_cycles() {
    let graph = Tree::read().graph();
    let edges: usize = graph.values().map(BTreeSet::len).sum();
    assert!(edges > 300, "only {edges} imports between files found");
    assert_eq!(cycle(&graph), None);
}

#[test]
fn mod_files_only_declare_and_files_are_short() {
    for file in Tree::read().files {
        let lines = file.text.lines().count();
        assert!(
            lines <= MAX_LINES,
            "{} has {lines} lines of at most {MAX_LINES}",
            file.path.display()
        );
        if file.path.ends_with("mod.rs") {
            let code = imports::code(&file.text);
            assert!(!code.contains("fn "), "{} has code", file.path.display());
        }
    }
}

#[test]
fn the_checks_find_what_they_look_for() {
    let file = |path: &str, text: &str| SourceFile::parse(path.as_ref(), text);
    let upward = |text| upward_uses(&file("track/a.rs", text));
    assert_eq!(upward("use crate::{time::Seconds, sink::Sink};"), ["sink"]);
    assert_eq!(upward("fn f() { crate::source::open() }"), ["source"]);
    assert_eq!(upward("use super::super::{infer};"), ["infer"]);
    assert!(upward("use crate::frame::Frame; // crate::sink\n").is_empty());
    let impure = |text| impure_names(&file("track/a.rs", text)).len();
    for text in [
        "use std::{fmt, fs};",
        "use std::{collections::{self, BTreeMap}, time::{Duration, Instant}};",
        "fn f() { std::env::var(\"x\"); }",
        "use jiff::Timestamp;\nfn f() { Timestamp::now(); }",
        "use std::time;\nfn f() { time::Instant::now(); }",
        "use std::*;",
        "use tokio::sync::mpsc;",
        "use crate::clock;",
    ] {
        assert!(impure(text) > 0, "{text}");
    }
    assert_eq!(
        impure("use std::time::Duration; // std::fs\nconst A: &str = \"std::fs\";"),
        0
    );
    assert_eq!(impure("#[cfg(test)]\nmod tests { use std::fs; }"), 0);
    let tree = |files: &[(&str, &str)]| Tree {
        files: files.iter().map(|(path, text)| file(path, text)).collect(),
    };
    let (a, b) = (
        ("m/a.rs", "use crate::m::B;"),
        ("m/b.rs", "use super::a::A;"),
    );
    let both = tree(&[("m/mod.rs", "mod a;\nmod b;\npub use b::{B};"), a, b]);
    assert_eq!(cycle(&both.graph()).map(|c| c.len()), Some(2));
    let one = tree(&[
        ("m/mod.rs", "mod a;\nmod b;\npub use b::{B};"),
        a,
        ("m/b.rs", ""),
    ]);
    assert_eq!(cycle(&one.graph()), None);
    let parent = tree(&[("m.rs", "use crate::m::c::C;"), ("m/c.rs", "use super::M;")]);
    assert_eq!(
        cycle(&parent.graph()),
        None,
        "a file and its submodules are one unit"
    );
}
