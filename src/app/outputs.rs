//! Checks the output files of a command before its work begins. Shared with the program
//! `twintrack-train`.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The path that means standard output.
pub const STDOUT: &str = "-";

/// Checks that no output is also an input or another output, and creates missing parent folders.
/// Must be called before the work begins, so that no work is lost.
///
/// # Errors
/// When two paths are the same file (by path, link or hard link), or a folder cannot be created.
pub fn prepare<'a>(
    outputs: impl IntoIterator<Item = &'a PathBuf>,
    inputs: &[PathBuf],
) -> Result<()> {
    let mut used: Vec<Target> = inputs.iter().map(|p| Target::of(p)).collect();
    let outputs: Vec<&PathBuf> = outputs
        .into_iter()
        .filter(|p| *p != Path::new(STDOUT))
        .collect();
    for path in &outputs {
        let target = Target::of(path);
        if !path.starts_with("/dev") && used.contains(&target) {
            bail!(
                "cannot write to {}: it is also an input or another output of this command; \
                 choose another name",
                path.display()
            );
        }
        used.push(target);
    }
    outputs.into_iter().try_for_each(|path| create_parent(path))
}

/// The file to which a path refers.
#[derive(PartialEq)]
enum Target {
    /// Device and inode of an existing file: the same for all its hard links.
    File(u64, u64),
    /// Anything else, by its path with links resolved.
    Path(PathBuf),
}

impl Target {
    fn of(path: &Path) -> Self {
        if let Ok(m) = std::fs::metadata(path)
            && m.is_file()
        {
            use std::os::unix::fs::MetadataExt as _;
            return Target::File(m.dev(), m.ino());
        }
        Target::Path(path.canonicalize().unwrap_or_else(|_| path.to_path_buf()))
    }
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
        let link = dir.path().join("link.mp4");
        std::fs::hard_link(&input, &link).expect("linked");
        prepare([&link], std::slice::from_ref(&input)).expect_err("a hard link of the input");
        prepare([&link, &input], &[]).expect_err("two hard links of one file");
        let below_a_file = input.join("out.jsonl");
        let e = prepare([&below_a_file], &[]).expect_err("a file is not a folder");
        let e = format!("{e:#}");
        assert!(
            e.contains("in.mp4/out.jsonl") || e.contains("in.mp4"),
            "{e}"
        );
    }
}
