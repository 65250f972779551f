//! Searches for files of networks and for the ONNX Runtime library.

use std::path::{Component, Path, PathBuf};

use crate::infer::error::InferError;

/// The program's folder and up to three folders above it. Libraries are loaded from them, so only
/// the user who installed the program may have write access.
fn program_folders() -> Vec<PathBuf> {
    let Ok(exe) = std::env::current_exe() else {
        return Vec::new();
    };
    // Four folders are needed to find the repository: it is the third above
    // target/release/twintrack, and the fourth above a test in target/release/deps.
    exe.ancestors()
        .skip(1)
        .take(4)
        .map(Path::to_path_buf)
        .collect()
}

/// Folders in which the ONNX Runtime library is searched for, in this order: `.deps/onnxruntime`
/// and `lib` in each of [`program_folders`]; `lib` in the data folder (beside [`download_folder`]);
/// the system's library folders. The working folder is not searched, because loading a library runs
/// its code, and another user may have written the file.
pub(super) fn library_folders() -> Vec<PathBuf> {
    let of_program = program_folders()
        .into_iter()
        .flat_map(|f| [f.join(".deps/onnxruntime"), f.join("lib")]);
    let data = download_folder().and_then(|models| Some(models.parent()?.join("lib")));
    let system = [
        "/usr/local/lib",
        "/usr/lib",
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
    ]
    .map(PathBuf::from);
    of_program.chain(data).chain(system).collect()
}

/// Folder of downloaded networks: `$TWINTRACK_DATA/models`, else `$XDG_DATA_HOME/twintrack/models`,
/// else `$HOME/.local/share/twintrack/models`. `None` if none of these variables is set. An empty
/// variable counts as not set, and so does a relative XDG_DATA_HOME.
pub fn download_folder() -> Option<PathBuf> {
    download_folder_from(|key| {
        std::env::var_os(key)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    })
}

fn download_folder_from(var: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
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

/// Finds the file of a network. A path with a folder part (`./mine.onnx`, `/srv/mine.onnx`) is used
/// unchanged. A name without a folder part is searched for in the folder TWINTRACK_MODELS, in
/// `models` in the program's folder and up to three folders above it, in the folder of downloaded
/// networks, and in `models` in the working folder, in this order. The working folder itself is not
/// searched, so that a file there cannot be used by accident instead of one of the program's
/// networks. In each folder a name without an extension matches the file NAME, else NAME.onnx.
///
/// # Errors
/// Fails when no file is found or the path is a folder; if only the working folder has a file of
/// that name, the message says to write `./NAME`. If both the working folder and another folder
/// have the file, a warning is logged instead.
pub fn find_model(path: &Path) -> Result<PathBuf, InferError> {
    let mut folders: Vec<PathBuf> = std::env::var_os("TWINTRACK_MODELS")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    folders.extend(program_folders().iter().map(|f| f.join("models")));
    folders.extend(download_folder());
    // The working folder is last, so that a folder `models` in it does not take precedence over the
    // program's networks.
    folders.extend(std::env::current_dir().map(|d| d.join("models")));
    find_in(path, &folders)
}

/// Whether a path is a bare file name.
fn is_bare(path: &Path) -> bool {
    let mut parts = path.components();
    matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(_)), None)
    )
}

fn find_in(path: &Path, folders: &[PathBuf]) -> Result<PathBuf, InferError> {
    if !is_bare(path) {
        if path.is_dir() {
            return Err(folder(path));
        }
        let existing = path.is_file().then(|| path.to_path_buf());
        return existing.ok_or_else(|| InferError::NoSuchFile { path: path.into() });
    }
    let with_extension = path
        .extension()
        .is_none()
        .then(|| path.with_extension("onnx"));
    let names: Vec<&Path> = std::iter::once(path)
        .chain(with_extension.as_deref())
        .collect();
    let found = folders
        .iter()
        .flat_map(|p| names.iter().map(|n| p.join(n)))
        .find(|p| p.is_file());
    let local = names
        .iter()
        .find(|n| n.is_file())
        .map(|n| in_working_folder(n));
    match (found, local) {
        (Some(found), None) => Ok(found),
        (Some(found), Some(local)) => {
            let (used, local) = (found.display(), local.display());
            tracing::warn!(
                "using {used} for the network '{}'; to use the file in the working folder, name it \
                 {local}",
                path.display()
            );
            Ok(found)
        }
        (None, None) if path.is_dir() => Err(folder(path)),
        (None, local) => {
            let searched: Vec<String> = folders.iter().map(|p| p.display().to_string()).collect();
            let hint = |h: PathBuf| {
                format!(
                    "the working folder has a file of that name: write {} to use it; otherwise ",
                    h.display()
                )
            };
            Err(InferError::ModelMissing {
                path: path.to_path_buf(),
                searched: searched.join(", "),
                hint: local.map(hint).unwrap_or_default(),
            })
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

/// Prefixes a bare file name with `./`, so that [`find_model`] uses it unchanged.
pub fn in_working_folder(file: &Path) -> PathBuf {
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
            download_folder_from(|key| {
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
        let folders = [models.clone(), downloads.clone()];
        let find = |name: &Path| find_in(name, &folders);
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
                .contains("working folder")
        );
        assert!(
            find(&elsewhere.join("a.onnx")).is_err(),
            "a path with a folder part is not looked up in the model folders"
        );
    }

    #[test]
    fn only_a_bare_name_is_prefixed_with_the_working_folder() {
        for (file, path) in [
            ("x.onnx", "./x.onnx"),
            ("./x.onnx", "./x.onnx"),
            ("out/x.onnx", "out/x.onnx"),
            ("/x.onnx", "/x.onnx"),
        ] {
            assert_eq!(in_working_folder(Path::new(file)), Path::new(path));
        }
    }
}
