//! Files and folders with owner-only permissions: events hold people's paths and embeddings.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Mode of new files.
const FILE: u32 = 0o600;
/// Mode of new folders.
const FOLDER: u32 = 0o700;

/// Options that make a new file readable and writable by its owner only. An existing file keeps its
/// mode, so that a user can create it beforehand with a group's access.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE);
    options
}

/// Creates a folder and its parents, accessible by their owner only. Existing folders keep their
/// mode.
///
/// # Errors
/// When the folder cannot be created.
pub fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(path)
}

/// Creates the file if it is missing, and removes the access of group and others if it exists.
///
/// # Errors
/// When the file cannot be created, or belongs to another user.
pub fn restrict(path: &Path) -> io::Result<()> {
    let file = options().append(true).create(true).open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 == FILE {
        Ok(())
    } else {
        file.set_permissions(Permissions::from_mode(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_files_are_owner_only_and_an_existing_file_changes_only_by_restrict() {
        let dir = tempfile::tempdir().expect("a folder");
        let mode = |p: &Path| std::fs::metadata(p).expect("there").permissions().mode() & 0o777;
        let (folder, file) = (dir.path().join("a/b"), dir.path().join("a/b/events"));
        create_folder(&folder).expect("created");
        options()
            .append(true)
            .create(true)
            .open(&file)
            .expect("created");
        assert_eq!(
            (mode(&dir.path().join("a")), mode(&folder), mode(&file)),
            (0o700, 0o700, 0o600)
        );
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).expect("changed");
        options()
            .append(true)
            .create(true)
            .open(&file)
            .expect("opened");
        assert_eq!(mode(&file), 0o644);
        restrict(&file).expect("restricted");
        assert_eq!(mode(&file), 0o600);
    }

    #[test]
    fn files_of_events_are_owner_only() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("out.jsonl");
        crate::sink::jsonl::JsonLines::create(&path, true, true).expect("created");
        let mode = |p: &Path| std::fs::metadata(p).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        #[cfg(feature = "serve")]
        {
            let path = dir.path().join("events.jsonl");
            crate::sink::rotating::Rotating::open(&path, 0, 0, true).expect("created");
            assert_eq!(mode(&path), 0o600);
        }
    }
}
