//! Where models and libraries lie.

use std::path::{Path, PathBuf};

use crate::infer::runtime::InferError;

/// The program's own folder and those above it, which its owner controls.
fn program_roots() -> Vec<PathBuf> {
    let Ok(exe) = std::env::current_exe() else { return Vec::new() };
    // target/release/twintrack lies three levels below the repository, target/release/deps/test four.
    exe.ancestors().skip(1).take(4).map(Path::to_path_buf).collect()
}

/// Folders that may hold models: around the program, then the working folder.
pub fn search_roots() -> Vec<PathBuf> {
    program_roots().into_iter().chain(std::env::current_dir().ok()).collect()
}

/// Folders that may hold libraries: around the program, in its data folder, in the system. Never around the working folder,
/// which may be anybody's: a library that is loaded runs.
pub(super) fn library_places() -> Vec<PathBuf> {
    let around = program_roots().into_iter().flat_map(|r| [r.join(".deps/onnxruntime"), r.join("lib")]);
    let data = downloads().and_then(|models| Some(models.parent()?.join("lib")));
    let system = ["/usr/local/lib", "/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"].map(PathBuf::from);
    around.chain(data).chain(system).collect()
}

/// Folder of downloaded models: `models` in `$TWINTRACK_DATA`, else in `$XDG_DATA_HOME/twintrack`, else in
/// `~/.local/share/twintrack`. `None` when none of these is set.
pub fn downloads() -> Option<PathBuf> {
    downloads_of(|key| std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from))
}

fn downloads_of(var: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // By the XDG Base Directory Specification a relative path is to be ignored.
    let xdg = || var("XDG_DATA_HOME").filter(|p| p.is_absolute()).map(|p| p.join("twintrack"));
    let home = || var("HOME").map(|p| p.join(".local/share/twintrack"));
    Some(var("TWINTRACK_DATA").or_else(xdg).or_else(home)?.join("models"))
}

/// A model by name: the path itself where it exists, else in TWINTRACK_MODELS, the `models` folders around, and the folder of
/// downloaded models. A bare name without an ending also stands for the `.onnx` file of that name.
///
/// # Errors
/// When no such file exists.
pub fn find_model(path: &Path) -> Result<PathBuf, InferError> {
    if path.is_file() {
        return Ok(path.to_path_buf());
    }
    let mut places: Vec<PathBuf> = std::env::var_os("TWINTRACK_MODELS").map(PathBuf::from).into_iter().collect();
    let bare = path.components().count() == 1;
    if bare {
        places.extend(search_roots().iter().map(|r| r.join("models")));
        places.extend(downloads());
    }
    let with_ending = (bare && path.extension().is_none()).then(|| path.with_extension("onnx"));
    let names: Vec<&Path> = std::iter::once(path).chain(with_ending.as_deref()).collect();
    let found = places.iter().flat_map(|p| names.iter().map(|n| p.join(n))).find(|p| p.is_file());
    found.ok_or_else(|| InferError::ModelMissing {
        path: path.to_path_buf(),
        looked: places.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_downloads_follows_the_environment() {
        let folder = |set: &[(&str, &str)]| downloads_of(|key| set.iter().find(|(k, _)| *k == key).map(|(_, v)| PathBuf::from(v)));
        let home = ("HOME", "/home/ada");
        assert_eq!(folder(&[home]), Some("/home/ada/.local/share/twintrack/models".into()));
        assert_eq!(folder(&[home, ("XDG_DATA_HOME", "/data")]), Some("/data/twintrack/models".into()));
        assert_eq!(folder(&[home, ("XDG_DATA_HOME", "data")]), Some("/home/ada/.local/share/twintrack/models".into()));
        assert_eq!(folder(&[home, ("XDG_DATA_HOME", "/data"), ("TWINTRACK_DATA", "/srv/tt")]), Some("/srv/tt/models".into()));
        assert_eq!(folder(&[]), None);
    }
}
