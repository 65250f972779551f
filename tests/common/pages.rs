//! Access to the README and the documents.
#![allow(dead_code, reason = "each test program uses a part")]

use crate::common::repository;

/// The folders of documents.
pub const FOLDERS: [&str; 4] = ["docs", "docs/guide", "docs/reference", "docs/design"];

/// The text of a file in the repository.
pub fn page(path: &str) -> String {
    std::fs::read_to_string(repository(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The lines of the README and the documents outside of code blocks, with the path of their file.
pub fn prose() -> Vec<(String, String)> {
    let mut paths = vec!["README.md".to_string(), "ARCHITECTURE.md".to_string()];
    for dir in FOLDERS {
        let names = std::fs::read_dir(repository(dir))
            .expect("a folder")
            .map(|e| {
                e.expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            });
        paths.extend(
            names
                .filter(|n| n.ends_with(".md"))
                .map(|n| format!("{dir}/{n}")),
        );
    }
    let mut lines = Vec::new();
    for path in paths {
        let mut fenced = false;
        for line in page(&path).lines() {
            fenced ^= line.starts_with("```");
            if !fenced && !line.starts_with("    ") {
                lines.push((path.clone(), line.to_string()));
            }
        }
    }
    lines
}
