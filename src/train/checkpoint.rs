//! Where training stands, on disk: the best network, the last one with its optimiser, and what was measured on the way.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use burn::module::Module;
use burn::optim::Optimizer;
use burn::record::{FullPrecisionSettings, NamedMpkFileRecorder, Recorder};
use burn::tensor::backend::AutodiffBackend;
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
    TrainError::Checkpoint {
        path: dir.to_path_buf(),
        problem: problem.to_string(),
    }
}

/// What going on needs, beside the settings: the learner with its optimiser, and the best tower so
/// far.
pub struct Checkpoint<'a, L, O, T> {
    /// The learner.
    pub learner: &'a L,
    /// Its optimiser.
    pub optimizer: &'a O,
    /// The best tower, where it is better than that of the checkpoint before.
    pub best: Option<&'a T>,
    /// Where training stands.
    pub state: &'a State,
}

/// Writes a checkpoint: a set of files that belong together, in a folder of its own. A run that is
/// broken off while it writes leaves the former checkpoint whole.
///
/// # Errors
/// When a file cannot be written.
pub fn write<B, L, O, T>(checkpoint: &Checkpoint<'_, L, O, T>, dir: &Path) -> Result<(), TrainError>
where
    B: AutodiffBackend,
    L: burn::module::AutodiffModule<B>,
    O: Optimizer<L, B>,
    T: Module<B>,
{
    let former = place(dir);
    set(dir, checkpoint.state.step, |folder| {
        let save = |path: PathBuf| {
            move |e: burn::record::RecorderError| TrainError::Write {
                path,
                reason: e.to_string(),
            }
        };
        checkpoint
            .learner
            .clone()
            .save_file(folder.join("last"), &Files::new())
            .map_err(save(folder.join("last")))?;
        let optimizer = folder.join("last_optimizer");
        Recorder::<B>::record(
            &Files::new(),
            checkpoint.optimizer.to_record(),
            optimizer.clone(),
        )
        .map_err(save(optimizer))?;
        let best = folder.join("best.mpk");
        match checkpoint.best {
            Some(tower) => tower
                .clone()
                .save_file(folder.join("best"), &Files::new())
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

/// Folders of checkpoints are called so, with the steps behind.
const NAME: &str = "checkpoint-";

fn failed(path: &Path, e: &io::Error) -> TrainError {
    TrainError::Write {
        path: path.into(),
        reason: e.to_string(),
    }
}

/// The checkpoints in a folder by their steps, ascending; whole ones only.
fn all(dir: &Path) -> Vec<(usize, PathBuf)> {
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix(NAME)?.parse().ok();
    let mut all: Vec<_> = fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter_map(|p| Some((step(&p)?, p)))
        .collect();
    all.sort();
    all
}

fn newest(dir: &Path) -> Option<PathBuf> {
    all(dir).pop().map(|(_, path)| path)
}

/// Where the files of the newest checkpoint are. Before checkpoints had folders of their own they
/// lay in the working folder itself.
pub fn place(dir: &Path) -> PathBuf {
    newest(dir).unwrap_or_else(|| dir.into())
}

/// Removes the checkpoints in a folder: another run begins.
///
/// # Errors
/// When one cannot be removed.
pub fn clear(dir: &Path) -> Result<(), TrainError> {
    all(dir)
        .iter()
        .try_for_each(|(_, path)| fs::remove_dir_all(path).map_err(|e| failed(path, &e)))
}

/// Lets `write` fill a new folder, which becomes the checkpoint of `step` by being renamed when all
/// is on the disk; then the former ones go.
fn set(
    dir: &Path,
    step: usize,
    write: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let (path, fresh) = (
        dir.join(format!("{NAME}{step}")),
        dir.join(format!("{NAME}new")),
    );
    let _ = fs::remove_dir_all(&fresh); // of a run that was broken off
    fs::create_dir_all(&fresh).map_err(|e| failed(&fresh, &e))?;
    write(&fresh)?;
    let sync = |folder: &Path| -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            fs::File::open(entry?.path())?.sync_all()?;
        }
        fs::File::open(folder)?.sync_all()
    };
    sync(&fresh).map_err(|e| failed(&fresh, &e))?;
    let former: Vec<PathBuf> = all(dir).into_iter().map(|(_, path)| path).collect();
    // Only a run that was given the same number of steps twice finds its own folder.
    if former.contains(&path) {
        fs::remove_dir_all(&path).map_err(|e| failed(&path, &e))?;
    }
    fs::rename(&fresh, &path).map_err(|e| failed(&path, &e))?;
    for old in former.iter().filter(|old| **old != path) {
        let _ = fs::remove_dir_all(old); // it is in nobody's way but the disk's
    }
    Ok(())
}

/// Reads where training stands in the folder of a checkpoint; refuses the state of another network
/// or of other batches.
///
/// # Errors
/// When it cannot be read or does not fit.
pub fn read_state(dir: &Path, config: &TrainConfig) -> Result<State, TrainError> {
    let path = dir.join("last.json");
    let text = fs::read_to_string(&path).map_err(|source| TrainError::Read {
        path: path.clone(),
        source,
    })?;
    let state: State = serde_json::from_str(&text).map_err(|e| bad(&path, &e.to_string()))?;
    let (a, b) = (&state.config, config);
    let network = |c: &TrainConfig| {
        let body = c.start_from.as_ref().map_or_else(
            || c.network.name().to_string(),
            |p| format!("the graph of {}", p.display()),
        );
        format!(
            "{body} for crops {} high with embeddings of length {}",
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
        return Err(bad(
            &path,
            &format!(
                "it is of the network {}{}, and {}{} was asked for",
                network(a),
                heads(a),
                network(b),
                heads(b)
            ),
        ));
    }
    if (a.people, a.views, a.seed) != (b.people, b.views, b.seed) {
        return Err(bad(
            &path,
            "people, views and seed must stay as they were, or the batches are others",
        ));
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files were replaced one by one: a run that was broken off between two left weights of one
    /// step with the optimiser of another.
    #[test]
    fn a_checkpoint_that_was_broken_off_leaves_the_former_one_whole() {
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
        set(dir, 2, both(2)).expect("written");
        let broken = set(dir, 4, |folder: &Path| {
            write(4, "last")(folder).and(Err(bad(folder, "the disk is full")))
        });
        assert!(broken.is_err());
        assert_eq!((read("last"), read("optimizer")), ("2".into(), "2".into()));
        set(dir, 4, both(4)).expect("written");
        set(dir, 10, both(10)).expect("written");
        assert_eq!(
            (read("last"), read("optimizer")),
            ("10".into(), "10".into())
        );
        set(dir, 10, both(11)).expect("written again");
        assert_eq!(
            (read("last"), fs::read_dir(dir).expect("a folder").count()),
            ("11".into(), 1)
        );
        clear(dir).expect("removed");
        assert!(newest(dir).is_none());
    }
}
