//! JSON lines into a file that is continued, and put aside when it is full.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::sink::private;
use crate::sink::sink::{FrameResult, Sink, SinkError};
use crate::trajectory::{EndedEvent, StatusEvent};

/// A file of events that lives as long as the program, and longer.
///
/// A run adds to what earlier runs wrote. At `size` bytes the file is put aside as `NAME.1`, older ones as `NAME.2` and so on up to
/// `keep`. A disk that fails or is full costs events, which are counted and told; cameras do not stop for it, and what is written is
/// always whole lines. A file that cannot be renamed, as one that is mounted into a container, is
/// copied aside and emptied; where that fails too, it is continued beyond `size`, and that is told
/// and tried again. (The crate file-rotate was looked at: where it cannot open its file it says
/// that all is well.)
pub struct Rotating {
    path: PathBuf,
    size: u64,
    /// The file is put aside before it grows beyond this: `size`, or more after an attempt that
    /// failed.
    limit: u64,
    keep: u32,
    with_ended: bool,
    rename: fn(&Path, &Path) -> io::Result<()>,
    file: Option<File>,
    written: u64,
    line: Vec<u8>,
    lost: Arc<AtomicU64>,
    told: Option<Instant>,
}

/// At most how often a failure is told.
const TELL: Duration = Duration::from_secs(10);
const BEGINNING: &[u8] = b"{\"schema\":\"twintrack.";

impl Rotating {
    /// Opens or makes the file. `size` 0: it is never put aside. The count of lost events is given back beside.
    ///
    /// # Errors
    /// When it cannot be written, or holds something else than events.
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
        let (file, written) = continued(path)
            .map_err(fail)?
            .ok_or_else(|| SinkError::Foreign(path.into()))?;
        let lost = Arc::<AtomicU64>::default();
        // A device or a pipe cannot be put aside.
        let size = if path.is_file() { size } else { 0 };
        let (path, rename) = (path.into(), |from: &Path, to: &Path| {
            std::fs::rename(from, to)
        });
        let (file, line) = (Some(file), Vec::new());
        let me = Rotating {
            path,
            size,
            limit: size,
            keep,
            with_ended,
            rename,
            file,
            written,
            line,
            lost: lost.clone(),
            told: None,
        };
        Ok((me, lost))
    }

    fn aside(&self, n: u32) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{n}"));
        name.into()
    }

    /// Puts the file aside; what is open is the new one then, or the old one where it was emptied.
    fn rotate(&mut self) -> io::Result<()> {
        for n in (1..self.keep).rev().filter(|&n| self.aside(n).exists()) {
            (self.rename)(&self.aside(n), &self.aside(n + 1))?;
        }
        let moved = if self.keep == 0 {
            std::fs::remove_file(&self.path)
        } else {
            (self.rename)(&self.path, &self.aside(1))
        };
        if moved.is_ok() {
            self.file = None;
            return Ok(());
        }
        if self.keep > 0 {
            // Whole, or not at all: a copy that breaks off leaves the file as it was.
            let part = self.aside(0);
            let copied = std::fs::copy(&self.path, &part)
                .and_then(|_| std::fs::rename(&part, self.aside(1)));
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

    fn put(&mut self) -> io::Result<()> {
        if self.size > 0 && self.written > 0 && self.written + self.line.len() as u64 > self.limit {
            self.limit = match self.rotate() {
                Ok(()) => self.size,
                Err(e) => {
                    tracing::error!(file = %self.path.display(), bytes = self.written, error = %e,
                        "the file of events cannot be put aside: it is continued; mount its folder instead of the file, or set serve.output_bytes = 0");
                    self.written + self.size
                }
            };
        }
        if self.file.is_none() {
            let foreign = || io::Error::other("it holds something else than events");
            let (file, written) = continued(&self.path)?.ok_or_else(foreign)?;
            (self.file, self.written) = (Some(file), written);
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        if let Err(e) = file.write_all(&self.line) {
            let _ = file.set_len(self.written); // the next opening looks again
            self.file = None;
            return Err(e);
        }
        self.written += self.line.len() as u64;
        Ok(())
    }

    fn write(&mut self, event: &impl Serialize) {
        self.line.clear();
        serde_json::to_writer(&mut self.line, event).expect("events hold nothing that JSON cannot");
        self.line.push(b'\n');
        if let Err(e) = self.put() {
            let lost = self.lost.fetch_add(1, Ordering::Relaxed) + 1;
            if self.told.is_none_or(|at| at.elapsed() > TELL) {
                self.told = Some(Instant::now());
                tracing::error!(file = %self.path.display(), lost, error = %e, "events cannot be written and are lost");
            }
        }
    }
}

/// Opens a file of events at its end, without the piece of a line that a sudden end may have left; `None` when it is none.
fn continued(path: &Path) -> io::Result<Option<(File, u64)>> {
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
    let mut beginning = vec![0; BEGINNING.len().min(length as usize)];
    file.seek(SeekFrom::Start(0))?;
    file.read_exact(&mut beginning)?;
    if !BEGINNING.starts_with(&beginning) {
        return Ok(None);
    }
    // The last line, however long: events are some kilobytes.
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
    fn frame(&mut self, finished: &FrameResult) -> Result<(), SinkError> {
        self.write(&finished.event);
        Ok(())
    }

    fn ended(&mut self, event: &EndedEvent) -> Result<(), SinkError> {
        if self.with_ended {
            self.write(event);
        }
        Ok(())
    }

    fn status(&mut self, event: &StatusEvent) -> Result<(), SinkError> {
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

    fn event(camera: &str) -> StatusEvent {
        StatusEvent::now(RunId::nil(), camera.into(), CameraState::Online, None)
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
    fn a_full_file_is_put_aside_and_only_so_many_are_kept() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events.jsonl");
        let length = serde_json::to_vec(&event("00")).expect("JSON").len() as u64 + 1;
        let (mut sink, lost) = Rotating::open(&path, 3 * length + 1, 2, true).expect("a file");
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
        assert!(!dir.path().join("events.jsonl.3").exists() && lost.load(Ordering::Relaxed) == 0);
    }

    #[test]
    fn a_run_adds_to_what_is_there_and_cuts_off_half_a_line() {
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
    fn a_file_of_something_else_is_left_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("letter.txt");
        std::fs::write(&path, "Dear Sir,").expect("written");
        let e = Rotating::open(&path, 0, 0, true)
            .err()
            .expect("refused")
            .to_string();
        assert!(
            e.contains("something else")
                && std::fs::read_to_string(&path).expect("there") == "Dear Sir,",
            "{e}"
        );
    }

    #[test]
    fn a_disk_that_is_full_costs_events_and_nothing_else() {
        let (mut sink, lost) =
            Rotating::open(Path::new("/dev/full"), 0, 0, true).expect("a device");
        (0..3).for_each(|_| sink.write(&event("a")));
        assert_eq!(lost.load(Ordering::Relaxed), 3);
    }

    /// A file that is mounted into a container cannot be renamed: every event after the first full
    /// file was lost.
    #[test]
    fn a_file_that_cannot_be_renamed_is_copied_aside_and_emptied() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events.jsonl");
        let length = serde_json::to_vec(&event("00")).expect("JSON").len() as u64 + 1;
        let (mut sink, lost) = Rotating::open(&path, 3 * length + 1, 2, true).expect("a file");
        sink.rename = |from, to| {
            if from.extension().is_some_and(|e| e == "jsonl") {
                Err(io::ErrorKind::ResourceBusy.into())
            } else {
                std::fs::rename(from, to)
            }
        };
        let same =
            || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).expect("there"));
        let before = same();
        (0..11).for_each(|i| sink.write(&event(&format!("{i:02}"))));
        assert_eq!(
            (cameras(&path), same()),
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
                lost.load(Ordering::Relaxed)
            ),
            (3, 0)
        );
    }

    #[test]
    fn a_file_that_cannot_be_put_aside_is_continued() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("events.jsonl");
        let length = serde_json::to_vec(&event("00")).expect("JSON").len() as u64 + 1;
        // Something that is not ours stands in the way.
        std::fs::create_dir_all(dir.path().join("events.jsonl.1/letters")).expect("a folder");
        let (mut sink, lost) = Rotating::open(&path, 3 * length + 1, 1, true).expect("a file");
        (0..11).for_each(|i| sink.write(&event(&format!("{i:02}"))));
        assert_eq!(
            (cameras(&path).len(), lost.load(Ordering::Relaxed)),
            (11, 0)
        );
        std::fs::remove_dir_all(dir.path().join("events.jsonl.1")).expect("gone");
        let aside = dir.path().join("events.jsonl.1");
        let written = (11..30).take_while(|i| {
            let waits = !aside.is_file();
            if waits {
                sink.write(&event(&format!("{i:02}")));
            }
            waits
        });
        let written = 11 + written.count();
        let (old, new) = (cameras(&aside), cameras(&path));
        assert_eq!(
            old.iter().chain(&new).cloned().collect::<Vec<_>>(),
            (0..written).map(|i| format!("{i:02}")).collect::<Vec<_>>()
        );
        assert!(!new.is_empty() && lost.load(Ordering::Relaxed) == 0);
    }
}
