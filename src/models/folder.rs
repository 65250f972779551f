//! The folder of downloaded networks: installing and verifying them.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use crate::infer::paths;
use crate::models::catalogue::{CatalogueEntry, Format, RemoteFile};
use crate::models::download::{fetch, part_of};
use crate::models::error::ModelsError;
use crate::models::openvino;
use crate::onnx::graph::metadata_suffix;

/// Receives the progress of a download: the file and the number of bytes on disk.
pub type Progress<'a> = dyn FnMut(&RemoteFile, u64) + 'a;

/// Outcome of [`ModelFolder::get`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetOutcome {
    /// The network was installed already and is intact.
    Already,
    /// The network was downloaded and installed.
    Installed,
}

/// A folder of networks, each named after its entry with the extension `.onnx`. Original OpenVINO
/// files are kept beside it, in a folder with the entry's name.
#[derive(Debug, Clone)]
pub struct ModelFolder(PathBuf);

impl ModelFolder {
    /// The user's folder, in which `--detector NAME` and `--embedder NAME` are searched.
    ///
    /// # Errors
    /// Fails when none of the environment variables is set.
    pub fn of_user() -> Result<Self, ModelsError> {
        paths::download_folder()
            .map(ModelFolder)
            .ok_or(ModelsError::NoFolder)
    }

    /// Another folder; it need not exist yet.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        ModelFolder(path.into())
    }

    /// Path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Path of the ONNX file of an entry.
    pub fn model(&self, entry: &CatalogueEntry) -> PathBuf {
        self.0.join(format!("{}.onnx", entry.name))
    }

    /// Whether the entry is installed. [`ModelFolder::verify`] checks that it is intact.
    pub fn has(&self, entry: &CatalogueEntry) -> bool {
        self.model(entry).is_file()
    }

    /// Downloads the missing files of an entry, verifies and installs them.
    ///
    /// # Errors
    /// As [`fetch`], and when an OpenVINO network cannot be imported. After an error an earlier
    /// installation is unchanged.
    pub fn get(
        &self,
        entry: &CatalogueEntry,
        progress: &mut Progress<'_>,
    ) -> Result<GetOutcome, ModelsError> {
        if self.has(entry) && self.verify(entry).is_ok() {
            return Ok(GetOutcome::Already);
        }
        let model = self.model(entry);
        match entry.format {
            Format::Onnx => {
                let file = &entry.files[0];
                let metadata = metadata_suffix(&entry.metadata());
                if check(file, &model).is_ok() {
                    // The file differs only in its appended metadata, which another version of the
                    // program wrote.
                    let mut bytes = fs::read(&model).map_err(|e| ModelsError::read(&model, e))?;
                    bytes.truncate(file.bytes as usize);
                    bytes.extend(metadata);
                    write_whole(&model, &bytes)?;
                } else {
                    fetch(file, &model, &metadata, &mut |n| progress(file, n))?;
                }
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
        Ok(GetOutcome::Installed)
    }

    /// Verifies every byte of an installed entry against the catalogue.
    ///
    /// # Errors
    /// Fails when a file is missing, changed, or cannot be read.
    pub fn verify(&self, entry: &CatalogueEntry) -> Result<(), ModelsError> {
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
                rest == metadata_suffix(&entry.metadata())
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
                "it differs from what this version of twintrack installs".into(),
            ))
        }
    }

    fn original(&self, entry: &CatalogueEntry, file: &RemoteFile) -> PathBuf {
        self.0.join(&entry.name).join(file.name())
    }

    fn import(&self, entry: &CatalogueEntry) -> Result<Vec<u8>, ModelsError> {
        openvino::import(
            &self.original(entry, &entry.files[0]),
            &self.original(entry, &entry.files[1]),
            &entry.name,
            &entry.metadata(),
        )
    }
}

/// Checks that the first bytes of `path` are `file`; the error describes the difference.
fn check(file: &RemoteFile, path: &Path) -> Result<(), String> {
    let mut opened = File::open(path).map_err(|e| e.to_string())?;
    let mut sum = file.hash.start();
    let there = sum
        .update_from(&mut opened, file.bytes)
        .map_err(|e| e.to_string())?;
    if there < file.bytes {
        return Err(format!(
            "it has {there} bytes, but {} has {}",
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

/// Writes a temporary file and renames it, so that `path` is complete or absent.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), ModelsError> {
    let part = part_of(path);
    let written = File::create(&part)
        .and_then(|mut f| f.write_all(bytes).and_then(|()| f.sync_all()))
        .and_then(|()| fs::rename(&part, path));
    written.map_err(|e| {
        // An error of deleting the temporary file is ignored, because the original error is
        // reported.
        let _ = fs::remove_file(&part);
        ModelsError::write(path, bytes.len() as u64, e)
    })
}
