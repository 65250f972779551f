//! On-disk store of pictures with the teacher's output, so that the output of a picture is computed
//! once and used many times.
//!
//! The store is a folder. Its files `pictures.u8` (packed blue, green, red bytes), `embeddings.f32`
//! and, if feature maps are used, `maps.f16` have one row per picture, little-endian; `about.json`
//! has the number of complete rows.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use ndarray::{Array2, Array4};
use serde::{Deserialize, Serialize};

use crate::train::distil::teacher::TeacherOutput;
use crate::train::error::TrainError;
use crate::train::tensors::MapSize;

/// Shape of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowShape {
    /// Width and height of a picture.
    pub picture: (usize, usize),
    /// Dimension of an embedding.
    pub dimension: usize,
    /// Size of a feature map, if stored.
    pub map: Option<MapSize>,
}

impl RowShape {
    fn picture_bytes(&self) -> usize {
        3 * self.picture.0 * self.picture.1
    }

    fn map_values(&self) -> usize {
        self.map.map_or(0, |m| m.iter().product())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct StoreHeader {
    rows: RowShape,
    count: usize,
}

/// Number of complete rows, or the reason why filling stopped.
#[derive(Debug, Default)]
struct Progress {
    count: usize,
    failure: Option<String>,
}

/// The store. One thread appends rows, any number of threads read them.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    rows: RowShape,
    pictures: File,
    embeddings: File,
    maps: Option<File>,
    progress: Mutex<Progress>,
    more: Condvar,
}

/// A set of rows.
#[derive(Debug, Clone)]
pub struct StoredRows {
    /// Packed blue, green, red bytes of each picture.
    pub pictures: Vec<Vec<u8>>,
    /// The teacher's output for them.
    pub output: TeacherOutput,
}

impl Store {
    /// Opens or creates the store in `dir`. Incomplete rows of an interrupted run are overwritten.
    ///
    /// # Errors
    /// Fails when the folder cannot be written, its `about.json` cannot be read, or it holds rows
    /// of another shape.
    pub fn open(dir: &Path, rows: RowShape) -> Result<Self, TrainError> {
        let fail = |e: io::Error| TrainError::Write {
            path: dir.to_path_buf(),
            reason: e.to_string(),
        };
        fs::create_dir_all(dir).map_err(fail)?;
        let about = dir.join("about.json");
        let count = match fs::read(&about) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
            Err(source) => {
                return Err(TrainError::Read {
                    path: about,
                    source,
                });
            }
            Ok(bytes) => {
                let known: StoreHeader =
                    serde_json::from_slice(&bytes).map_err(|e| TrainError::Data {
                        name: about.display().to_string(),
                        problem: format!("it cannot be parsed ({e}); remove its folder"),
                    })?;
                if known.rows != rows {
                    return Err(TrainError::Data {
                        name: dir.display().to_string(),
                        problem: "it holds pictures or embeddings of another size; remove it"
                            .into(),
                    });
                }
                known.count
            }
        };
        let open = |name: &str| {
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(dir.join(name))
                .map_err(fail)
        };
        Ok(Store {
            dir: dir.to_path_buf(),
            rows,
            pictures: open("pictures.u8")?,
            embeddings: open("embeddings.f32")?,
            maps: rows.map.map(|_| open("maps.f16")).transpose()?,
            progress: Mutex::new(Progress {
                count,
                failure: None,
            }),
            more: Condvar::new(),
        })
    }

    /// Shape of the rows.
    pub fn rows(&self) -> &RowShape {
        &self.rows
    }

    /// Number of complete rows.
    pub fn count(&self) -> usize {
        self.progress
            .lock()
            .expect("no thread panics while holding the lock")
            .count
    }

    /// Appends pictures with the teacher's output.
    ///
    /// # Errors
    /// Fails when the rows cannot be written; earlier rows stay complete.
    pub fn append(&self, part: &StoredRows) -> Result<(), TrainError> {
        let fail = |e: io::Error| TrainError::Write {
            path: self.dir.clone(),
            reason: e.to_string(),
        };
        let start = self.count();
        self.pictures
            .write_all_at(
                &part.pictures.concat(),
                (start * self.rows.picture_bytes()) as u64,
            )
            .map_err(fail)?;
        let bytes: Vec<u8> = part
            .output
            .embeddings
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        self.embeddings
            .write_all_at(&bytes, (start * self.rows.dimension * 4) as u64)
            .map_err(fail)?;
        if let (Some(file), Some(maps)) = (&self.maps, &part.output.maps) {
            let bytes: Vec<u8> = maps
                .iter()
                .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                .collect();
            file.write_all_at(&bytes, (start * self.rows.map_values() * 2) as u64)
                .map_err(fail)?;
        }
        let count = start + part.pictures.len();
        let about = serde_json::to_vec(&StoreHeader {
            rows: self.rows,
            count,
        })
        .expect("numbers are JSON");
        let (fresh, path) = (self.dir.join("about.json.new"), self.dir.join("about.json"));
        fs::write(&fresh, about)
            .and_then(|()| fs::rename(&fresh, &path))
            .map_err(fail)?;
        self.progress
            .lock()
            .expect("no thread panics while holding the lock")
            .count = count;
        self.more.notify_all();
        Ok(())
    }

    /// Records the reason why no more rows will be appended; wakes up waiting threads.
    pub fn fail(&self, reason: String) {
        self.progress
            .lock()
            .expect("no thread panics while holding the lock")
            .failure = Some(reason);
        self.more.notify_all();
    }

    /// Waits until the store has `count` rows.
    ///
    /// # Errors
    /// Fails when [`Store::fail`] was called.
    pub fn wait(&self, count: usize) -> Result<(), TrainError> {
        let mut progress = self
            .progress
            .lock()
            .expect("no thread panics while holding the lock");
        while progress.count < count {
            if let Some(reason) = &progress.failure {
                return Err(TrainError::Data {
                    name: self.dir.display().to_string(),
                    problem: format!("the teacher failed: {reason}"),
                });
            }
            progress = self
                .more
                .wait(progress)
                .expect("no thread panics while holding the lock");
        }
        Ok(())
    }

    /// Reads rows, which must be complete.
    ///
    /// # Errors
    /// Fails when the rows cannot be read.
    pub fn read(&self, which: &[usize]) -> Result<StoredRows, TrainError> {
        let fail = |source: io::Error| TrainError::Read {
            path: self.dir.clone(),
            source,
        };
        let (size, d, m) = (
            self.rows.picture_bytes(),
            self.rows.dimension,
            self.rows.map_values(),
        );
        let mut pictures = Vec::with_capacity(which.len());
        let mut embeddings = Vec::with_capacity(which.len() * d);
        let mut maps = vec![0.0f32; which.len() * m];
        let (mut row, mut bits, mut halves) = (vec![0u8; 4 * d], vec![0u8; 2 * m], vec![0u16; m]);
        for (place, &i) in which.iter().enumerate() {
            let mut picture = vec![0; size];
            self.pictures
                .read_exact_at(&mut picture, (i * size) as u64)
                .map_err(fail)?;
            pictures.push(picture);
            self.embeddings
                .read_exact_at(&mut row, (i * 4 * d) as u64)
                .map_err(fail)?;
            embeddings.extend(
                row.as_chunks::<4>()
                    .0
                    .iter()
                    .map(|b| f32::from_le_bytes(*b)),
            );
            if let Some(file) = &self.maps {
                file.read_exact_at(&mut bits, (i * 2 * m) as u64)
                    .map_err(fail)?;
                halves
                    .iter_mut()
                    .zip(bits.as_chunks::<2>().0)
                    .for_each(|(h, b)| *h = u16::from_le_bytes(*b));
                halves
                    .reinterpret_cast::<f16>()
                    .convert_to_f32_slice(&mut maps[place * m..(place + 1) * m]);
            }
        }
        let n = which.len();
        let embeddings = Array2::from_shape_vec((n, d), embeddings).expect("n rows of d");
        let maps = self.rows.map.map(|[c, h, w]| {
            Array4::from_shape_vec((n, c, h, w), maps).expect("n maps of one size")
        });
        Ok(StoredRows {
            pictures,
            output: TeacherOutput { embeddings, maps },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: RowShape = RowShape {
        picture: (2, 4),
        dimension: 3,
        map: Some([2, 2, 1]),
    };

    fn part(n: usize, first: u8) -> StoredRows {
        let value = |i: usize, k: usize| f32::from(first) + i as f32 + k as f32 / 8.0;
        StoredRows {
            pictures: (0..n).map(|i| vec![first + i as u8; 24]).collect(),
            output: TeacherOutput {
                embeddings: Array2::from_shape_fn((n, 3), |(i, k)| value(i, k)),
                maps: Some(Array4::from_shape_fn((n, 2, 2, 1), |(i, c, y, _)| {
                    value(i, 2 * c + y)
                })),
            },
        }
    }

    #[test]
    fn rows_survive_reopening_and_incomplete_ones_are_overwritten() {
        let dir = std::env::temp_dir().join(format!("twintrack-store-{}", std::process::id()));
        {
            let store = Store::open(&dir, ROWS).expect("a new one");
            store.append(&part(3, 0)).expect("written");
            // The file is as after an interruption within the fourth row.
            store
                .pictures
                .write_all_at(&[99; 24], 3 * 24)
                .expect("written");
        }
        let store = Store::open(&dir, ROWS).expect("the same");
        assert_eq!(store.count(), 3);
        store.append(&part(2, 10)).expect("written");
        let read = store.read(&[4, 0, 3]).expect("whole rows");
        assert_eq!(
            read.pictures.iter().map(|p| p[0]).collect::<Vec<_>>(),
            [11, 0, 10]
        );
        assert_eq!(
            read.output.embeddings.column(1).to_vec(),
            [11.125, 0.125, 10.125]
        );
        assert_eq!(
            read.output
                .maps
                .expect("maps")
                .slice(ndarray::s![.., 1, 1, 0])
                .to_vec(),
            [11.375, 0.375, 10.375]
        );
        let other = Store::open(
            &dir,
            RowShape {
                dimension: 4,
                ..ROWS
            },
        )
        .expect_err("another shape");
        assert!(other.to_string().contains("another size"), "{other}");
        store.fail("no more disk".into());
        assert!(store.wait(5).is_ok());
        assert!(
            store
                .wait(6)
                .expect_err("never")
                .to_string()
                .contains("no more disk")
        );
        fs::remove_dir_all(&dir).expect("our own folder");
    }
}
