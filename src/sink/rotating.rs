//! JSON lines appended to a file that is rotated by size.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::sink::private;
use crate::sink::sink::{FrameResult, Sink, SinkError};
use crate::trajectory::{AnalyticsEvent, EndedEvent, StatusEvent, WithJson};

/// An events file, to which each run appends.
///
/// - Rotation: if the next line would make the file larger than `size` bytes, the file is renamed
///   to `NAME.1`, older files to `NAME.2` and so on up to `keep`. A file that cannot be renamed,
///   such as one mounted into a container, is copied to `NAME.1` and truncated. If the copy fails
///   too, an error is logged, events are still appended to the file, and the next rotation is
///   attempted after another `size` bytes.
/// - When the disk fails or is full, events are dropped, counted and logged; the pipeline
///   continues. The file always consists of complete lines.
///
/// The crate file-rotate is not used: it reports success when it cannot open its file.
pub struct Rotating {
    path: PathBuf,
    size: u64,
    /// Rotation size in bytes of the current file: `size`, or more after a failed rotation.
    limit: u64,
    keep: u32,
    with_ended: bool,
    rename: fn(&Path, &Path) -> io::Result<()>,
    file: Option<File>,
    written: u64,
    dropped: Arc<AtomicU64>,
    /// Time at which a dropped event was last logged.
    last_logged: Option<Instant>,
}

/// Shortest time between two log messages about dropped events.
const LOG_INTERVAL: Duration = Duration::from_secs(10);
/// First bytes of a file of events.
const EVENT_PREFIX: &[u8] = b"{\"schema\":\"twintrack.";

impl Rotating {
    /// Opens or creates the file. `size` 0 disables rotation. Also returns the counter of dropped
    /// events.
    ///
    /// # Errors
    /// When the file cannot be written, or contains something other than events.
    pub fn open(
        path: &Path,
        size: u64,
        keep: u32,
        with_ended: bool,
    ) -> Result<(Self, Arc<AtomicU64>), SinkError> {
        let fail = |source| SinkError::Create {
            path: path.into(),
            source,
        };
        let (file, written) = open_append(path)
            .map_err(fail)?
            .ok_or_else(|| SinkError::Foreign(path.into()))?;
        let dropped = Arc::<AtomicU64>::default();
        // A device or a pipe cannot be rotated.
        let size = if path.is_file() { size } else { 0 };
        let (path, rename) = (path.into(), |from: &Path, to: &Path| {
            std::fs::rename(from, to)
        });
        let sink = Rotating {
            path,
            size,
            limit: size,
            keep,
            with_ended,
            rename,
            file: Some(file),
            written,
            dropped: dropped.clone(),
            last_logged: None,
        };
        Ok((sink, dropped))
    }

    /// Name of the `n`-th newest rotated file, counted from 1; for `n` = 0, the name of a copy in
    /// progress.
    fn rotated(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }

    /// Rotates the file. A file that was copied and truncated stays open; otherwise no file is open
    /// afterwards.
    fn rotate(&mut self) -> io::Result<()> {
        for n in (1..self.keep).rev().filter(|&n| self.rotated(n).exists()) {
            (self.rename)(&self.rotated(n), &self.rotated(n + 1))?;
        }
        let moved = if self.keep == 0 {
            std::fs::remove_file(&self.path)
        } else {
            (self.rename)(&self.path, &self.rotated(1))
        };
        if moved.is_ok() {
            self.file = None;
            return Ok(());
        }
        if self.keep > 0 {
            // The copy gets another name first, because a failed copy must not replace `NAME.1`.
            let part = self.rotated(0);
            let copied = std::fs::copy(&self.path, &part)
                .and_then(|_| std::fs::rename(&part, self.rotated(1)));
            copied.inspect_err(|_| {
                let _ = std::fs::remove_file(&part);
            })?;
        }
        std::fs::OpenOptions::new()
            .write(true)
            .open(&self.path)?
            .set_len(0)?;
        self.written = 0;
        Ok(())
    }

    /// Writes a line; rotates and opens the file before if necessary.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size > 0 && self.written > 0 && self.written + line.len() as u64 > self.limit {
            self.limit = match self.rotate() {
                Ok(()) => self.size,
                Err(e) => {
                    tracing::error!(
                        file = %self.path.display(), bytes = self.written, error = %e,
                        "cannot rotate the events file; events are still appended to it. Mount its \
                         folder instead of the file, or set serve.output_bytes = 0"
                    );
                    self.written + self.size
                }
            };
        }
        if self.file.is_none() {
            let foreign = || io::Error::other("it contains something other than events");
            let (file, written) = open_append(&self.path)?.ok_or_else(foreign)?;
            (self.file, self.written) = (Some(file), written);
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        if let Err(e) = file.write_all(line) {
            let _ = file.set_len(self.written); // if it fails, `open_append` does it later
            self.file = None;
            return Err(e);
        }
        self.written += line.len() as u64;
        Ok(())
    }

    fn write(&mut self, event: &WithJson<impl Serialize>) {
        if let Err(e) = self.write_line(event.line().as_bytes()) {
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if self
                .last_logged
                .is_none_or(|at| at.elapsed() > LOG_INTERVAL)
            {
                self.last_logged = Some(Instant::now());
                tracing::error!(
                    file = %self.path.display(), dropped, error = %e,
                    "cannot write events; they are dropped"
                );
            }
        }
    }
}

/// Opens or creates a file of events for appending and truncates a partial last line, which a crash
/// may have left. Returns the file and its length in bytes; None if the file contains something
/// other than events.
fn open_append(path: &Path) -> io::Result<Option<(File, u64)>> {
    let mut file = private::options()
        .read(true)
        .append(true)
        .create(true)
        .open(path)?;
    let metadata = file.metadata()?;
    let length = metadata.len();
    if length == 0 || !metadata.is_file() {
        return Ok(Some((file, 0)));
    }
    let mut beginning = vec![0; EVENT_PREFIX.len().min(length as usize)];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut beginning)?;
    if !EVENT_PREFIX.starts_with(&beginning) {
        return Ok(None);
    }
    // 16 MiB contain the last line, because an event has a few kilobytes.
    let from = length.saturating_sub(16 << 20);
    file.seek(SeekFrom::Start(from))?;
    let (mut reader, mut at, mut whole) = (BufReader::new(&file), from, from);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line)? > 0 {
        at += line.len() as u64;
        if line.ends_with(b"\n") {
            whole = at;
        }
        line.clear();
    }
    if whole < length {
        file.set_len(whole)?;
    }
    Ok(Some((file, whole)))
}

impl Sink for Rotating {
    fn needs_pixels(&self) -> bool {
        false
    }

    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        self.write(&finished.event);
        Ok(())
    }

    fn ended(&mut self, event: &WithJson<EndedEvent>) -> Result<(), SinkError> {
        if self.with_ended {
            self.write(event);
        }
        Ok(())
    }

    fn analytics(&mut self, event: &WithJson<AnalyticsEvent>) -> Result<(), SinkError> {
        self.write(event);
        Ok(())
    }

    fn status(&mut self, event: &WithJson<StatusEvent>) -> Result<(), SinkError> {
        self.write(event);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), SinkError> {
        self.file = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::CameraState;
    use crate::trajectory::RunId;

    fn event(camera: &str) -> WithJson<StatusEvent> {
        StatusEvent::at(
            crate::clock::now(),
            RunId::nil(),
            camera.into(),
            CameraState::Online,
            None,
        )
        .into()
    }

    fn cameras(path: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines()
            .map(|l| {
                serde_json::from_str::<StatusEvent>(l)
                    .expect("an event")
                    .camera
                    .to_string()
            })
            .collect()
    }

    #[test]
    fn a_full_file_is_rotated_and_at_most_keep_old_files_stay() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events.jsonl");
        let length = event("00").line().len() as u64;
        let (mut sink, dropped) = Rotating::open(&path, 3 * length + 1, 2, true).expect("a file");
        (0..11).for_each(|i| sink.write(&event(&format!("{i:02}"))));
        assert_eq!(cameras(&path), ["09", "10"]);
        assert_eq!(
            cameras(&dir.path().join("events.jsonl.1")),
            ["06", "07", "08"]
        );
        assert_eq!(
            cameras(&dir.path().join("events.jsonl.2")),
            ["03", "04", "05"]
        );
        assert!(
            !dir.path().join("events.jsonl.3").exists() && dropped.load(Ordering::Relaxed) == 0
        );
    }

    #[test]
    fn reopening_appends_and_truncates_a_partial_line() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events.jsonl");
        let (mut sink, _) = Rotating::open(&path, 0, 0, true).expect("a file");
        ["a", "b"].iter().for_each(|c| sink.write(&event(c)));
        drop(sink);
        let mut text = std::fs::read(&path).expect("there");
        text.extend_from_slice(b"{\"schema\":\"twintrack.camera_sta");
        std::fs::write(&path, &text).expect("written");
        let (mut sink, _) = Rotating::open(&path, 0, 0, true).expect("a file");
        sink.write(&event("c"));
        assert_eq!(cameras(&path), ["a", "b", "c"]);
    }

    #[test]
    fn a_file_without_events_is_rejected_and_unchanged() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("letter.txt");
        std::fs::write(&path, "Dear Sir,").expect("written");
        let e = Rotating::open(&path, 0, 0, true)
            .err()
            .expect("rejected")
            .to_string();
        assert!(
            e.contains("something other than events")
                && std::fs::read_to_string(&path).expect("there") == "Dear Sir,",
            "{e}"
        );
    }

    #[test]
    fn events_are_dropped_and_counted_when_the_disk_is_full() {
        let (mut sink, dropped) =
            Rotating::open(Path::new("/dev/full"), 0, 0, true).expect("a device");
        (0..3).for_each(|_| sink.write(&event("a")));
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
    }

    /// Regression: a file mounted into a container cannot be renamed, and every event after the
    /// first rotation was dropped.
    #[test]
    fn a_file_that_cannot_be_renamed_is_copied_and_truncated() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events.jsonl");
        let length = event("00").line().len() as u64;
        let (mut sink, dropped) = Rotating::open(&path, 3 * length + 1, 2, true).expect("a file");
        sink.rename = |from, to| {
            if from.extension().is_some_and(|e| e == "jsonl") {
                Err(io::ErrorKind::ResourceBusy.into())
            } else {
                std::fs::rename(from, to)
            }
        };
        let inode =
            || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).expect("there"));
        let before = inode();
        (0..11).for_each(|i| sink.write(&event(&format!("{i:02}"))));
        assert_eq!(
            (cameras(&path), inode()),
            (vec!["09".to_string(), "10".into()], before)
        );
        assert_eq!(
            cameras(&dir.path().join("events.jsonl.1")),
            ["06", "07", "08"]
        );
        assert_eq!(
            cameras(&dir.path().join("events.jsonl.2")),
            ["03", "04", "05"]
        );
        assert_eq!(
            (
                std::fs::read_dir(dir.path()).expect("a folder").count(),
                dropped.load(Ordering::Relaxed)
            ),
            (3, 0)
        );
    }

    #[test]
    fn a_file_that_cannot_be_rotated_grows_on_and_is_rotated_later() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events.jsonl");
        let length = event("00").line().len() as u64;
        // A folder with the name of the rotated file makes rotation fail.
        std::fs::create_dir_all(dir.path().join("events.jsonl.1/letters")).expect("a folder");
        let (mut sink, dropped) = Rotating::open(&path, 3 * length + 1, 1, true).expect("a file");
        (0..11).for_each(|i| sink.write(&event(&format!("{i:02}"))));
        assert_eq!(
            (cameras(&path).len(), dropped.load(Ordering::Relaxed)),
            (11, 0)
        );
        std::fs::remove_dir_all(dir.path().join("events.jsonl.1")).expect("gone");
        let rotated = dir.path().join("events.jsonl.1");
        let written = (11..30).take_while(|i| {
            let pending = !rotated.is_file();
            if pending {
                sink.write(&event(&format!("{i:02}")));
            }
            pending
        });
        let written = 11 + written.count();
        let (old, new) = (cameras(&rotated), cameras(&path));
        assert_eq!(
            old.iter().chain(&new).cloned().collect::<Vec<_>>(),
            (0..written).map(|i| format!("{i:02}")).collect::<Vec<_>>()
        );
        assert!(!new.is_empty() && dropped.load(Ordering::Relaxed) == 0);
    }
}
