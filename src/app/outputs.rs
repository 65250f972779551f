//! Files that a command writes.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// The name of standard output among outputs.
pub const STDOUT: &str = "-";

/// Refuses outputs that are an input or each other, and makes the folders they lie in where those are missing. Called
/// before the work begins, so that no work is lost.
///
/// # Errors
/// When two paths are one file, or a folder cannot be made.
pub fn prepare<'a>(
    outputs: impl IntoIterator<Item = &'a PathBuf>,
    inputs: &[PathBuf],
) -> Result<()> {
    let real = |p: &Path| p.canonicalize().unwrap_or_else(|_| p.to_path_buf());
    let mut taken: Vec<PathBuf> = inputs.iter().map(|p| real(p)).collect();
    let outputs: Vec<&PathBuf> = outputs
        .into_iter()
        .filter(|p| *p != Path::new(STDOUT))
        .collect();
    for path in &outputs {
        if !path.starts_with("/dev") && taken.contains(&real(path)) {
            bail!(
                "cannot write to {}: it is an input or another output of this very command; give it another name",
                path.display()
            );
        }
        taken.push(real(path));
    }
    outputs.into_iter().try_for_each(|path| make_folder(path))
}

/// Makes the folder that `path` lies in.
fn make_folder(path: &Path) -> Result<()> {
    let Some(folder) = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty() && !p.is_dir())
    else {
        return Ok(());
    };
    std::fs::create_dir_all(folder).with_context(|| {
        format!(
            "cannot make the folder {} for the output {}",
            folder.display(),
            path.display()
        )
    })
}

/// Lines for people on the files that were written: what each is, and its path. Standard output is not named.
pub fn written(files: &[(&str, Option<&PathBuf>)]) -> String {
    let named = files
        .iter()
        .filter_map(|(what, path)| path.filter(|p| *p != Path::new(STDOUT)).map(|p| (what, p)));
    named
        .map(|(what, path)| format!("  {:<28}{}\n", format!("{what}, file"), path.display()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_folders_of_outputs_are_made_and_clashes_are_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let (input, output) = (dir.path().join("in.mp4"), dir.path().join("a/b/out.jsonl"));
        std::fs::write(&input, "x").expect("written");
        prepare(
            [&output, &PathBuf::from(STDOUT)],
            std::slice::from_ref(&input),
        )
        .expect("can be made");
        assert!(output.parent().is_some_and(Path::is_dir) && !output.exists());
        for clash in [[&input, &output], [&output, &output]] {
            let e = prepare(clash, std::slice::from_ref(&input))
                .expect_err("one file twice")
                .to_string();
            assert!(e.contains("another name"), "{e}");
        }
        let below_a_file = input.join("out.jsonl");
        let e = prepare([&below_a_file], &[]).expect_err("a file is no folder");
        let e = format!("{e:#}");
        assert!(
            e.contains("in.mp4/out.jsonl") || e.contains("in.mp4"),
            "{e}"
        );
    }

    #[test]
    fn the_files_written_are_named_but_standard_output_is_not() {
        let (a, b) = (PathBuf::from(STDOUT), PathBuf::from("out/x.txt"));
        let text = written(&[
            ("trajectories", Some(&a)),
            ("MOTChallenge", Some(&b)),
            ("video", None),
        ]);
        assert!(
            text.contains("MOTChallenge, file")
                && text.ends_with("out/x.txt\n")
                && text.lines().count() == 1,
            "{text}"
        );
    }
}
