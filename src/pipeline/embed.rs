//! The stage that embeds the detections' crops.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::detection::{Detection, Embeddings};
use crate::embed::Embedder;
use crate::pipeline::batch::{Batch, Item};
use crate::pipeline::batcher::Lane;
use crate::pipeline::error::PipelineError;
use crate::pipeline::observer::Observer;
use crate::pipeline::quarantine::LeftOut;
use crate::pipeline::scale::pixels;
use crate::pipeline::stage::each;

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
            match self.embeddings(item) {
                Ok(embeddings) => item.embeddings = embeddings,
                Err(e) => item.left_out = Some(LeftOut::Failed(e)),
            }
            if item.gated && item.left_out.is_none() {
                let results = (item.detections.clone(), item.embeddings.clone());
                self.results.insert(item.lane, results);
            }
            item.cost += start.elapsed().as_secs_f64();
        }
        observer.stage("embed", start.elapsed(), batch.items.len());
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
