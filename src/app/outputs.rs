//! Checks the output files of a command before its work begins. Shared with the program
//! `twintrack-train`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The path that stands for standard output.
pub const STDOUT: &str = "-";

/// Checks that no output is also an input or another output, and creates missing parent folders.
/// Called before the work begins, so that no work is lost.
///
/// # Errors
/// When two paths are the same file, or a folder cannot be created.
pub fn prepare<'a>(
    outputs: impl IntoIterator<Item = &'a PathBuf>,
    inputs: &[PathBuf],
) -> Result<()> {
    let canonical = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_path_buf());
    let mut used: Vec<PathBuf> = inputs.iter().map(|p| canonical(p)).collect();
    let outputs: Vec<&PathBuf> = outputs
        .into_iter()
        .filter(|p| *p != Path::new(STDOUT))
        .collect();
    for path in &outputs {
        if !path.starts_with("/dev") && used.contains(&canonical(path)) {
            bail!(
                "cannot write to {}: it is also an input or another output of this command; \
                 choose another name",
                path.display()
            );
        }
        used.push(canonical(path));
    }
    outputs.into_iter().try_for_each(|path| create_parent(path))
}

/// Creates the folder of `path` if it is missing.
fn create_parent(path: &Path) -> Result<()> {
    let Some(folder) = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty() && !p.is_dir())
    else {
        return Ok(());
    };
    std::fs::create_dir_all(folder).with_context(|| {
        format!(
            "cannot create the folder {} for the output {}",
            folder.display(),
            path.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_folders_are_created_and_conflicting_paths_are_rejected() {
        let dir = tempfile::tempdir().expect("a folder");
        let (input, output) = (dir.path().join("in.mp4"), dir.path().join("a/b/out.jsonl"));
        std::fs::write(&input, "x").expect("written");
        prepare(
            [&output, &PathBuf::from(STDOUT)],
            std::slice::from_ref(&input),
        )
        .expect("can be created");
        assert!(output.parent().is_some_and(Path::is_dir) && !output.exists());
        for clash in [[&input, &output], [&output, &output]] {
            let e = prepare(clash, std::slice::from_ref(&input))
                .expect_err("the same file twice")
                .to_string();
            assert!(e.contains("another name"), "{e}");
        }
        let below_a_file = input.join("out.jsonl");
        let e = prepare([&below_a_file], &[]).expect_err("a file is not a folder");
        let e = format!("{e:#}");
        assert!(
            e.contains("in.mp4/out.jsonl") || e.contains("in.mp4"),
            "{e}"
        );
    }
}
