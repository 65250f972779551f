//! Downloads one file: resumes an interrupted download, and renames the file after its hash was
//! verified.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use ureq::Agent;
use ureq::http::{StatusCode, header};

use crate::models::catalogue::RemoteFile;
use crate::models::digest::Hasher;
use crate::models::error::ModelsError;

/// Timeout for connecting, and for the start of the response.
const ANSWER: Duration = Duration::from_secs(30);
/// Timeout for the next bytes of a response.
const SILENCE: Duration = Duration::from_secs(30);

/// Downloads `file` to `to` and appends `suffix`. If the file [`part_of`] `to` exists, the download
/// resumes from it. `progress` receives the number of bytes on disk.
///
/// # Errors
/// Fails when the server cannot be reached, closes the connection early or sends another file, and
/// when the disk is full or cannot be written. After an error `to` is unchanged.
pub fn fetch(
    file: &RemoteFile,
    to: &Path,
    suffix: &[u8],
    progress: &mut dyn FnMut(u64),
) -> Result<(), ModelsError> {
    let path = part_of(to);
    let wrong = |e| ModelsError::write(&path, file.bytes, e);
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder).map_err(|e| ModelsError::write(folder, file.bytes, e))?;
    }
    let out = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(wrong)?;
    match out.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ModelsError::Busy(path)),
        Err(TryLockError::Error(e)) => return Err(wrong(e)),
    }
    let done = PartialDownload {
        file,
        path: &path,
        out,
    }
    .complete(suffix, progress);
    match done {
        Ok(()) => fs::rename(&path, to).map_err(|e| ModelsError::write(to, file.bytes, e)),
        Err(e) => {
            if matches!(
                e,
                ModelsError::DiskFull { .. } | ModelsError::WrongHash { .. }
            ) || fs::metadata(&path).is_ok_and(|m| m.len() == 0)
            {
                // An error of deleting the partial file is ignored, because the original error is
                // reported.
                let _ = fs::remove_file(&path);
            }
            Err(e)
        }
    }
}

/// Name of the file while it is incomplete.
pub fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(".part");
    name.into()
}

/// A download in progress.
struct PartialDownload<'a> {
    file: &'a RemoteFile,
    path: &'a Path,
    out: File,
}

impl PartialDownload<'_> {
    fn failed(&self, e: io::Error) -> ModelsError {
        ModelsError::write(self.path, self.file.bytes, e)
    }

    /// Completes the file, verifies it, and appends `suffix`.
    fn complete(mut self, suffix: &[u8], progress: &mut dyn FnMut(u64)) -> Result<(), ModelsError> {
        let mut sum = self.file.hash.start();
        let there = sum
            .update_from(&mut self.out, self.file.bytes)
            .map_err(|e| self.failed(e))?;
        self.cut(there)?;
        progress(there);
        if there < self.file.bytes {
            sum = self.download(there, sum, progress)?;
        }
        let found = sum.finish();
        if found != self.file.hash.hex() {
            let (kind, wanted) = (self.file.hash.kind(), self.file.hash.hex().to_string());
            return Err(ModelsError::WrongHash {
                address: self.file.address.clone(),
                kind,
                found,
                wanted,
            });
        }
        self.out
            .write_all(suffix)
            .and_then(|()| self.out.sync_all())
            .map_err(|e| self.failed(e))
    }

    /// Truncates the file to `length` bytes and continues there.
    fn cut(&mut self, length: u64) -> Result<(), ModelsError> {
        self.out
            .set_len(length)
            .and_then(|()| self.out.seek(SeekFrom::Start(length)))
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Downloads the bytes after the first `there` ones; `sum` is the hash state of the first ones.
    fn download(
        &mut self,
        there: u64,
        sum: Hasher,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Hasher, ModelsError> {
        let mut answer = self.ask(there)?;
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            answer = self.ask(0)?;
        }
        let (from, sum) = match answer.status() {
            StatusCode::PARTIAL_CONTENT if there > 0 => (there, sum),
            // The server does not support ranges: start over.
            StatusCode::OK => (0, self.file.hash.start()),
            other => return Err(self.unexpected(other.to_string())),
        };
        let number = |name, at: fn(&str) -> Option<&str>| {
            answer
                .headers()
                .get(name)
                .and_then(|v| at(v.to_str().ok()?)?.parse::<u64>().ok())
        };
        let whole = match from {
            0 => number(header::CONTENT_LENGTH, |v| v.split(',').next()),
            // bytes FIRST-LAST/WHOLE
            _ => number(header::CONTENT_RANGE, |v| v.split('/').nth(1)),
        };
        let first = number(header::CONTENT_RANGE, |v| {
            v.trim_start_matches("bytes ").split('-').next()
        });
        if let Some(other) = whole.filter(|w| *w != self.file.bytes) {
            return Err(self.unexpected(format!(
                "with a file of {other} bytes, but the catalogue lists {}",
                self.file.bytes
            )));
        }
        if from > 0 && first != Some(from) {
            return Err(self.unexpected("with another part of the file than requested".into()));
        }
        self.cut(from)?;
        let arriving = chunks(answer.into_body().into_reader());
        let (address, bytes) = (&self.file.address, self.file.bytes);
        pump(
            &arriving,
            &mut self.out,
            ByteRange { from, bytes },
            sum,
            SILENCE,
            progress,
        )
        .map_err(|stop| match stop {
            TransferError::Write(e) => ModelsError::write(self.path, bytes, e),
            TransferError::Broken { have, reason } => ModelsError::Interrupted {
                address: address.clone(),
                have,
                bytes,
                reason,
            },
            TransferError::TooLong => ModelsError::UnexpectedAnswer {
                address: address.clone(),
                answer: format!("with more than the {bytes} bytes that the catalogue lists"),
            },
        })
    }

    fn ask(&self, from: u64) -> Result<ureq::http::Response<ureq::Body>, ModelsError> {
        let config = Agent::config_builder()
            .timeout_connect(Some(ANSWER))
            .timeout_recv_response(Some(ANSWER))
            .http_status_as_error(false);
        let agent = Agent::new_with_config(
            config
                .user_agent(concat!("twintrack/", env!("CARGO_PKG_VERSION")))
                .build(),
        );
        let request = agent.get(&self.file.address);
        let request = if from > 0 {
            request.header(header::RANGE, format!("bytes={from}-"))
        } else {
            request
        };
        let unreachable = |e: ureq::Error| ModelsError::Unreachable {
            address: self.file.address.clone(),
            reason: e.to_string(),
            part: self.path.into(),
        };
        request.call().map_err(unreachable)
    }

    fn unexpected(&self, answer: String) -> ModelsError {
        ModelsError::UnexpectedAnswer {
            address: self.file.address.clone(),
            answer,
        }
    }
}

/// The bytes to transfer: from `from` up to the file's length `bytes`.
#[derive(Clone, Copy)]
struct ByteRange {
    from: u64,
    bytes: u64,
}

/// Why a transfer ended early.
#[derive(Debug)]
enum TransferError {
    /// Writing to the disk failed.
    Write(io::Error),
    /// The connection ended or timed out.
    Broken { have: u64, reason: String },
    /// The server sent more than expected.
    TooLong,
}

/// Reads on a separate thread, because a blocking read has no timeout. The thread ends when the
/// connection ends or the receiver is dropped.
fn chunks(mut reader: impl Read + Send + 'static) -> Receiver<io::Result<Vec<u8>>> {
    let (to, from) = sync_channel(4);
    std::thread::spawn(move || {
        loop {
            let mut buffer = vec![0; 1 << 16];
            let got = reader.read(&mut buffer).map(|n| {
                buffer.truncate(n);
                buffer
            });
            let last = got.as_ref().map_or(true, Vec::is_empty);
            if to.send(got).is_err() || last {
                return;
            }
        }
    });
    from
}

/// Writes the received chunks to `out` and hashes them; returns the hash state of the whole file.
fn pump(
    arriving: &Receiver<io::Result<Vec<u8>>>,
    out: &mut impl Write,
    range: ByteRange,
    mut sum: Hasher,
    silence: Duration,
    progress: &mut dyn FnMut(u64),
) -> Result<Hasher, TransferError> {
    let mut have = range.from;
    loop {
        let broken = |reason: String| TransferError::Broken { have, reason };
        let chunk = match arriving.recv_timeout(silence) {
            Ok(chunk) => chunk.map_err(|e| broken(e.to_string()))?,
            Err(RecvTimeoutError::Timeout) => {
                return Err(broken(format!("no data for {} s", silence.as_secs())));
            }
            Err(RecvTimeoutError::Disconnected) => Vec::new(),
        };
        if chunk.is_empty() {
            return if have == range.bytes {
                Ok(sum)
            } else {
                Err(broken("the server closed the connection".into()))
            };
        }
        have += chunk.len() as u64;
        if have > range.bytes {
            return Err(TransferError::TooLong);
        }
        out.write_all(&chunk).map_err(TransferError::Write)?;
        sum.update(&chunk);
        progress(have);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::digest::Digest;

    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 = self
                .0
                .checked_sub(bytes.len())
                .ok_or(io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn sum() -> Hasher {
        Digest::Sha256(String::new()).start()
    }

    const RANGE: ByteRange = ByteRange {
        from: 0,
        bytes: 200_000,
    };

    #[test]
    fn a_full_disk_is_reported_with_a_remedy() {
        let arriving = chunks(io::Cursor::new(vec![7; 200_000]));
        let stop = pump(
            &arriving,
            &mut Full(100_000),
            RANGE,
            sum(),
            SILENCE,
            &mut |_| {},
        )
        .expect_err("full");
        let TransferError::Write(e) = stop else {
            panic!("{stop:?}")
        };
        let text = ModelsError::write(Path::new("/data/x.onnx.part"), 200_000, e).to_string();
        assert!(
            text.contains("is full") && text.contains("0.2 MB") && text.contains("TWINTRACK_DATA"),
            "{text}"
        );
    }

    #[test]
    fn a_silent_server_times_out() {
        let (_keep, arriving) = sync_channel(1);
        let stop = pump(
            &arriving,
            &mut io::sink(),
            RANGE,
            sum(),
            Duration::from_millis(30),
            &mut |_| {},
        )
        .expect_err("silent");
        assert!(
            matches!(&stop, TransferError::Broken { have: 0, reason } if reason.contains("no data")),
            "{stop:?}"
        );
    }

    #[test]
    fn too_many_bytes_are_rejected_and_too_few_are_an_interruption() {
        let ended = |n: usize| {
            pump(
                &chunks(io::Cursor::new(vec![7; n])),
                &mut io::sink(),
                RANGE,
                sum(),
                SILENCE,
                &mut |_| {},
            )
        };
        assert!(matches!(ended(200_001), Err(TransferError::TooLong)));
        assert!(matches!(
            ended(150_000),
            Err(TransferError::Broken { have: 150_000, .. })
        ));
        assert!(ended(200_000).is_ok());
    }
}
