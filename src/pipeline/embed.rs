//! The stage that embeds the detections' crops.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::detection::{Detection, Embeddings};
use crate::embed::{Embedder, People};
use crate::frame::Image;
use crate::pipeline::batch::{Batch, Item};
use crate::pipeline::batcher::Lane;
use crate::pipeline::error::PipelineError;
use crate::pipeline::observer::Observer;
use crate::pipeline::quarantine::LeftOut;
use crate::pipeline::scale::pixels;
use crate::pipeline::stage::{caught, each};

/// The stage's state: the network, and the last results of cameras with a motion gate.
pub(super) struct EmbedStage {
    embedder: Option<Embedder>,
    results: BTreeMap<Lane, (Vec<Detection>, Embeddings)>,
}

impl EmbedStage {
    pub fn new(embedder: Option<Embedder>) -> Self {
        EmbedStage {
            embedder,
            results: BTreeMap::new(),
        }
    }

    /// Time spent inside ONNX Runtime so far.
    pub fn busy(&self) -> Duration {
        self.embedder
            .as_ref()
            .map_or(Duration::ZERO, |e| e.model().busy())
    }

    /// Embeds the detections of each frame of a batch. A frame at which the network fails, twice,
    /// is dropped.
    pub fn embed(&mut self, batch: &mut Batch, observer: &dyn Observer) {
        let start = Instant::now();
        for lane in &batch.ended {
            self.results.remove(lane);
        }
        let together = self.embed_together(batch);
        for item in batch.items.iter_mut().filter(|i| i.left_out.is_none()) {
            let start = Instant::now();
            if item.still {
                (item.detections, item.embeddings) = self
                    .results
                    .get(&item.lane)
                    .cloned()
                    .unwrap_or_else(|| (Vec::new(), Embeddings::none()));
                continue;
            }
            if !together {
                match self.embeddings(item) {
                    Ok(embeddings) => item.embeddings = embeddings,
                    Err(e) => item.left_out = Some(LeftOut::Failed(e)),
                }
            }
            if item.gated && item.left_out.is_none() {
                let results = (item.detections.clone(), item.embeddings.clone());
                self.results.insert(item.lane, results);
            }
            item.cost += start.elapsed().as_secs_f64();
        }
        observer.stage("embed", start.elapsed(), batch.items.len());
    }

    /// Embeds the detections of all active frames in one batch on the network's device. Returns
    /// `false` if it was not done: each frame is then to be embedded alone.
    fn embed_together(&mut self, batch: &mut Batch) -> bool {
        let on_device = self.embedder.as_mut().filter(|e| e.cuts_on_device());
        let Some(embedder) = on_device else {
            return false;
        };
        let start = Instant::now();
        let embedded = caught("embed", || embed_batch(embedder, batch));
        let embeddings = match embedded {
            Ok(Some(embeddings)) => embeddings,
            Ok(None) => return false,
            Err(error) => {
                tracing::debug!(%error, "a batch cannot be embedded; embedding its frames alone");
                return false;
            }
        };
        let share = start.elapsed().as_secs_f64() / embeddings.len().max(1) as f64;
        for (item, embeddings) in batch.active().zip(embeddings) {
            item.embeddings = embeddings;
            item.cost += share;
        }
        true
    }

    fn embeddings(&mut self, item: &Item) -> Result<Embeddings, PipelineError> {
        let Some(embedder) = &mut self.embedder else {
            return Ok(Embeddings::none());
        };
        let image = pixels(&item.frame)?;
        each("embed", 1, |_| {
            Ok(vec![embedder.embed(image, &item.detections)?])
        })
        .pop()
        .unwrap_or(Err(PipelineError::NoResult { stage: "embed" }))
    }
}

/// The embeddings of the active frames, computed on the network's device. `None` where that is to
/// be done on the CPU.
///
/// # Errors
/// If a frame has no pixels, or the device fails.
fn embed_batch(
    embedder: &mut Embedder,
    batch: &mut Batch,
) -> Result<Option<Vec<Embeddings>>, PipelineError> {
    let frames = match batch.frames.take() {
        Some(frames) => Some(frames),
        None => {
            let items: Vec<&Item> = batch.items.iter().filter(|i| i.is_active()).collect();
            let images: Result<Vec<&Image>, _> = items.iter().map(|i| pixels(&i.frame)).collect();
            let frames = if items.is_empty() {
                None
            } else {
                embedder.load(&images?)?
            };
            batch
                .active()
                .enumerate()
                .for_each(|(i, item)| item.device_index = Some(i));
            frames
        }
    };
    let Some(frames) = frames else {
        return Ok(None);
    };
    let people: Option<Vec<People<'_>>> = batch
        .items
        .iter()
        .filter(|i| i.is_active())
        .map(|item| {
            Some(People {
                frame: item.device_index?,
                size: (item.frame.width, item.frame.height),
                detections: &item.detections,
            })
        })
        .collect();
    match people {
        Some(people) => Ok(embedder.embed_on_device(&frames, &people)?),
        None => Ok(None),
    }
}
