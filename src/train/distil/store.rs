//! Pictures and what the teacher said of them, on disk: judged once, learnt from many times.
//!
//! A folder of three files of rows, one a picture, and `about.json`, which says how many rows are whole: `pictures.u8` (packed
//! blue, green, red bytes), `embeddings.f32`, and with maps `maps.f16`, all little-endian.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex};

use half::f16;
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use ndarray::{Array2, Array4};
use serde::{Deserialize, Serialize};

use crate::train::dataset::TrainError;
use crate::train::distil::teacher::Judgement;
use crate::train::network::MapSize;

/// The shape of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// Width and height of a picture.
    pub picture: (usize, usize),
    /// Length of an embedding.
    pub dimension: usize,
    /// Size of a map, where maps are kept.
    pub map: Option<MapSize>,
}

impl Rows {
    fn picture_bytes(&self) -> usize {
        3 * self.picture.0 * self.picture.1
    }

    fn map_values(&self) -> usize {
        self.map.map_or(0, |m| m.iter().product())
    }
}

#[derive(Debug, Serialize, Deserialize)]
struct About {
    rows: Rows,
    count: usize,
}

/// How far the filling has come, or why it stopped.
#[derive(Debug, Default)]
struct Progress {
    count: usize,
    failure: Option<String>,
}

/// The store. One thread appends, any number read.
#[derive(Debug)]
pub struct Store {
    dir: PathBuf,
    rows: Rows,
    pictures: File,
    embeddings: File,
    maps: Option<File>,
    progress: Mutex<Progress>,
    more: Condvar,
}

/// Some rows.
#[derive(Debug, Clone)]
pub struct Part {
    /// Packed blue, green, red bytes of each picture.
    pub pictures: Vec<Vec<u8>>,
    /// What the teacher said of them.
    pub judgement: Judgement,
}

impl Store {
    /// Opens the store in `dir`, or begins one. Rows that were not finished when the program ended are overwritten.
    ///
    /// # Errors
    /// When the folder cannot be written, or holds rows of another shape.
    pub fn open(dir: &Path, rows: Rows) -> Result<Self, TrainError> {
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
                let known: About =
                    serde_json::from_slice(&bytes).map_err(|e| TrainError::Data {
                        name: about.display().to_string(),
                        problem: format!("it cannot be understood ({e}); remove its folder"),
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

    /// The shape of its rows.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// How many rows are whole.
    pub fn count(&self) -> usize {
        self.progress
            .lock()
            .expect("nobody panics while holding it")
            .count
    }

    /// Appends pictures and what the teacher said of them.
    ///
    /// # Errors
    /// When the disk does not take them; the rows before stay whole.
    pub fn append(&self, part: &Part) -> Result<(), TrainError> {
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
            .judgement
            .embeddings
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        self.embeddings
            .write_all_at(&bytes, (start * self.rows.dimension * 4) as u64)
            .map_err(fail)?;
        if let (Some(file), Some(maps)) = (&self.maps, &part.judgement.maps) {
            let bytes: Vec<u8> = maps
                .iter()
                .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                .collect();
            file.write_all_at(&bytes, (start * self.rows.map_values() * 2) as u64)
                .map_err(fail)?;
        }
        let count = start + part.pictures.len();
        let about = serde_json::to_vec(&About {
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
            .expect("nobody panics while holding it")
            .count = count;
        self.more.notify_all();
        Ok(())
    }

    /// Says that no more rows will come, and why; who waits is told.
    pub fn fail(&self, reason: String) {
        self.progress
            .lock()
            .expect("nobody panics while holding it")
            .failure = Some(reason);
        self.more.notify_all();
    }

    /// Waits until there are `count` rows.
    ///
    /// # Errors
    /// When the filling failed before.
    pub fn wait(&self, count: usize) -> Result<(), TrainError> {
        let mut progress = self
            .progress
            .lock()
            .expect("nobody panics while holding it");
        while progress.count < count {
            if let Some(reason) = &progress.failure {
                return Err(TrainError::Data {
                    name: self.dir.display().to_string(),
                    problem: format!("the teacher stopped judging pictures: {reason}"),
                });
            }
            progress = self
                .more
                .wait(progress)
                .expect("nobody panics while holding it");
        }
        Ok(())
    }

    /// Reads rows, which must be whole.
    ///
    /// # Errors
    /// When the disk does not give them.
    pub fn read(&self, which: &[usize]) -> Result<Part, TrainError> {
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
        Ok(Part {
            pictures,
            judgement: Judgement { embeddings, maps },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: Rows = Rows {
        picture: (2, 4),
        dimension: 3,
        map: Some([2, 2, 1]),
    };

    fn part(n: usize, first: u8) -> Part {
        let value = |i: usize, k: usize| f32::from(first) + i as f32 + k as f32 / 8.0;
        Part {
            pictures: (0..n).map(|i| vec![first + i as u8; 24]).collect(),
            judgement: Judgement {
                embeddings: Array2::from_shape_fn((n, 3), |(i, k)| value(i, k)),
                maps: Some(Array4::from_shape_fn((n, 2, 2, 1), |(i, c, y, _)| {
                    value(i, 2 * c + y)
                })),
            },
        }
    }

    #[test]
    fn rows_come_back_also_after_a_new_start_and_an_unfinished_one_is_overwritten() {
        let dir = std::env::temp_dir().join(format!("twintrack-store-{}", std::process::id()));
        {
            let store = Store::open(&dir, ROWS).expect("a new one");
            store.append(&part(3, 0)).expect("written");
            // As if the program had ended in the middle of the fourth.
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
            read.judgement.embeddings.column(1).to_vec(),
            [11.125, 0.125, 10.125]
        );
        assert_eq!(
            read.judgement
                .maps
                .expect("maps")
                .slice(ndarray::s![.., 1, 1, 0])
                .to_vec(),
            [11.375, 0.375, 10.375]
        );
        let other = Store::open(
            &dir,
            Rows {
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
