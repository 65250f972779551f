//! Checkpoints on disk: the best and the last network, the optimiser and the measurements.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder, Recorder};
use burn::tensor::backend::AutodiffBackend;
use serde::{Deserialize, Serialize};

use crate::train::config::TrainConfig;
use crate::train::curves::CurvePoint;
use crate::train::error::TrainError;
use crate::train::optimiser::AdamW;

/// File format of weights and optimiser state.
pub type CheckpointRecorder = NamedMpkFileRecorder<FullPrecisionSettings>;

/// Progress of a training run, apart from the weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TrainingState {
    /// The configuration of the run.
    pub config: TrainConfig,
    /// Number of completed steps.
    pub step: usize,
    /// The best score so far.
    pub best: f64,
    /// Number of validations since the best score.
    pub stale: usize,
    /// Measurements at each validation.
    pub points: Vec<CurvePoint>,
}

/// The error for an unusable checkpoint.
pub fn unusable(dir: &Path, problem: &str) -> TrainError {
    TrainError::Checkpoint {
        path: dir.to_path_buf(),
        problem: problem.to_string(),
    }
}

/// The data from which training is resumed.
pub struct Checkpoint<'a, B: AutodiffBackend, L, T> {
    /// The learner.
    pub learner: &'a L,
    /// The learner's optimiser.
    pub optimizer: &'a AdamW<B>,
    /// The best tower, if it is better than the previous checkpoint's.
    pub best: Option<&'a T>,
    /// Progress of the run.
    pub state: &'a TrainingState,
}

/// Writes a checkpoint as a folder of files. If the program is interrupted while writing, the
/// previous checkpoint is kept; if it is one of the same step and the interruption comes between
/// two renames, as `checkpoint-old`.
///
/// # Errors
/// When a file cannot be written.
pub fn write<B, L, T>(checkpoint: &Checkpoint<'_, B, L, T>, dir: &Path) -> Result<(), TrainError>
where
    B: AutodiffBackend,
    L: burn::module::AutodiffModule<B>,
    T: Module<B>,
{
    let former = newest_or(dir);
    replace_checkpoint(dir, checkpoint.state.step, |folder| {
        let save = |path: PathBuf| {
            move |e: burn::record::RecorderError| TrainError::Write {
                path,
                reason: e.to_string(),
            }
        };
        checkpoint
            .learner
            .clone()
            .save_file(folder.join("last"), &CheckpointRecorder::new())
            .map_err(save(folder.join("last")))?;
        let optimizer = folder.join("last_optimizer");
        Recorder::<B::InnerBackend>::record(
            &CheckpointRecorder::new(),
            checkpoint.optimizer.moments(),
            optimizer.clone(),
        )
        .map_err(save(optimizer))?;
        let best = folder.join("best.mpk");
        match checkpoint.best {
            Some(tower) => tower
                .clone()
                .save_file(folder.join("best"), &CheckpointRecorder::new())
                .map_err(save(best))?,
            None => {
                let from = former.join("best.mpk");
                fs::hard_link(&from, &best)
                    .or_else(|_| fs::copy(&from, &best).map(drop))
                    .map_err(|e| failed(&from, &e))?;
            }
        }
        let path = folder.join("last.json");
        let text =
            serde_json::to_string_pretty(checkpoint.state).map_err(|e| TrainError::Write {
                path: path.clone(),
                reason: e.to_string(),
            })?;
        fs::write(&path, text).map_err(|e| failed(&path, &e))
    })
}

/// Prefix of the names of checkpoint folders, followed by the step.
const NAME: &str = "checkpoint-";

fn failed(path: &Path, e: &io::Error) -> TrainError {
    TrainError::Write {
        path: path.into(),
        reason: e.to_string(),
    }
}

/// The complete checkpoints in a folder, by ascending step.
fn checkpoints(dir: &Path) -> Vec<(usize, PathBuf)> {
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix(NAME)?.parse().ok();
    let mut checkpoints: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter_map(|p| Some((step(&p)?, p)))
        .collect();
    checkpoints.sort();
    checkpoints
}

fn newest(dir: &Path) -> Option<PathBuf> {
    checkpoints(dir).pop().map(|(_, path)| path)
}

/// Folder of the newest checkpoint in `dir`; `dir` itself if there is none, as in runs of earlier
/// versions.
pub fn newest_or(dir: &Path) -> PathBuf {
    newest(dir).unwrap_or_else(|| dir.into())
}

/// Removes the checkpoints in a folder, for a new run.
///
/// # Errors
/// Fails when a checkpoint cannot be removed.
pub fn clear(dir: &Path) -> Result<(), TrainError> {
    checkpoints(dir)
        .iter()
        .try_for_each(|(_, path)| fs::remove_dir_all(path).map_err(|e| failed(path, &e)))
}

/// Calls `write` with a temporary folder, renames that folder to the checkpoint of `step` when all
/// files are on disk, and removes the previous checkpoints.
fn replace_checkpoint(
    dir: &Path,
    step: usize,
    write: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let (path, fresh) = (
        dir.join(format!("{NAME}{step}")),
        dir.join(format!("{NAME}new")),
    );
    let _ = fs::remove_dir_all(&fresh); // left by an interrupted run
    fs::create_dir_all(&fresh).map_err(|e| failed(&fresh, &e))?;
    write(&fresh)?;
    let sync = |folder: &Path| -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            fs::File::open(entry?.path())?.sync_all()?;
        }
        fs::File::open(folder)?.sync_all()
    };
    sync(&fresh).map_err(|e| failed(&fresh, &e))?;
    let former: Vec<PathBuf> = checkpoints(dir).into_iter().map(|(_, path)| path).collect();
    // A repeated run with the same number of steps overwrites its own checkpoint. That one is moved
    // aside before and removed afterwards, because a removal takes longer and can be interrupted.
    let aside = dir.join(format!("{NAME}old"));
    let _ = fs::remove_dir_all(&aside); // left by an interrupted run
    if former.contains(&path) {
        fs::rename(&path, &aside).map_err(|e| failed(&path, &e))?;
    }
    fs::rename(&fresh, &path).map_err(|e| failed(&path, &e))?;
    let _ = fs::remove_dir_all(&aside);
    for old in former.iter().filter(|old| **old != path) {
        let _ = fs::remove_dir_all(old); // an error is ignored: the folder only takes disk space
    }
    Ok(())
}

/// Reads the state in a checkpoint folder; rejects the state of another network or of other
/// batches.
///
/// # Errors
/// Fails when the state cannot be read or does not match the configuration.
pub fn read_state(dir: &Path, config: &TrainConfig) -> Result<TrainingState, TrainError> {
    let path = dir.join("last.json");
    let text = fs::read_to_string(&path).map_err(|source| TrainError::Read {
        path: path.clone(),
        source,
    })?;
    let state: TrainingState =
        serde_json::from_str(&text).map_err(|e| unusable(&path, &e.to_string()))?;
    let (a, b) = (&state.config, config);
    let network = |c: &TrainConfig| {
        let body = c.start_from.as_ref().map_or_else(
            || c.network.name().to_string(),
            |p| format!("the graph of {}", p.display()),
        );
        format!(
            "{body} for crops {} high with embeddings of dimension {}",
            c.height, c.dimension
        )
    };
    if network(a) != network(b) || (a.classification > 0.0) != (b.classification > 0.0) {
        let heads = |c: &TrainConfig| {
            if c.classification > 0.0 {
                ", with classification"
            } else {
                ""
            }
        };
        return Err(unusable(
            &path,
            &format!(
                "it is of the network {}{}, but {}{} was requested",
                network(a),
                heads(a),
                network(b),
                heads(b)
            ),
        ));
    }
    if (a.people, a.views, a.seed) != (b.people, b.views, b.seed) {
        return Err(unusable(
            &path,
            "people, views and seed must not change: they determine the batches",
        ));
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Regression: files were replaced one by one, so that an interruption left weights and
    /// optimiser state of different steps.
    #[test]
    fn an_interrupted_checkpoint_leaves_the_previous_one_complete() {
        let dir = tempfile::tempdir().expect("a folder");
        let dir = dir.path();
        let write = |step: usize, name: &'static str| {
            move |folder: &Path| {
                fs::write(folder.join(name), step.to_string()).map_err(|e| failed(folder, &e))
            }
        };
        let both = |step: usize| {
            move |folder: &Path| {
                write(step, "last")(folder).and_then(|()| write(step, "optimizer")(folder))
            }
        };
        let read = |name: &str| {
            fs::read_to_string(newest(dir).expect("a checkpoint").join(name)).expect("whole")
        };
        assert!(newest(dir).is_none());
        replace_checkpoint(dir, 2, both(2)).expect("written");
        let broken = replace_checkpoint(dir, 4, |folder: &Path| {
            write(4, "last")(folder).and(Err(unusable(folder, "the disk is full")))
        });
        assert!(broken.is_err());
        assert_eq!((read("last"), read("optimizer")), ("2".into(), "2".into()));
        replace_checkpoint(dir, 4, both(4)).expect("written");
        replace_checkpoint(dir, 10, both(10)).expect("written");
        assert_eq!(
            (read("last"), read("optimizer")),
            ("10".into(), "10".into())
        );
        replace_checkpoint(dir, 10, both(11)).expect("written again");
        assert_eq!(
            (read("last"), fs::read_dir(dir).expect("a folder").count()),
            ("11".into(), 1)
        );
        clear(dir).expect("removed");
        assert!(newest(dir).is_none());
    }
}
