//! Batches of pictures with the teacher's output, and the thread that runs the teacher on new ones.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use fastrand::Rng;
use ndarray::{Array2, Array4};
use rayon::prelude::*;

use crate::frame::Image;
use crate::train::distil::config::{DistilConfig, HELD_OUT};
use crate::train::distil::store::{Store, StoredRows};
use crate::train::distil::teacher::Teacher;
use crate::train::error::TrainError;
use crate::train::network::{Design, Inputs};
use crate::train::probe::generator::Generator;
use crate::train::tensors::MapSize;

/// Number of pictures that the teacher processes at once.
const AT_ONCE: usize = 64;

/// A batch with the teacher's output.
#[derive(Debug, Clone)]
pub struct TeacherBatch {
    /// The pictures, as the student's input.
    pub inputs: Inputs,
    /// The teacher's embeddings, unit rows [n, d].
    pub embeddings: Array2<f32>,
    /// The teacher's feature maps [n, c, h, w], if used.
    pub maps: Option<Array4<f32>>,
}

/// Draws batches from a store, which a thread fills. The thread ends when the last clone is
/// dropped.
#[derive(Debug, Clone)]
pub struct TeacherBatches {
    store: Arc<Store>,
    config: DistilConfig,
    design: Design,
    seed: u64,
    _filler: Arc<Filler>,
}

/// The thread that fills the store; stopped and joined on drop.
#[derive(Debug)]
struct Filler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is not reported here, because the store reports it to its
            // readers.
            let _ = thread.join();
        }
    }
}

impl TeacherBatches {
    /// Starts to fill `store` with the generator's pictures and the teacher's output. The student
    /// is trained on exactly these pictures, without augmentation; the generator has mirrored half
    /// of them.
    pub fn begin(
        store: Store,
        generator: Generator,
        teacher: Teacher,
        config: &DistilConfig,
        design: Design,
        seed: u64,
    ) -> Self {
        let (store, stop) = (Arc::new(store), Arc::new(AtomicBool::new(false)));
        let total = HELD_OUT + config.probes;
        let thread = std::thread::spawn({
            let (store, stop) = (store.clone(), stop.clone());
            move || {
                if let Err(e) = fill(&store, &generator, teacher, total, &stop) {
                    store.fail(e.to_string());
                }
            }
        });
        TeacherBatches {
            store,
            config: config.clone(),
            design,
            seed,
            _filler: Arc::new(Filler {
                stop,
                thread: Some(thread),
            }),
        }
    }

    /// The batch of a step; depends on the step only. Waits if the teacher has not processed its
    /// pictures yet.
    ///
    /// # Errors
    /// Fails when the teacher has failed or the store cannot be read.
    pub fn batch(&self, step: usize) -> Result<TeacherBatch, TrainError> {
        let available = self.config.available(step);
        self.store.wait(HELD_OUT + available)?;
        let mut rng =
            Rng::with_seed(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ step as u64 ^ 1 << 63);
        let which: Vec<usize> = (0..self.config.batch)
            .map(|_| HELD_OUT + rng.usize(..available))
            .collect();
        Ok(self.teacher_batch(self.store.read(&which)?))
    }

    /// The held-out pictures.
    ///
    /// # Errors
    /// As [`TeacherBatches::batch`].
    pub fn held_out(&self) -> Result<Vec<TeacherBatch>, TrainError> {
        self.store.wait(HELD_OUT)?;
        let parts = (0..HELD_OUT)
            .step_by(AT_ONCE)
            .map(|start| (start..(start + AT_ONCE).min(HELD_OUT)).collect::<Vec<_>>());
        parts
            .map(|which| Ok(self.teacher_batch(self.store.read(&which)?)))
            .collect()
    }

    /// Dimension of the teacher's embeddings, and the size of its feature maps, if used.
    pub fn teacher(&self) -> (usize, Option<MapSize>) {
        (self.store.rows().dimension, self.store.rows().map)
    }

    fn teacher_batch(&self, part: StoredRows) -> TeacherBatch {
        let (w, h) = self.store.rows().picture;
        let mut crops = Array4::zeros((part.pictures.len(), 3, h, w));
        for (mut crop, bytes) in crops.outer_iter_mut().zip(&part.pictures) {
            for (i, pixel) in bytes.chunks_exact(3).enumerate() {
                (0..3).for_each(|c| crop[[c, i / w, i % w]] = f32::from(pixel[2 - c]) / 255.0);
            }
        }
        TeacherBatch {
            inputs: self.design.inputs(crops),
            embeddings: part.output.embeddings,
            maps: part.output.maps,
        }
    }
}

fn fill(
    store: &Store,
    generator: &Generator,
    mut teacher: Teacher,
    total: usize,
    stop: &AtomicBool,
) -> Result<(), TrainError> {
    let (w, h) = generator.size();
    while !stop.load(Ordering::Relaxed) {
        let start = store.count();
        if start >= total {
            break;
        }
        let pictures: Vec<Vec<u8>> = (start..(start + AT_ONCE).min(total))
            .into_par_iter()
            .map(|n| generator.probe(n as u64))
            .collect();
        let images: Vec<Image> = pictures
            .iter()
            .map(|p| Image::packed(w as u32, h as u32, p.as_slice().into()))
            .collect();
        let output = teacher.embed(&images)?;
        store.append(&StoredRows { pictures, output })?;
    }
    Ok(())
}
