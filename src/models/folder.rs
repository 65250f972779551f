//! The folder of downloaded networks: what is installed, getting more, checking them.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::infer::places;
use crate::models::catalogue::{Entry, Format, RemoteFile};
use crate::models::download::{fetch, part_of};
use crate::models::error::ModelsError;
use crate::models::openvino;
use crate::onnx::graph::metadata_tail;

/// Told of a download: the file, how many bytes are there.
pub type Progress<'a> = dyn FnMut(&RemoteFile, u64) + 'a;

/// What [`Folder::get`] found to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Got {
    /// It was there, and right.
    Already,
    /// It was downloaded and installed.
    Installed,
}

/// A folder of networks, each under its entry's name with `.onnx` behind it. Files of OpenVINO lie in a folder of the entry's
/// name beside it.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The user's folder, which `--detector NAME` and `--embedder NAME` look in.
    ///
    /// # Errors
    /// When the environment names none.
    pub fn of_user() -> Result<Self, ModelsError> {
        places::downloads().map(Folder).ok_or(ModelsError::NoFolder)
    }

    /// A folder of your choice; it need not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Folder(path.into())
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The file that is used.
    pub fn model(&self, entry: &Entry) -> PathBuf {
        self.0.join(format!("{}.onnx", entry.name))
    }

    /// Whether the entry is installed (not whether it is whole: see [`Folder::verify`]).
    pub fn has(&self, entry: &Entry) -> bool {
        self.model(entry).is_file()
    }

    /// Downloads what is missing of an entry, checks it, and installs it.
    ///
    /// # Errors
    /// As [`fetch`], and when an OpenVINO network cannot be imported. What was installed before is then as it was.
    pub fn get(&self, entry: &Entry, progress: &mut Progress<'_>) -> Result<Got, ModelsError> {
        if self.has(entry) && self.verify(entry).is_ok() {
            return Ok(Got::Already);
        }
        let model = self.model(entry);
        match entry.format {
            Format::Onnx => {
                let file = &entry.files[0];
                if check(file, &model).is_ok() {
                    // Only the metadata behind it are another version's.
                    fs::rename(&model, part_of(&model))
                        .map_err(|e| ModelsError::write(&model, file.bytes, e))?;
                }
                fetch(file, &model, &metadata_tail(&entry.metadata()), &mut |n| {
                    progress(file, n)
                })?;
            }
            Format::OpenVino => {
                for file in &entry.files {
                    let to = self.original(entry, file);
                    if check(file, &to).is_err() {
                        fetch(file, &to, &[], &mut |n| progress(file, n))?;
                    }
                }
                write_whole(&model, &self.import(entry)?)?;
            }
        }
        Ok(Got::Installed)
    }

    /// Checks an installed entry against the catalogue: every byte of it.
    ///
    /// # Errors
    /// When a file is missing, changed, or cannot be read.
    pub fn verify(&self, entry: &Entry) -> Result<(), ModelsError> {
        let model = self.model(entry);
        let damaged = |path: &Path, reason: String| ModelsError::Damaged {
            path: path.into(),
            reason,
            name: entry.name.clone(),
        };
        let content = match entry.format {
            Format::Onnx => {
                let file = &entry.files[0];
                check(file, &model).map_err(|reason| damaged(&model, reason))?;
                let (mut rest, read) = (Vec::new(), |e| ModelsError::read(&model, e));
                let mut opened = File::open(&model).map_err(read)?;
                opened
                    .seek(SeekFrom::Start(file.bytes))
                    .and_then(|_| opened.read_to_end(&mut rest))
                    .map_err(read)?;
                rest == metadata_tail(&entry.metadata())
            }
            Format::OpenVino => {
                for file in &entry.files {
                    let path = self.original(entry, file);
                    check(file, &path).map_err(|reason| damaged(&path, reason))?;
                }
                fs::read(&model).map_err(|e| ModelsError::read(&model, e))? == self.import(entry)?
            }
        };
        if content {
            Ok(())
        } else {
            Err(damaged(
                &model,
                "it is not what this version of twintrack installs".into(),
            ))
        }
    }

    fn original(&self, entry: &Entry, file: &RemoteFile) -> PathBuf {
        self.0.join(&entry.name).join(file.name())
    }

    fn import(&self, entry: &Entry) -> Result<Vec<u8>, ModelsError> {
        openvino::import(
            &self.original(entry, &entry.files[0]),
            &self.original(entry, &entry.files[1]),
            &entry.name,
            &entry.metadata(),
        )
    }
}

/// Whether the first bytes of `path` are `file`'s; else why not.
fn check(file: &RemoteFile, path: &Path) -> Result<(), String> {
    let mut opened = File::open(path).map_err(|e| e.to_string())?;
    let mut sum = file.hash.start();
    let there = sum
        .update_from(&mut opened, file.bytes)
        .map_err(|e| e.to_string())?;
    if there < file.bytes {
        return Err(format!(
            "it has {there} bytes where {} has {}",
            file.name(),
            file.bytes
        ));
    }
    let found = sum.finish();
    if found == file.hash.hex() {
        Ok(())
    } else {
        Err(format!(
            "its {} is {found} instead of {}",
            file.hash.kind(),
            file.hash.hex()
        ))
    }
}

/// Writes a file under another name first, so that it is there as a whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ModelsError> {
    let part = part_of(path);
    let written = File::create(&part)
        .and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()))
        .and_then(|()| fs::rename(&part, path));
    written.map_err(|e| {
        // Of no use to anybody; that it may stay behind changes nothing about the error.
        let _ = fs::remove_file(&part);
        ModelsError::write(path, bytes.len() as u64, e)
    })
}
