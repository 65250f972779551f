//! Where models and libraries lie.

use std::path::{Component, Path, PathBuf};

use crate::infer::runtime::InferError;

/// The program's own folder and those above it, which its owner controls.
fn program_roots() -> Vec<PathBuf> {
    let Ok(exe) = std::env::current_exe() else {
        return Vec::new();
    };
    // target/release/twintrack lies three levels below the repository, target/release/deps/test four.
    exe.ancestors()
        .skip(1)
        .take(4)
        .map(Path::to_path_buf)
        .collect()
}

/// Folders that may hold models: around the program, then the working folder.
pub fn search_roots() -> Vec<PathBuf> {
    program_roots()
        .into_iter()
        .chain(std::env::current_dir().ok())
        .collect()
}

/// Folders that may hold libraries: around the program, in its data folder, in the system. Never around the working folder,
/// which may be anybody's: a library that is loaded runs.
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

/// Folder of downloaded models: `models` in `$TWINTRACK_DATA`, else in `$XDG_DATA_HOME/twintrack`, else in
/// `~/.local/share/twintrack`. `None` when none of these is set.
pub fn downloads() -> Option<PathBuf> {
    downloads_of(|key| {
        std::env::var_os(key)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    })
}

fn downloads_of(var: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // By the XDG Base Directory Specification a relative path is to be ignored.
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

/// The file of a network. A path that names a folder (`./mine.onnx`, `/srv/mine.onnx`) is that
/// file. A bare name is looked for in TWINTRACK_MODELS, the `models` folders around the program, the
/// folder of downloaded models, and `models` in the working folder, in this order and nowhere else:
/// what happens to lie in the working folder never takes the place of a network of the program. A
/// bare name without an ending also stands for the `.onnx` file of that name.
///
/// # Errors
/// When no such file exists; says so where one of that name lies in the working folder.
pub fn find_model(path: &Path) -> Result<PathBuf, InferError> {
    let mut places: Vec<PathBuf> = std::env::var_os("TWINTRACK_MODELS")
        .map(PathBuf::from)
        .into_iter()
        .collect();
    places.extend(program_roots().iter().map(|r| r.join("models")));
    places.extend(downloads());
    // Last: a folder that happens to have models of these names replaces no network either.
    places.extend(std::env::current_dir().map(|d| d.join("models")));
    find_in(path, &places)
}

/// Whether a path is a file's name alone.
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
    let here = names.iter().find(|n| n.is_file()).map(|n| explicit(n));
    match (found, here) {
        (Some(found), None) => Ok(found),
        (Some(found), Some(here)) => {
            let (used, here) = (found.display(), here.display());
            tracing::warn!(
                "the network '{}' is {used}; write {here} for the file in the current folder",
                path.display()
            );
            Ok(found)
        }
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

/// A file as a path that names its folder, so that [`find_model`] takes it as it is: `x.onnx`
/// becomes `./x.onnx`.
pub fn explicit(file: &Path) -> PathBuf {
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
    fn the_folder_of_downloads_follows_the_environment() {
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
    fn a_bare_name_means_the_folders_of_models_and_a_path_means_itself() {
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
        // Tests run in the repository's folder, where Cargo.toml lies.
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
            "a path is looked for nowhere else"
        );
    }

    #[test]
    fn a_file_is_made_a_path() {
        for (file, path) in [
            ("x.onnx", "./x.onnx"),
            ("./x.onnx", "./x.onnx"),
            ("out/x.onnx", "out/x.onnx"),
            ("/x.onnx", "/x.onnx"),
        ] {
            assert_eq!(explicit(Path::new(file)), Path::new(path));
        }
    }
}
