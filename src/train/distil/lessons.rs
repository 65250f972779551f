//! Batches of pictures that the teacher has judged, and the thread that has it judge them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use fastrand::Rng;
use ndarray::{Array2, Array4};
use rayon::prelude::*;

use crate::frame::Image;
use crate::train::dataset::TrainError;
use crate::train::distil::config::{DistilConfig, HELD_OUT};
use crate::train::distil::store::{Part, Store};
use crate::train::distil::teacher::Teacher;
use crate::train::network::{Design, Inputs, MapSize};
use crate::train::probe::generator::Generator;

/// Pictures handed to the teacher at once.
const AT_ONCE: usize = 64;

/// A batch with what the teacher said of it.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The pictures, as the student reads them.
    pub inputs: Inputs,
    /// The teacher's embeddings, unit rows [n, d].
    pub embeddings: Array2<f32>,
    /// The teacher's maps [n, c, h, w], where they are used.
    pub maps: Option<Array4<f32>>,
}

/// Draws batches from a store that a thread fills. The thread ends with the last copy of this.
#[derive(Debug, Clone)]
pub struct Lessons {
    store: Arc<Store>,
    config: DistilConfig,
    design: Design,
    seed: u64,
    _filler: Arc<Filler>,
}

/// The thread that fills the store.
#[derive(Debug)]
struct Filler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Filler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in it has reached the store's readers as a failure or a wait that ends with the program.
            let _ = thread.join();
        }
    }
}

impl Lessons {
    /// Begins to fill `store` with the generator's pictures and the teacher's judgement. The student sees the very pictures that
    /// were judged: the generator mirrors half of them, and nothing is mirrored or altered afterwards.
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
        Lessons {
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

    /// Batch number `step`: the same step gives the same batch. Waits for the teacher where it is behind.
    ///
    /// # Errors
    /// When the teacher failed or the store cannot be read.
    pub fn batch(&self, step: usize) -> Result<Judged, TrainError> {
        let available = self.config.available(step);
        self.store.wait(HELD_OUT + available)?;
        let mut rng =
            Rng::with_seed(self.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ step as u64 ^ 1 << 63);
        let which: Vec<usize> = (0..self.config.batch)
            .map(|_| HELD_OUT + rng.usize(..available))
            .collect();
        Ok(self.judged(self.store.read(&which)?))
    }

    /// The pictures that are never learnt from.
    ///
    /// # Errors
    /// As [`Lessons::batch`].
    pub fn held_out(&self) -> Result<Vec<Judged>, TrainError> {
        self.store.wait(HELD_OUT)?;
        let parts = (0..HELD_OUT)
            .step_by(AT_ONCE)
            .map(|start| (start..(start + AT_ONCE).min(HELD_OUT)).collect::<Vec<_>>());
        parts
            .map(|which| Ok(self.judged(self.store.read(&which)?)))
            .collect()
    }

    /// Length of the teacher's embeddings, and the size of its maps where they are used.
    pub fn teacher(&self) -> (usize, Option<MapSize>) {
        (self.store.rows().dimension, self.store.rows().map)
    }

    fn judged(&self, part: Part) -> Judged {
        let (w, h) = self.store.rows().picture;
        let mut crops = Array4::zeros((part.pictures.len(), 3, h, w));
        for (mut crop, bytes) in crops.outer_iter_mut().zip(&part.pictures) {
            for (i, pixel) in bytes.chunks_exact(3).enumerate() {
                (0..3).for_each(|c| crop[[c, i / w, i % w]] = f32::from(pixel[2 - c]) / 255.0);
            }
        }
        Judged {
            inputs: self.design.inputs(crops),
            embeddings: part.judgement.embeddings,
            maps: part.judgement.maps,
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
        let judgement = teacher.judge(&images)?;
        store.append(&Part {
            pictures,
            judgement,
        })?;
    }
    Ok(())
}
