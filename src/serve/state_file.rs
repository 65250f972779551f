//! Small files in the state folder, which are replaced as a whole.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Reads a file; None if there is none.
///
/// # Errors
/// When it cannot be read, or is no regular file.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    // Opening a FIFO would wait for a writer, and keep the service from ending.
    match regular_file(path).and_then(std::fs::read_to_string) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// Replaces a file in an existing folder, so that readers see the old or the new content, also
/// after a crash. The file is accessible by its owner only, who is that of the folder.
///
/// # Errors
/// When it cannot be written; the old file is then unchanged. If only the synchronisation of the
/// folder fails, readers see the new content, so a warning is logged instead.
pub fn replace(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    // Temporary files are accessible by their owner only.
    let mut file = tempfile::Builder::new()
        .prefix(".twintrack-")
        .tempfile_in(folder)?;
    file.write_all(text.as_bytes())?;
    own_as(file.as_file(), folder)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::warn!(
            file = %path.display(), %error,
            "a file is written, but a power failure may undo that: cannot synchronise its folder"
        );
    }
    Ok(())
}

/// Gives the file to the owner of the folder, so that the service can read what root has written.
///
/// # Errors
/// When the folder belongs to another user, and the process is not root.
pub fn own_as(file: &File, folder: &Path) -> io::Result<()> {
    let (of, wanted) = (file.metadata()?, std::fs::metadata(folder)?);
    if of.uid() == wanted.uid() {
        return Ok(());
    }
    std::os::unix::fs::fchown(file, Some(wanted.uid()), Some(wanted.gid()))
}

/// The path, if it is that of a regular file; an error of the kind `NotFound` if nothing is there.
fn regular_file(path: &Path) -> io::Result<&Path> {
    if std::fs::metadata(path)?.is_file() {
        Ok(path)
    } else {
        Err(io::Error::other("it is not a regular file"))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Regression: callers were told that the file could not be written, although it was. (As
    /// root the test shows nothing, because root can open any folder.)
    #[test]
    fn a_file_in_a_folder_that_cannot_be_synchronised_is_written() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("users.toml");
        let mode = |mode| std::fs::set_permissions(dir.path(), Permissions::from_mode(mode));
        mode(0o300).expect("changed"); // cannot be opened for reading
        for text in ["old", "new"] {
            replace(&path, text).expect("written");
            assert_eq!(read(&path).expect("readable").as_deref(), Some(text));
        }
        mode(0o700).expect("changed");
    }
}
