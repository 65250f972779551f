//! The source files below `src/`, and their imports.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::imports;

/// A source file.
pub struct SourceFile {
    /// Its path below `src/`.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// The crate's top-level module that contains the file.
    pub module: String,
    /// The paths that the file uses, without those in its tests. Paths into the crate begin with
    /// `crate::`.
    pub uses: BTreeSet<String>,
    /// Imported names, with their paths.
    names: BTreeMap<String, String>,
}

impl SourceFile {
    /// Parses the text of a file; `path` is below `src/`.
    pub fn parse(path: &Path, text: &str) -> Self {
        let own = module_path(path);
        let code = match path.ends_with("tests.rs") {
            true => String::new(),
            false => imports::without_tests(&imports::code(text)),
        };
        let (imports, inline) = imports::paths(&code);
        let expanded = imports::expanded(&imports, inline);
        let names = imports
            .iter()
            .map(|i| (i.name.clone(), absolute(&i.path, &own).join("::")))
            .collect();
        let uses = imports
            .iter()
            .map(|i| &i.path)
            .chain(&expanded)
            .map(|p| absolute(p, &own).join("::"))
            .collect();
        SourceFile {
            path: path.into(),
            text: text.into(),
            module: own.get(1).cloned().unwrap_or_default(),
            uses,
            names,
        }
    }
}

/// The path of a file's module: `crate`, then its folders and its name.
fn module_path(file: &Path) -> Vec<String> {
    let names = file.with_extension("");
    let names = names.iter().map(|n| n.to_string_lossy().into_owned());
    std::iter::once("crate".to_string())
        .chain(names.filter(|n| n != "mod"))
        .collect()
}

/// Converts a path that begins with `crate`, `twintrack`, `self` or `super` to one from the crate's
/// root; returns other paths unchanged. `own`: the path of the module that contains it.
fn absolute(path: &[String], own: &[String]) -> Vec<String> {
    let supers = path.iter().take_while(|s| *s == "super").count();
    match path[0].as_str() {
        "crate" | "twintrack" => [&["crate".to_string()], &path[1..]].concat(),
        "self" => [own, &path[1..]].concat(),
        "super" => [&own[..own.len().saturating_sub(supers)], &path[supers..]].concat(),
        _ => path.to_vec(),
    }
}

/// All source files.
pub struct Tree {
    /// The files, except `lib.rs`.
    pub files: Vec<SourceFile>,
}

impl Tree {
    /// Reads `src/`.
    pub fn read() -> Self {
        fn collect(dir: &Path, out: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).expect("a folder").flatten() {
                match entry.path() {
                    path if path.is_dir() => collect(&path, out),
                    path => out.push(path),
                }
            }
        }
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut paths = Vec::new();
        collect(&root, &mut paths);
        paths.retain(|p| *p != root.join("lib.rs"));
        let parse = |path: &PathBuf| {
            let text = std::fs::read_to_string(path).expect("readable");
            SourceFile::parse(path.strip_prefix(&root).expect("below src"), &text)
        };
        Tree {
            files: paths.iter().map(parse).collect(),
        }
    }

    /// The module path of the file that defines `path`; re-exports in `mod.rs` files are followed.
    fn defined_in(&self, path: &str, modules: &BTreeMap<String, &SourceFile>) -> Option<String> {
        let (module, file) = (1..=path.split("::").count()).rev().find_map(|n| {
            let prefix: Vec<&str> = path.split("::").take(n).collect();
            modules.get_key_value(&prefix.join("::"))
        })?;
        let name = path.strip_prefix(module.as_str())?.strip_prefix("::")?;
        let first = name.split("::").next()?;
        let target = file
            .names
            .get(first)
            .filter(|_| file.path.ends_with("mod.rs"));
        let inside = |target: &String| {
            // A path without `crate` in a `mod.rs` begins with one of its own modules.
            let target = match target.starts_with("crate::") {
                true => target.clone(),
                false => format!("{module}::{target}"),
            };
            self.defined_in(&target, modules)
        };
        Some(target.and_then(inside).unwrap_or_else(|| module.clone()))
    }

    /// The imports of each file from others, without those in tests. A file and its submodules are
    /// one unit, because a submodule extends its parent.
    pub fn graph(&self) -> BTreeMap<String, BTreeSet<String>> {
        let modules: BTreeMap<String, &SourceFile> = self
            .files
            .iter()
            .map(|f| (module_path(&f.path).join("::"), f))
            .collect();
        let unit = |module: &str| {
            let parts: Vec<&str> = module.split("::").collect();
            let parents = (2..parts.len()).map(|n| parts[..n].join("::"));
            let parent = |m: &String| modules.get(m).is_some_and(|f| !f.path.ends_with("mod.rs"));
            parents
                .into_iter()
                .find(parent)
                .unwrap_or_else(|| module.to_string())
        };
        let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (module, file) in modules.iter().filter(|(_, f)| !f.path.ends_with("mod.rs")) {
            let used = file
                .uses
                .iter()
                .filter(|path| path.starts_with("crate::"))
                .filter_map(|path| self.defined_in(path, &modules))
                .filter(|used| {
                    modules
                        .get(used)
                        .is_some_and(|f| !f.path.ends_with("mod.rs"))
                });
            let used = used.map(|m| unit(&m)).filter(|m| *m != unit(module));
            graph.entry(unit(module)).or_default().extend(used);
        }
        graph
    }
}
