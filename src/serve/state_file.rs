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
/// When it cannot be written. The old file is then unchanged, unless only the synchronisation of
/// the folder failed.
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
    File::open(folder)?.sync_all()
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
