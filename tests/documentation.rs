//! The reference pages say what the program does.

mod common;

use common::{repository, run, text, twintrack};
use twintrack::config::Config;

#[test]
fn the_default_configuration_file_is_the_default() {
    assert_eq!(Config::read(&repository("configs/default.toml")).expect("valid"), Config::default(), "run scripts/configuration_doc.py");
}

/// Configurations of the tracker; those of training lie in a folder of their own (tests/one_shot.rs reads them).
fn presets() -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(repository("configs")).expect("a folder").map(|e| e.expect("an entry").path());
    all.filter(|p| p.is_file()).collect()
}

#[test]
fn every_preset_is_valid_and_changes_something_or_says_why_not() {
    let mut seen = 0;
    for path in presets() {
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
    let presets = presets();
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

/// The page on networks has every layout and every preset of pixels.
#[test]
fn every_layout_and_preset_is_on_the_page_on_networks() {
    let page = std::fs::read_to_string(repository("docs/networks.md")).expect("the page");
    let reference = std::fs::read_to_string(repository("docs/configuration.md")).expect("the page");
    for layout in twintrack::detect::Layout::ALL {
        let pixels = layout.pixel_format().map_or("must be set".to_string(), |p| format!("`{p}`"));
        let row = page.lines().find(|l| l.starts_with(&format!("| `{}` |", layout.name())));
        let row = row.unwrap_or_else(|| panic!("{} is not on the page", layout.name()));
        assert!(row.ends_with(&format!("| {pixels} |")), "{row}, not {pixels}");
        assert!(reference.contains(layout.name()), "{} is not in docs/configuration.md", layout.name());
    }
    for preset in ["imagenet-rgb", "imagenet-bgr", "unit-rgb", "bytes-bgr"] {
        assert!(preset.parse::<twintrack::infer::PixelFormat>().is_ok());
        assert!(page.contains(&format!("| `{preset}` |")) && reference.contains(preset), "{preset}");
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

/// Every key of `config` has a row with its default on `page`; `free` are those whose default is shown otherwise. Tells how many.
#[cfg(feature = "serve")]
fn rows_of(page: &str, config: &impl serde::Serialize, free: &[&str]) -> usize {
    let text = std::fs::read_to_string(repository(page)).expect("the page");
    let keys = toml::to_string(config).expect("serialises");
    let mut checked = 0;
    for (key, value) in keys.lines().filter_map(|l| l.split_once(" = ")) {
        let mut rows = text.lines().filter(|l| l.starts_with(&format!("| `{key}` |"))).peekable();
        assert!(rows.peek().is_some(), "{key} is not in {page}");
        assert!(free.contains(&key) || rows.any(|row| row.replace('`', "").contains(&format!("| {value} |"))), "{key} = {value} in {page}");
        checked += 1;
    }
    checked
}

/// The pages on cameras and on serving have every key, with its default.
#[cfg(feature = "serve")]
#[test]
fn the_page_on_cameras_lists_every_key() {
    use twintrack::secret::Secret;
    use twintrack::serve::config::ServeConfig;
    use twintrack::sink::{mqtt::MqttConfig, webhook::WebhookConfig};
    let (text, file, secret) = (Some("x".to_string()), Some("x".into()), Some(Secret::new("x")));
    let camera = twintrack::source::camera::CameraConfig {
        user: text.clone(),
        password: secret.clone(),
        password_env: text.clone(),
        password_file: file.clone(),
        target_fps: Some(5.0),
        recorded: Some(true),
        ..Default::default()
    };
    assert!(rows_of("docs/cameras.md", &camera, &["url", "user", "password", "password_env", "password_file", "target_fps", "recorded"]) >= 19);
    let serve = ServeConfig { token: secret.clone(), token_env: text.clone(), token_file: file.clone(), state_dir: file.clone(), ..Default::default() };
    assert!(rows_of("docs/serving.md", &serve, &["token", "token_env", "token_file", "state_dir"]) >= 10);
    let mqtt = MqttConfig {
        user: text.clone(),
        password: secret.clone(),
        password_env: text.clone(),
        password_file: file.clone(),
        ca_file: file.clone(),
        certificate_file: file.clone(),
        key_file: file.clone(),
        ..Default::default()
    };
    let free = ["broker", "user", "password", "password_env", "password_file", "ca_file", "certificate_file", "key_file"];
    assert!(rows_of("docs/serving.md", &mqtt, &free) >= 14);
    let webhook = WebhookConfig { secret, secret_env: text, secret_file: file.clone(), ca_file: file, ..Default::default() };
    assert!(rows_of("docs/serving.md", &webhook, &["url", "secret", "secret_env", "secret_file", "ca_file"]) >= 10);
}

/// Their examples are valid files of cameras.
#[cfg(feature = "serve")]
#[test]
fn the_examples_on_the_pages_on_cameras_and_serving_are_valid() {
    for (page, cameras) in [("docs/cameras.md", 3), ("docs/serving.md", 1)] {
        let text = std::fs::read_to_string(repository(page)).expect("the page");
        let example = text.split("```toml").nth(1).and_then(|t| t.split("```").next()).expect("an example");
        let file = tempfile::NamedTempFile::new().expect("a file");
        // A token's file is not there on every machine.
        std::fs::write(file.path(), example.replace("token_file = \"/etc/twintrack/token\"", "token = \"0123456789abcdef\"")).expect("written");
        let (service, _) = twintrack::serve::ServiceConfig::read(file.path()).unwrap_or_else(|e| panic!("{page}: {e}"));
        assert_eq!(service.cameras.len(), cameras, "{page}");
    }
}
