//! Where training stands, on disk: the best network, the last one with its optimiser, and what was measured on the way.

use std::fs;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::Optimizer;
use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder, Recorder};
use burn::tensor::backend::{AutodiffBackend, Backend};
use serde::{Deserialize, Serialize};

use crate::train::config::TrainConfig;
use crate::train::curves::Point;
use crate::train::dataset::TrainError;

/// The format of the files.
pub type Files = NamedMpkFileRecorder<FullPrecisionSettings>;

/// Where training stands, beside the weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct State {
    /// The settings it was trained with.
    pub config: TrainConfig,
    /// Steps done.
    pub step: usize,
    /// The best score so far.
    pub best: f64,
    /// Validations since then.
    pub stale: usize,
    /// What was measured at each validation.
    pub points: Vec<Point>,
}

/// The error of a checkpoint that does not fit.
pub fn bad(dir: &Path, problem: &str) -> TrainError {
    TrainError::Checkpoint { path: dir.to_path_buf(), problem: problem.to_string() }
}

/// Writes the weights of a module as `dir`/`name`.
///
/// # Errors
/// When the file cannot be written.
pub fn save<B: Backend>(module: &impl Module<B>, dir: &Path, name: &str) -> Result<(), TrainError> {
    replace(dir, name, |path| module.clone().save_file(path, &Files::new()).map_err(|e| e.to_string()))
}

/// Writes everything that going on needs.
///
/// # Errors
/// When a file cannot be written.
pub fn checkpoint<B: AutodiffBackend, M: burn::module::AutodiffModule<B>>(
    learner: &M,
    optimizer: &impl Optimizer<M, B>,
    state: &State,
    dir: &Path,
) -> Result<(), TrainError> {
    save(learner, dir, "last")?;
    replace(dir, "last_optimizer", |path| Recorder::<B>::record(&Files::new(), optimizer.to_record(), path).map_err(|e| e.to_string()))?;
    let path = dir.join("last.json");
    let text = serde_json::to_string_pretty(state).map_err(|e| TrainError::Write { path: path.clone(), reason: e.to_string() })?;
    fs::write(&path, text).map_err(|e| TrainError::Write { path, reason: e.to_string() })
}

/// Writes beside and renames: a run broken off while writing leaves the former file whole. The recorder gives the file its
/// own ending.
fn replace(dir: &Path, name: &str, write: impl FnOnce(PathBuf) -> Result<(), String>) -> Result<(), TrainError> {
    let (fresh, path) = (dir.join(format!("{name}_new")), dir.join(format!("{name}.mpk")));
    let fail = |reason: String| TrainError::Write { path: path.clone(), reason };
    write(fresh.clone()).map_err(fail)?;
    fs::rename(fresh.with_extension("mpk"), &path).map_err(|e| fail(e.to_string()))
}

/// Reads where training stands; refuses the state of another network or of other batches.
///
/// # Errors
/// When it cannot be read or does not fit.
pub fn read_state(dir: &Path, config: &TrainConfig) -> Result<State, TrainError> {
    let path = dir.join("last.json");
    let text = fs::read_to_string(&path).map_err(|source| TrainError::Read { path: path.clone(), source })?;
    let state: State = serde_json::from_str(&text).map_err(|e| bad(&path, &e.to_string()))?;
    let (a, b) = (&state.config, config);
    let network = |c: &TrainConfig| {
        let body = c.start_from.as_ref().map_or_else(|| c.network.name().to_string(), |p| format!("the graph of {}", p.display()));
        format!("{body} for crops {} high with embeddings of length {}", c.height, c.dimension)
    };
    if network(a) != network(b) || (a.classification > 0.0) != (b.classification > 0.0) {
        let heads = |c: &TrainConfig| if c.classification > 0.0 { ", with classification" } else { "" };
        return Err(bad(&path, &format!("it is of the network {}{}, and {}{} was asked for", network(a), heads(a), network(b), heads(b))));
    }
    if (a.people, a.views, a.seed) != (b.people, b.views, b.seed) {
        return Err(bad(&path, "people, views and seed must stay as they were, or the batches are others"));
    }
    Ok(state)
}
