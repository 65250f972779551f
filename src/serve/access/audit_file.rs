//! The file of the audit log: JSON lines, rotated by size.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::serve::state_file::own_as;
use crate::sink::private;

/// Name of the file in the state folder.
const NAME: &str = "audit.jsonl";

/// `audit.jsonl` in a state folder, accessible by its owner only. The service and commands append
/// to it; it is opened for each entry, because entries are rare and another process may rotate it.
#[derive(Debug, Clone)]
pub struct AuditFile {
    path: PathBuf,
    /// Size in bytes at which the file is rotated; 0 disables rotation.
    bytes: u64,
    /// Number of rotated files kept.
    keep: u32,
}

impl AuditFile {
    /// The file in this state folder; it is created with the first entry.
    pub fn in_folder(state: &Path, bytes: u64, keep: u32) -> Self {
        AuditFile {
            path: state.join(NAME),
            bytes,
            keep,
        }
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The `n`-th newest file; 0 is the current one.
    fn numbered(&self, n: u32) -> PathBuf {
        if n == 0 {
            return self.path.clone();
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }

    /// Appends an entry, after a rotation if the file would become too large.
    ///
    /// # Errors
    /// When the folder or the file cannot be written.
    pub fn append(&self, entry: &impl serde::Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        let folder = self.path.parent().unwrap_or(Path::new("."));
        private::create_folder(folder)?;
        loop {
            let mut file = self.open(folder)?;
            let written = file.metadata()?.len();
            if self.bytes == 0 || written == 0 || written + line.len() as u64 <= self.bytes {
                return file.write_all(&line);
            }
            self.rotate()?;
            // Other writers may fill the new file before this one has its lock.
        }
    }

    /// Opens the file and locks it against other processes.
    fn open(&self, folder: &Path) -> io::Result<File> {
        loop {
            let file = private::options()
                .append(true)
                .create(true)
                .open(&self.path)?;
            own_as(&file, folder)?;
            file.lock()?;
            // While this process waited for the lock, another one may have rotated the file.
            if self.is_current(&file)? {
                return Ok(file);
            }
        }
    }

    /// Whether an open file is the one that has the path.
    fn is_current(&self, file: &File) -> io::Result<bool> {
        let id = |of: std::fs::Metadata| (of.dev(), of.ino());
        match std::fs::metadata(&self.path) {
            Ok(named) => Ok(id(named) == id(file.metadata()?)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn rotate(&self) -> io::Result<()> {
        if self.keep == 0 {
            return std::fs::remove_file(&self.path);
        }
        for n in (0..self.keep).rev().filter(|&n| self.numbered(n).exists()) {
            std::fs::rename(self.numbered(n), self.numbered(n + 1))?;
        }
        Ok(())
    }

    /// The newest entries, newest first: at most `limit`, and only those before the entry with the
    /// id `before`. Lines that are not JSON are left out.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn newest(&self, limit: usize, before: Option<&str>) -> io::Result<Vec<Value>> {
        let (mut entries, mut skipping) = (Vec::new(), before.is_some());
        for n in 0..=self.keep {
            let text = match std::fs::read(self.numbered(n)) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => break,
                read => read?,
            };
            for line in text.split(|b| *b == b'\n').rev() {
                let Ok(entry) = serde_json::from_slice::<Value>(line) else {
                    continue;
                };
                if skipping {
                    skipping = entry["id"].as_str() != before;
                } else if entries.len() < limit {
                    entries.push(entry);
                }
            }
            if entries.len() >= limit {
                break;
            }
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_read_newest_first_across_rotated_files() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = AuditFile::in_folder(&dir.path().join("state"), 200, 3);
        assert!(file.newest(10, None).expect("missing").is_empty());
        for n in 0..60 {
            file.append(&json!({"id": format!("e{n:02}"), "text": "x".repeat(20)}))
                .expect("written");
        }
        let mode = std::fs::metadata(file.path())
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(file.numbered(3).exists() && !file.numbered(4).exists());
        for n in 0..=3 {
            assert!(std::fs::metadata(file.numbered(n)).expect("there").len() <= 200);
        }
        let ids = |limit, before| -> Vec<String> {
            let entries = file.newest(limit, before).expect("readable");
            entries
                .iter()
                .map(|e| e["id"].as_str().expect("an id").into())
                .collect()
        };
        assert_eq!(ids(3, None), ["e59", "e58", "e57"]);
        assert_eq!(ids(2, Some("e58")), ["e57", "e56"]);
        assert_eq!(ids(8, None).len(), 8, "from more than one file");
        assert!(ids(5, Some("e00")).is_empty(), "rotated away");
    }

    #[test]
    fn a_damaged_line_is_left_out() {
        let dir = tempfile::tempdir().expect("a folder");
        let file = AuditFile::in_folder(dir.path(), 0, 0);
        file.append(&json!({"id": "a"})).expect("written");
        let mut raw = private::options()
            .append(true)
            .open(file.path())
            .expect("opened");
        raw.write_all(b"{\"id\": \"cut\n\xff\xfe\n")
            .expect("written");
        file.append(&json!({"id": "b"})).expect("written");
        let entries = file.newest(10, None).expect("readable");
        assert_eq!(entries, [json!({"id": "b"}), json!({"id": "a"})]);
    }

    #[test]
    fn entries_of_parallel_writers_are_complete() {
        let dir = tempfile::tempdir().expect("a folder");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let file = AuditFile::in_folder(dir.path(), 0, 1);
                scope.spawn(move || {
                    for n in 0..50 {
                        file.append(&json!({"id": format!("{writer}-{n}")}))
                            .expect("written");
                    }
                });
            }
        });
        let all = AuditFile::in_folder(dir.path(), 0, 1).newest(1000, None);
        assert_eq!(all.expect("readable").len(), 200);
    }

    /// Regression: a writer that had waited for the lock while another one rotated the file rotated
    /// the new, nearly empty one too, which with few files kept deleted full ones.
    #[test]
    fn parallel_writers_rotate_full_files_only() {
        const ENTRIES: usize = 5; // of a file
        let dir = tempfile::tempdir().expect("a folder");
        let line = json!({"id": "0-000"}).to_string().len() + 1;
        let file = AuditFile::in_folder(dir.path(), (ENTRIES * line) as u64, 1000);
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let file = file.clone();
                scope.spawn(move || {
                    for n in 0..250 {
                        file.append(&json!({"id": format!("{writer}-{n:03}")}))
                            .expect("written");
                    }
                });
            }
        });
        let entries = |n: u32| {
            let text = std::fs::read_to_string(file.numbered(n)).expect("there");
            text.lines().count()
        };
        let files = 1000 / ENTRIES as u32;
        assert!((0..files).all(|n| entries(n) == ENTRIES));
        assert!(!file.numbered(files).exists());
    }
}
