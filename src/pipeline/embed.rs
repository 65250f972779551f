//! Embeds the detections' crops, as part of the tracking stage: which crops are needed depends on
//! the tracks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::detection::{Detection, Embeddings};
use crate::embed::{Embedder, People};
use crate::frame::Image;
use crate::pipeline::batch::{Batch, Item};
use crate::pipeline::batcher::Lane;
use crate::pipeline::error::PipelineError;
use crate::pipeline::scale::pixels;
use crate::pipeline::stage::{caught, each};
use crate::track::embed_policy::EmbedPolicy;

/// The network, and the last results of cameras with a motion gate.
pub(super) struct Embedding {
    embedder: Option<Embedder>,
    /// Policy by which crops are left out; `None`: all crops are embedded.
    policy: Option<EmbedPolicy>,
    results: BTreeMap<Lane, (Vec<Detection>, Embeddings)>,
    /// Whether the present batch was embedded on the network's device already.
    together: bool,
    /// Time spent since it was last taken.
    took: Duration,
}

impl Embedding {
    /// `policy`: the rules by which crops are left out; `None`: all crops are embedded.
    pub fn new(embedder: Option<Embedder>, policy: Option<EmbedPolicy>) -> Self {
        Embedding {
            embedder,
            policy,
            results: BTreeMap::new(),
            together: false,
            took: Duration::ZERO,
        }
    }

    /// Time spent inside ONNX Runtime so far.
    pub fn busy(&self) -> Duration {
        self.embedder
            .as_ref()
            .map_or(Duration::ZERO, |e| e.model().busy())
    }

    /// Time spent since the last call.
    pub fn take_time(&mut self) -> Duration {
        std::mem::take(&mut self.took)
    }

    /// Begins a batch. If crops are cut on the network's device and all are wanted, this function
    /// embeds them in one run; if the run fails, each frame is embedded alone.
    pub fn begin(&mut self, batch: &mut Batch) {
        for (lane, _) in &batch.ended {
            self.results.remove(lane);
        }
        let start = Instant::now();
        self.together = false;
        let on_device = self.embedder.as_mut().filter(|e| e.cuts_on_device());
        if let Some(embedder) = on_device.filter(|_| self.policy.is_none()) {
            match caught("embed", || embed_batch(embedder, batch)) {
                Ok(Some(embeddings)) => {
                    let share = start.elapsed().as_secs_f64() / embeddings.len().max(1) as f64;
                    for (item, embeddings) in batch.active().zip(embeddings) {
                        item.embeddings = embeddings;
                        item.cost += share;
                    }
                    self.together = true;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, "a batch cannot be embedded; embedding its frames alone");
                }
            }
        }
        self.took += start.elapsed();
    }

    /// Embeds a frame's detections, those that `needed` chooses if there is a policy.
    ///
    /// # Errors
    /// If the network fails twice, or the frame has no pixels.
    pub fn embed(
        &mut self,
        item: &mut Item,
        needed: impl FnOnce(&[Detection], &EmbedPolicy) -> Vec<bool>,
    ) -> Result<(), PipelineError> {
        let start = Instant::now();
        let result = self.embed_item(item, needed);
        let took = start.elapsed();
        item.cost += took.as_secs_f64();
        self.took += took;
        result
    }

    fn embed_item(
        &mut self,
        item: &mut Item,
        needed: impl FnOnce(&[Detection], &EmbedPolicy) -> Vec<bool>,
    ) -> Result<(), PipelineError> {
        if item.still {
            (item.detections, item.embeddings) = self
                .results
                .get(&item.lane)
                .cloned()
                .unwrap_or_else(|| (Vec::new(), Embeddings::none()));
            return Ok(());
        }
        if !self.together
            && let Some(embedder) = &mut self.embedder
        {
            let image = pixels(&item.frame)?;
            let detections = &item.detections;
            let chosen = self.policy.as_ref().map(|p| needed(detections, p));
            let is_chosen = |i: usize| chosen.as_ref().is_none_or(|c| c[i]);
            item.embeddings = each("embed", 1, |_| {
                Ok(vec![embedder.embed_those(image, detections, is_chosen)?])
            })
            .pop()
            .unwrap_or(Err(PipelineError::NoResult { stage: "embed" }))?;
        }
        if item.gated {
            let results = (item.detections.clone(), item.embeddings.clone());
            self.results.insert(item.lane, results);
        }
        Ok(())
    }
}

/// The embeddings of the active frames, computed on the network's device. `None` if they must be
/// computed from crops cut on the CPU.
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
