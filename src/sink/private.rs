//! Files that only their owner may read: events tell where people were and what they look like.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

/// Mode of a file that is made here.
const FILE: u32 = 0o600;
/// Mode of a folder that is made here.
const FOLDER: u32 = 0o700;

/// Options that make a new file readable and writable by its owner only. A file that exists keeps
/// its mode: who wants a group to read it makes it beforehand.
pub fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(FILE);
    options
}

/// Makes a folder and those above it, open to their owner only. One that exists keeps its mode.
///
/// # Errors
/// When it cannot be made.
pub fn create_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(FOLDER).create(path)
}

/// Makes the file where it is missing, and takes it from everybody but its owner where it is there.
///
/// # Errors
/// When it cannot be made, or belongs to somebody else.
pub fn own(path: &Path) -> io::Result<()> {
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
    fn what_is_made_is_the_owner_s_alone_and_what_exists_is_closed_by_own_only() {
        let dir = tempfile::tempdir().expect("a folder");
        let mode = |p: &Path| std::fs::metadata(p).expect("there").permissions().mode() & 0o777;
        let (folder, file) = (dir.path().join("a/b"), dir.path().join("a/b/events"));
        create_folder(&folder).expect("made");
        options()
            .append(true)
            .create(true)
            .open(&file)
            .expect("made");
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
        own(&file).expect("taken");
        assert_eq!(mode(&file), 0o600);
    }

    /// Files of events hold paths and embeddings of persons.
    #[test]
    fn files_of_events_are_the_owner_s_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("out.jsonl");
        crate::sink::jsonl::JsonLines::create(&path, true, true).expect("made");
        let mode = |p: &Path| std::fs::metadata(p).expect("there").permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        #[cfg(feature = "serve")]
        {
            let path = dir.path().join("events.jsonl");
            crate::sink::rotating::Rotating::open(&path, 0, 0, true).expect("made");
            assert_eq!(mode(&path), 0o600);
        }
    }
}
