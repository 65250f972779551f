//! The dead-letter file: events that the receiver refuses, each with the reason.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::clock;
use crate::sink::private;
use crate::time::Timestamp;

/// Rotation size in bytes. If the next line would make the file larger, the file is first renamed
/// to `NAME.1`, replacing an older one.
const MAX_BYTES: u64 = 16 << 20;

/// One line of the file.
#[derive(Serialize)]
struct DeadLetter<'a> {
    schema: &'static str,
    sink: &'a str,
    time: Timestamp,
    reason: &'a str,
    event: &'a RawValue,
}

/// The dead-letter file of one sink, `SINK.refused.jsonl`. Created when the first event is refused.
#[derive(Debug)]
pub struct DeadLetters {
    path: PathBuf,
    /// The open file, and its length in bytes.
    file: Option<(File, u64)>,
    max_bytes: u64,
}

impl DeadLetters {
    /// The dead-letter file of the sink `name`, in the folder `state`.
    pub fn new(state: &Path, name: &str) -> Self {
        DeadLetters {
            path: state.join(format!("{name}.refused.jsonl")),
            file: None,
            max_bytes: MAX_BYTES,
        }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends an event (JSON) with the reason for the refusal.
    ///
    /// # Errors
    /// When `event` is not JSON, or the file cannot be written. After an error the file still
    /// consists of complete lines.
    pub fn append(&mut self, sink: &str, reason: &str, event: &[u8]) -> io::Result<()> {
        let event = serde_json::from_slice(event)?;
        let letter = DeadLetter {
            schema: "twintrack.refused/1",
            sink,
            time: clock::now(),
            reason,
            event,
        };
        let mut line = serde_json::to_vec(&letter)?;
        line.push(b'\n');
        if self.file.as_ref().is_some_and(|(_, written)| {
            *written > 0 && written + line.len() as u64 > self.max_bytes
        }) {
            self.file = None;
            std::fs::rename(&self.path, self.path.with_extension("jsonl.1"))?;
        }
        let (file, written) = match &mut self.file {
            Some(open) => open,
            None => {
                let file = private::options()
                    .append(true)
                    .create(true)
                    .open(&self.path)?;
                let written = file.metadata()?.len();
                self.file.insert((file, written))
            }
        };
        if let Err(e) = file.write_all(&line) {
            let _ = file.set_len(*written); // truncate a partial line
            self.file = None;
            return Err(e);
        }
        *written += line.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_kept_verbatim_and_the_file_is_bounded() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut letters = DeadLetters {
            max_bytes: 1000,
            ..DeadLetters::new(dir.path(), "hook")
        };
        for i in 0..40 {
            letters
                .append(
                    "hook",
                    "HTTP status 413",
                    format!("{{\"seq\":{i},\"b\":1.50}}").as_bytes(),
                )
                .expect("written");
        }
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).expect("there");
        let (new, old) = (read("hook.refused.jsonl"), read("hook.refused.jsonl.1"));
        assert!(
            new.len() <= 1000
                && old.len() <= 1000
                && new.ends_with("\"event\":{\"seq\":39,\"b\":1.50}}\n"),
            "{new}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 2);
    }
}
