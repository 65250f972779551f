//! The reference pages say what the program does.

mod common;

use common::{repository, run, text, twintrack};
use twintrack::config::Config;

#[test]
fn the_default_configuration_file_is_the_default() {
    assert_eq!(Config::read(&repository("configs/default.toml")).expect("valid"), Config::default(), "run scripts/configuration_doc.py");
}

#[test]
fn every_preset_is_valid_and_changes_something_or_says_why_not() {
    let mut seen = 0;
    for entry in std::fs::read_dir(repository("configs")).expect("a folder").flatten() {
        let path = entry.path();
        let config = Config::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let text = std::fs::read_to_string(&path).expect("readable");
        if !path.ends_with("default.toml") {
            assert_ne!(config, Config::default(), "{} changes nothing", path.display());
            assert!(text.starts_with('#') && text.contains("IDF1"), "{} does not say on what numbers it was chosen", path.display());
        }
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} configurations");
}

/// Every preset is a valid configuration, with the files it names.
#[test]
fn every_preset_is_read() {
    let presets: Vec<_> = std::fs::read_dir(repository("configs")).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    assert!(presets.len() >= 6);
    for preset in presets {
        let config = Config::read(&preset).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(config.tracker.head.is_some(), preset.ends_with("learned-head.toml"), "{}", preset.display());
    }
}

#[test]
fn the_reference_page_lists_every_key_with_its_default() {
    let page = std::fs::read_to_string(repository("docs/configuration.md")).expect("the page");
    let defaults = text(&run(twintrack().arg("config")).stdout);
    let (mut section, mut checked) = (String::new(), 0);
    for line in defaults.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("## `[{name}");
            assert!(page.contains(&section), "{line} is missing from docs/configuration.md");
        } else if let Some((key, value)) = line.split_once(" = ") {
            let rows = page
                .split("## ")
                .find(|part| section.is_empty() && part.starts_with("At the top") || format!("## {part}").starts_with(&section) && !section.is_empty());
            let row = format!("| `{key}` | `{value}` |");
            assert!(rows.is_some_and(|r| r.contains(&row)), "{section} {row} is missing from docs/configuration.md: run scripts/configuration_doc.py");
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} keys seen");
}

#[test]
fn every_option_is_in_the_readme_or_the_command_reference() {
    let pages = ["README.md", "docs/commands.md"].map(|p| std::fs::read_to_string(repository(p)).expect("the page")).concat();
    let help = text(&run(twintrack().args(["track", "--help"])).stdout);
    let options: Vec<&str> = help.split_whitespace().filter(|w| w.starts_with("--") && w.len() > 3).map(|w| w.trim_end_matches([',', '.'])).collect();
    assert!(options.len() > 15, "{options:?}");
    for option in options.into_iter().filter(|o| !["--help", "--verbose", "--version"].contains(o)) {
        assert!(pages.contains(option), "{option} is in no page");
    }
}

/// A binary file has its source and licence beside it.
#[test]
fn every_binary_file_is_accounted_for() {
    for (dir, page) in
        [("models", "models/README.md"), ("samples", "samples/README.md"), ("tests/fixtures", "tests/fixtures/README.md"), ("docs", "docs/README.md")]
    {
        let page = std::fs::read_to_string(repository(page)).unwrap_or_default();
        for entry in std::fs::read_dir(repository(dir)).expect("a folder").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if [".onnx", ".mp4", ".jpg", ".png"].iter().any(|e| name.ends_with(e)) {
                assert!(page.contains(&name) || page.contains("Models made by"), "{dir}/{name} is not explained in its README");
            }
        }
    }
}

/// The page on cameras has every key of a camera and of their sharing, with its default.
#[cfg(feature = "video")]
#[test]
fn the_page_on_cameras_lists_every_key() {
    let page = std::fs::read_to_string(repository("docs/cameras.md")).expect("the page");
    let camera = twintrack::source::camera::CameraConfig { user: Some("u".into()), ..Default::default() };
    let keys = [toml::to_string(&camera), toml::to_string(&twintrack::pipeline::fleet::FleetConfig::default())].map(|t| t.expect("serialises")).concat();
    let mut checked = 0;
    for (key, value) in keys.lines().filter_map(|l| l.split_once(" = ")) {
        let row = page.lines().find(|l| l.starts_with(&format!("| `{key}` |"))).unwrap_or_else(|| panic!("{key} is not in docs/cameras.md"));
        assert!(["url", "user"].contains(&key) || row.replace('`', "").contains(&format!("| {value} |")), "{key} = {value}: {row}");
        checked += 1;
    }
    for key in ["password", "password_env", "password_file"] {
        assert!(page.contains(&format!("| `{key}` |")), "{key}");
    }
    assert!(checked >= 12, "{checked}");
}

/// Its example is a valid file of cameras.
#[cfg(feature = "video")]
#[test]
fn the_example_on_the_page_on_cameras_is_valid() {
    let page = std::fs::read_to_string(repository("docs/cameras.md")).expect("the page");
    let example = page.split("```").nth(1).expect("an example").trim_start_matches("toml");
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), example).expect("written");
    let (fleet, _) = twintrack::app::serve::read(file.path()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(fleet.cameras.len(), 3);
}
