//! Search paths of models and of the ONNX Runtime library.

use std::path::{Component, Path, PathBuf};

use crate::infer::error::InferError;

/// The program's folder and those above it, which belong to whoever installed the program.
fn program_roots() -> Vec<PathBuf> {
    let Ok(exe) = std::env::current_exe() else {
        return Vec::new();
    };
    // From target/release/twintrack the repository is three levels up, from
    // target/release/deps/test four.
    exe.ancestors()
        .skip(1)
        .take(4)
        .map(Path::to_path_buf)
        .collect()
}

/// Folders that may hold models: the program's folder and those above it, then the working folder.
pub fn search_roots() -> Vec<PathBuf> {
    program_roots()
        .into_iter()
        .chain(std::env::current_dir().ok())
        .collect()
}

/// Folders that may hold libraries: around the program, in its data folder, in the system. The
/// working folder is left out, because loading a library runs its code and anybody may have put it
/// there.
pub(super) fn library_places() -> Vec<PathBuf> {
    let around = program_roots()
        .into_iter()
        .flat_map(|r| [r.join(".deps/onnxruntime"), r.join("lib")]);
    let data = downloads().and_then(|models| Some(models.parent()?.join("lib")));
    let system = [
        "/usr/local/lib",
        "/usr/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
    ]
    .map(PathBuf::from);
    around.chain(data).chain(system).collect()
}

/// Folder of downloaded models: `$TWINTRACK_DATA/models`, else `$XDG_DATA_HOME/twintrack/models`,
/// else `~/.local/share/twintrack/models`. `None` when none of these variables is set.
pub fn downloads() -> Option<PathBuf> {
    downloads_of(|key| {
        std::env::var_os(key)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    })
}

fn downloads_of(var: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The XDG Base Directory Specification says that a relative path is to be ignored.
    let xdg = || {
        var("XDG_DATA_HOME")
            .filter(|p| p.is_absolute())
            .map(|p| p.join("twintrack"))
    };
    let home = || var("HOME").map(|p| p.join(".local/share/twintrack"));
    Some(
        var("TWINTRACK_DATA")
            .or_else(xdg)
            .or_else(home)?
            .join("models"),
    )
}

/// Resolves the file of a network. A path that names a folder (`./mine.onnx`, `/srv/mine.onnx`) is
/// used as it is. A bare name is searched in TWINTRACK_MODELS, in the `models` folders around the
/// program, in the folder of downloaded models and in `models` in the working folder, in this
/// order. The working folder itself is not searched, so that a file there cannot replace one of the
/// program's networks by accident. A bare name without an extension also matches the `.onnx` file
/// of that name.
///
/// # Errors
/// Fails when there is no such file; the message says so if the working folder has one of that
/// name.
pub fn find_model(path: &Path) -> Result<PathBuf, InferError> {
    let mut places: Vec<PathBuf> = std::env::var_os("TWINTRACK_MODELS")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    places.extend(program_roots().iter().map(|r| r.join("models")));
    places.extend(downloads());
    // Last, so that a folder that happens to be named `models` does not replace the program's
    // networks.
    places.extend(std::env::current_dir().map(|d| d.join("models")));
    find_in(path, &places)
}

/// Whether a path is a bare file name.
fn is_bare(path: &Path) -> bool {
    let mut parts = path.components();
    matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    )
}

fn find_in(path: &Path, places: &[PathBuf]) -> Result<PathBuf, InferError> {
    let missing = |looked: String, hint: String| InferError::ModelMissing {
        path: path.to_path_buf(),
        looked,
        hint,
    };
    if !is_bare(path) {
        if path.is_dir() {
            return Err(folder(path));
        }
        let there = path.is_file().then(|| path.to_path_buf());
        return there.ok_or_else(|| missing(path.display().to_string(), String::new()));
    }
    let with_ending = path
        .extension()
        .is_none()
        .then(|| path.with_extension("onnx"));
    let names: Vec<&Path> = std::iter::once(path)
        .chain(with_ending.as_deref())
        .collect();
    let found = places
        .iter()
        .flat_map(|p| names.iter().map(|n| p.join(n)))
        .find(|p| p.is_file());
    let here = names.iter().find(|n| n.is_file()).map(|n| with_folder(n));
    match (found, here) {
        (Some(found), None) => Ok(found),
        (Some(found), Some(here)) => {
            let (used, here) = (found.display(), here.display());
            tracing::warn!(
                "using {used} for the network '{}'; write {here} to use the file in the current \
                 folder",
                path.display()
            );
            Ok(found)
        }
        (None, None) if path.is_dir() => Err(folder(path)),
        (None, here) => {
            let looked: Vec<String> = places.iter().map(|p| p.display().to_string()).collect();
            let hint = |h: PathBuf| {
                format!(
                    "a file of that name is in the current folder: write {}; otherwise ",
                    h.display()
                )
            };
            Err(missing(
                looked.join(", "),
                here.map(hint).unwrap_or_default(),
            ))
        }
    }
}

/// The error that the file of a network is a folder.
fn folder(path: &Path) -> InferError {
    InferError::ModelBroken {
        path: path.to_path_buf(),
        reason: "it is a folder; name the ONNX file in it".into(),
    }
}

/// Prefixes a bare file name with `./`, so that [`find_model`] uses it as it is.
pub fn with_folder(file: &Path) -> PathBuf {
    if is_bare(file) {
        Path::new(".").join(file)
    } else {
        file.to_path_buf()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn download_folder_is_taken_from_the_environment() {
        let folder = |set: &[(&str, &str)]| {
            downloads_of(|key| {
                set.iter()
                    .find(|(k, _)| *k == key)
                    .map(|(_, v)| PathBuf::from(v))
            })
        };
        let home = ("HOME", "/home/ada");
        assert_eq!(
            folder(&[home]),
            Some("/home/ada/.local/share/twintrack/models".into())
        );
        assert_eq!(
            folder(&[home, ("XDG_DATA_HOME", "/data")]),
            Some("/data/twintrack/models".into())
        );
        assert_eq!(
            folder(&[home, ("XDG_DATA_HOME", "data")]),
            Some("/home/ada/.local/share/twintrack/models".into())
        );
        assert_eq!(
            folder(&[
                home,
                ("XDG_DATA_HOME", "/data"),
                ("TWINTRACK_DATA", "/srv/tt")
            ]),
            Some("/srv/tt/models".into())
        );
        assert_eq!(folder(&[]), None);
    }

    #[test]
    fn a_bare_name_is_searched_in_model_folders_and_a_path_is_used_as_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let [models, downloads, elsewhere] =
            ["models", "downloads", "elsewhere"].map(|d| dir.path().join(d));
        for (folder, file) in [
            (&models, "a.onnx"),
            (&downloads, "a.onnx"),
            (&downloads, "b.onnx"),
            (&elsewhere, "c.onnx"),
        ] {
            std::fs::create_dir_all(folder).expect("a folder");
            std::fs::write(folder.join(file), "").expect("written");
        }
        let places = [models.clone(), downloads.clone()];
        let find = |name: &Path| find_in(name, &places);
        for (name, wanted) in [
            ("a.onnx", models.join("a.onnx")),
            ("a", models.join("a.onnx")),
            ("b", downloads.join("b.onnx")),
        ] {
            assert_eq!(find(Path::new(name)).expect("there"), wanted);
        }
        assert_eq!(
            find(&elsewhere.join("c.onnx")).expect("there"),
            elsewhere.join("c.onnx")
        );
        // Tests run in the repository's folder, which holds Cargo.toml.
        let e = find(Path::new("Cargo.toml")).unwrap_err().to_string();
        assert!(e.contains("write ./Cargo.toml"), "{e}");
        assert_eq!(
            find(Path::new("./Cargo.toml")).expect("a path"),
            Path::new("./Cargo.toml")
        );
        assert!(
            !find(Path::new("c.onnx"))
                .unwrap_err()
                .to_string()
                .contains("current folder")
        );
        assert!(
            find(&elsewhere.join("a.onnx")).is_err(),
            "a path is not searched for"
        );
    }

    #[test]
    fn a_bare_name_gets_a_folder() {
        for (file, path) in [
            ("x.onnx", "./x.onnx"),
            ("./x.onnx", "./x.onnx"),
            ("out/x.onnx", "out/x.onnx"),
            ("/x.onnx", "/x.onnx"),
        ] {
            assert_eq!(with_folder(Path::new(file)), Path::new(path));
        }
    }
}
