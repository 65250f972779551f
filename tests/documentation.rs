//! The reference pages agree with the program.

mod common;
#[path = "common/pages.rs"]
mod pages;

use std::collections::BTreeSet;

use common::{repository, run, text, twintrack};
use pages::{page, prose};
use twintrack::config::Config;

#[test]
fn the_default_configuration_file_is_the_default() {
    assert_eq!(
        Config::read(&repository("configs/default.toml")).expect("valid"),
        Config::default(),
        "run scripts/configuration_doc.py"
    );
}

/// Configurations of the tracker. (Training configurations are in another folder; tests/one_shot.rs
/// tests them.)
fn configuration_files() -> Vec<std::path::PathBuf> {
    let all = std::fs::read_dir(repository("configs"))
        .expect("a folder")
        .map(|e| e.expect("an entry").path());
    all.filter(|p| p.is_file()).collect()
}

#[test]
fn every_configuration_file_is_valid_changes_a_setting_and_states_its_scores() {
    let mut seen = 0;
    for path in configuration_files() {
        let config = Config::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let text = std::fs::read_to_string(&path).expect("readable");
        if !path.ends_with("default.toml") {
            assert_ne!(
                config,
                Config::default(),
                "{} changes nothing",
                path.display()
            );
            assert!(
                text.starts_with('#') && text.contains("IDF1"),
                "{} does not state the scores by which it was chosen",
                path.display()
            );
        }
        seen += 1;
    }
    assert!(seen >= 5, "only {seen} configurations");
}

#[test]
fn configuration_files_are_read_with_the_files_that_they_name() {
    let files = configuration_files();
    assert!(files.len() >= 6);
    for file in files {
        let config = Config::read(&file).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(
            config.tracker.head.is_some(),
            file.ends_with("learned-head.toml"),
            "{}",
            file.display()
        );
    }
}

#[test]
fn the_reference_page_lists_every_key_with_its_default() {
    let page =
        std::fs::read_to_string(repository("docs/reference/configuration.md")).expect("the page");
    let defaults = text(&run(twintrack().arg("config")).stdout);
    let (mut section, mut checked) = (String::new(), 0);
    for line in defaults.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("## `[{name}");
            assert!(
                page.contains(&section),
                "{line} is missing from docs/reference/configuration.md"
            );
        } else if let Some((key, value)) = line.split_once(" = ") {
            let rows = page.split("## ").find(|part| {
                section.is_empty() && part.starts_with("At the top")
                    || format!("## {part}").starts_with(&section) && !section.is_empty()
            });
            let row = format!("| `{key}` | `{value}` |");
            assert!(
                rows.is_some_and(|r| r.contains(&row)),
                "{section} {row} is missing from docs/reference/configuration.md: run scripts/configuration_doc.py"
            );
            checked += 1;
        }
    }
    assert!(checked > 30, "only {checked} keys seen");
}

/// Section and key of every row in a page's tables of settings.
fn rows(page: &str) -> Vec<(String, String)> {
    let (mut section, mut all) = (String::new(), Vec::new());
    for line in page.lines() {
        if line.starts_with("## ") {
            section = line
                .split_once("`[")
                .and_then(|(_, rest)| rest.split_once("]`"))
                .map(|(name, _)| name.to_string())
                .unwrap_or_default();
            if line.contains("`, `[") {
                section = "mqtt.spool".into(); // one table for two sections
            }
        } else if let Some((key, _)) = line.strip_prefix("| `").and_then(|l| l.split_once("` | ")) {
            all.push((section.clone(), key.to_string()));
        }
    }
    all
}

/// Checks the rows of tables of settings, and settings named in the text.
#[cfg(feature = "serve")]
#[test]
fn every_setting_on_the_pages_exists() {
    let is_key = |k: &str| !k.is_empty() && k.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    let mut known: BTreeSet<String> = BTreeSet::new();
    for path in [
        "docs/reference/configuration.md",
        "docs/reference/cameras.md",
        "docs/reference/http.md",
        "docs/reference/mqtt.md",
        "docs/reference/nats.md",
        "docs/reference/history.md",
    ] {
        for (section, key) in rows(&page(path))
            .into_iter()
            .filter(|(s, k)| is_key(k) && (!s.is_empty() || path.ends_with("configuration.md")))
        {
            let of_camera = section == "cameras.NAME";
            let head = if section.is_empty() {
                String::new()
            } else {
                format!("[{}]\n", section.replace("NAME", "x"))
            };
            let other = if of_camera && key != "url" {
                "url = \"x\"\n"
            } else {
                ""
            };
            let file = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(file.path(), format!("{head}{other}{key} = 1e300\n")).expect("written");
            let error = twintrack::serve::ServiceConfig::read_partial(file.path())
                .map_or_else(|e| e.to_string(), |_| String::new());
            assert!(
                !error.contains("unknown field"),
                "{path}: [{section}] {key}: {error}"
            );
            known.insert(if section.is_empty() {
                key
            } else {
                format!("{section}.{key}")
            });
        }
    }
    assert!(known.len() > 110, "only {} settings", known.len());
    let sections: BTreeSet<&str> = known.iter().filter_map(|k| k.split('.').next()).collect();
    let mut seen = 0;
    for (path, line) in prose() {
        for quoted in line.split('`').skip(1).step_by(2) {
            let name = quoted.split(' ').next().unwrap_or_default();
            let Some((section, rest)) = name
                .split_once('.')
                .filter(|(s, r)| sections.contains(s) && r.split('.').all(is_key))
            else {
                continue;
            };
            let is_section = known.iter().any(|k| k.starts_with(&format!("{name}.")));
            let is_file = [
                "toml", "jsonl", "json", "onnx", "txt", "mp4", "sqlite", "lock",
            ]
            .contains(&rest.rsplit('.').next().unwrap_or_default());
            assert!(
                is_file
                    || is_section
                    || known.contains(name)
                    || known.contains(&format!("{section}.NAME.{rest}")),
                "{path}: {name} does not exist"
            );
            seen += 1;
        }
    }
    assert!(seen > 30, "only {seen} settings named");
}

#[cfg(feature = "train")]
#[test]
fn the_page_on_settings_of_training_has_exactly_the_keys_with_their_defaults() {
    use twintrack::train::config::TrainConfig;
    let reference = page("docs/reference/training-configuration.md");
    let (mut section, mut checked) = (String::new(), 0);
    for line in toml::to_string(&TrainConfig::default())
        .expect("serialises")
        .lines()
    {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_string();
        } else if let Some((key, value)) = line.split_once(" = ") {
            assert!(
                rows(&reference).contains(&(section.clone(), key.to_string())),
                "[{section}] {key}: run scripts/configuration_doc.py"
            );
            assert!(
                reference.contains(&format!("| `{key}` | `{value}` |")),
                "[{section}] {key} = {value}: run scripts/configuration_doc.py"
            );
            checked += 1;
        }
    }
    assert!(checked > 40, "only {checked}");
    for (section, key) in rows(&reference) {
        let head = if section.is_empty() {
            String::new()
        } else {
            format!("[{section}]\n")
        };
        let error = toml::from_str::<TrainConfig>(&format!("{head}{key} = 1e300\n"))
            .map_or_else(|e| e.to_string(), |_| String::new());
        assert!(
            !error.contains("unknown field"),
            "[{section}] {key}: {error}"
        );
    }
}

#[test]
fn the_page_on_events_has_exactly_the_fields_of_the_schema() {
    let schema: serde_json::Value =
        serde_json::from_str(&page("schema/trajectory.schema.json")).expect("JSON");
    let reference = page("docs/reference/events.md");
    for (kind, heading) in [
        ("trajectory", "## `twintrack.trajectory/1`"),
        ("track", "## A person in `tracks`"),
        ("track_ended", "## `twintrack.track_ended/1`"),
        ("camera_status", "## `twintrack.camera_status/1`"),
    ] {
        let fields: BTreeSet<String> = schema["$defs"][kind]["properties"]
            .as_object()
            .expect("properties")
            .keys()
            .cloned()
            .collect();
        let section = reference
            .split(heading)
            .nth(1)
            .and_then(|s| s.split("\n## ").next())
            .unwrap_or_else(|| panic!("no section {heading}"));
        let cells = section
            .lines()
            .filter(|l| l.starts_with("| `"))
            .map(|l| l.split(" | ").next().unwrap_or_default());
        let named: BTreeSet<String> = cells
            .flat_map(|c| c.split('`').skip(1).step_by(2))
            .map(str::to_string)
            .collect();
        assert_eq!(named, fields, "{kind}: page (left) and schema (right)");
    }
    let states = schema["$defs"]["camera_status"]["properties"]["state"]["enum"]
        .as_array()
        .expect("states")
        .clone();
    for state in states.iter().filter_map(serde_json::Value::as_str) {
        for path in ["docs/reference/events.md", "docs/reference/cameras.md"] {
            assert!(
                page(path).contains(&format!("`{state}`")),
                "{state} is not in {path}"
            );
        }
    }
}

#[test]
fn the_reference_has_exactly_the_environment_variables_that_the_program_reads() {
    let (mut code, mut folders) = (String::new(), vec![repository("src")]);
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder)
            .expect("a folder")
            .map(|e| e.expect("an entry").path())
        {
            if path.is_dir() {
                folders.push(path)
            } else {
                code += &std::fs::read_to_string(path).expect("readable")
            }
        }
    }
    let variables = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        let ours = |w: &&str| w.starts_with("TWINTRACK_") || *w == "ORT_DYLIB_PATH";
        words
            .filter(ours)
            .filter(|w| !w.contains("NO_SUCH"))
            .map(str::to_string)
            .collect()
    };
    let table: String = page("docs/reference/commands.md")
        .lines()
        .filter(|l| l.starts_with("| `TWINTRACK_") || l.starts_with("| `ORT_"))
        .collect();
    assert_eq!(variables(&table), variables(&code));
}

#[test]
fn the_help_of_track_names_every_kind_of_input() {
    let help = text(&run(twintrack().args(["track", "--help"])).stdout)
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    for kind in [
        "video file",
        "folder of pictures",
        "MOTChallenge sequence",
        "rtsp://",
        "http://",
        "/dev/video0",
    ] {
        assert!(help.contains(kind), "{kind} is not in {help}");
    }
}

#[test]
fn the_page_on_networks_has_every_layout_and_pixel_format() {
    let page = std::fs::read_to_string(repository("docs/reference/networks.md")).expect("the page");
    let reference =
        std::fs::read_to_string(repository("docs/reference/configuration.md")).expect("the page");
    for layout in twintrack::detect::Layout::ALL {
        let pixels = layout
            .pixel_format()
            .map_or("must be set".to_string(), |p| format!("`{p}`"));
        let row = page
            .lines()
            .find(|l| l.starts_with(&format!("| `{}` |", layout.name())));
        let row = row.unwrap_or_else(|| panic!("{} is not on the page", layout.name()));
        assert!(
            row.ends_with(&format!("| {pixels} |")),
            "{row}, not {pixels}"
        );
        assert!(
            reference.contains(layout.name()),
            "{} is not in docs/reference/configuration.md",
            layout.name()
        );
    }
    for format in ["imagenet-rgb", "imagenet-bgr", "unit-rgb", "bytes-bgr"] {
        assert!(format.parse::<twintrack::infer::PixelFormat>().is_ok());
        assert!(
            page.contains(&format!("| `{format}` |")) && reference.contains(format),
            "{format}"
        );
    }
}

/// The README of a binary file's folder states the file's source and licence.
#[test]
fn every_binary_file_is_in_the_readme_of_its_folder() {
    for (dir, page) in [
        ("models", "models/README.md"),
        ("samples", "samples/README.md"),
        ("tests/fixtures", "tests/fixtures/README.md"),
        ("docs", "docs/README.md"),
    ] {
        let page = std::fs::read_to_string(repository(page)).unwrap_or_default();
        for entry in std::fs::read_dir(repository(dir))
            .expect("a folder")
            .flatten()
        {
            let name = entry.file_name().to_string_lossy().into_owned();
            if [".onnx", ".mp4", ".jpg", ".png"]
                .iter()
                .any(|e| name.ends_with(e))
            {
                assert!(
                    page.contains(&name) || page.contains("Models made by"),
                    "{dir}/{name} is not explained in its README"
                );
            }
        }
    }
}

/// Asserts that every key of `config` has a row with its default on `page`; the defaults of the
/// keys in `free` are not checked. Returns the number of keys.
#[cfg(feature = "serve")]
fn check_rows(page: &str, config: &impl serde::Serialize, free: &[&str]) -> usize {
    let text = std::fs::read_to_string(repository(page)).expect("the page");
    let keys = toml::to_string(config).expect("serialises");
    let mut checked = 0;
    for (key, value) in keys.lines().filter_map(|l| l.split_once(" = ")) {
        let mut rows = text
            .lines()
            .filter(|l| l.starts_with(&format!("| `{key}` |")))
            .peekable();
        assert!(rows.peek().is_some(), "{key} is not in {page}");
        assert!(
            free.contains(&key)
                || rows.any(|row| row.replace('`', "").contains(&format!("| {value} |"))),
            "{key} = {value} in {page}"
        );
        checked += 1;
    }
    checked
}

#[cfg(feature = "serve")]
#[test]
fn the_pages_on_services_have_every_key_with_its_default() {
    use twintrack::fleet::FleetConfig;
    use twintrack::secret::Secret;
    use twintrack::serve::config::ServeConfig;
    use twintrack::sink::{mqtt::MqttConfig, nats::NatsConfig, webhook::WebhookConfig};
    use twintrack::store::HistoryConfig;
    let (text, file, secret) = (
        Some("x".to_string()),
        Some("x".into()),
        Some(Secret::new("x")),
    );
    let camera = twintrack::source::CameraConfig::default()
        .with_user(text.clone())
        .with_password(secret.clone())
        .with_password_env(text.clone())
        .with_password_file(file.clone())
        .with_target_fps(Some(5.0))
        .with_recorded(Some(true))
        .with_labels(vec!["site=north".into()]);
    assert!(
        check_rows(
            "docs/reference/cameras.md",
            &camera,
            &[
                "url",
                "user",
                "password",
                "password_env",
                "password_file",
                "target_fps",
                "recorded",
                "labels"
            ]
        ) >= 21
    );
    let serve = ServeConfig::default()
        .with_token(secret.clone())
        .with_token_env(text.clone())
        .with_token_file(file.clone())
        .with_tls_certificate(file.clone())
        .with_tls_key(file.clone())
        .with_state_dir(file.clone());
    assert!(
        check_rows(
            "docs/reference/http.md",
            &serve,
            &[
                "token",
                "token_env",
                "token_file",
                "tls_certificate",
                "tls_key",
                "state_dir"
            ]
        ) >= 18
    );
    let mqtt = MqttConfig::default()
        .with_user(text.clone())
        .with_password(secret.clone())
        .with_password_env(text.clone())
        .with_password_file(file.clone())
        .with_ca_file(file.clone())
        .with_certificate_file(file.clone())
        .with_key_file(file.clone());
    let free = [
        "broker",
        "user",
        "password",
        "password_env",
        "password_file",
        "ca_file",
        "certificate_file",
        "key_file",
    ];
    assert!(check_rows("docs/reference/mqtt.md", &mqtt, &free) >= 14);
    let nats = NatsConfig::default()
        .with_user(text.clone())
        .with_password(secret.clone())
        .with_password_env(text.clone())
        .with_password_file(file.clone())
        .with_token(secret.clone())
        .with_token_env(text.clone())
        .with_token_file(file.clone())
        .with_nkey(secret.clone())
        .with_nkey_env(text.clone())
        .with_nkey_file(file.clone())
        .with_credentials_file(file.clone())
        .with_ca_file(file.clone())
        .with_certificate_file(file.clone())
        .with_key_file(file.clone())
        .with_stream(text.clone());
    let secrets = [
        "url",
        "token",
        "token_env",
        "token_file",
        "nkey",
        "nkey_env",
        "nkey_file",
        "credentials_file",
        "stream",
    ];
    let free: Vec<&str> = free.into_iter().chain(secrets).collect();
    assert!(check_rows("docs/reference/nats.md", &nats, &free) >= 19);
    let fleet = FleetConfig::default()
        .with_name(text.clone())
        .with_capacity(Some(25.0));
    let page = "docs/guide/fleet.md";
    assert!(check_rows(page, &fleet, &["nats", "name", "capacity"]) >= 7);
    let people = twintrack::multi_camera::MultiCameraConfig::default();
    assert!(check_rows(page, &people, &[]) >= 9);
    let history = HistoryConfig::default()
        .with_url(secret.clone())
        .with_url_env(text.clone())
        .with_url_file(file.clone())
        .with_ca_file(file.clone());
    let page = "docs/reference/history.md";
    assert!(check_rows(page, &history, &["url", "url_env", "url_file", "ca_file"]) >= 14);
    let webhook = WebhookConfig::default()
        .with_secret(secret)
        .with_secret_env(text)
        .with_secret_file(file.clone())
        .with_ca_file(file);
    assert!(
        check_rows(
            "docs/reference/mqtt.md",
            &webhook,
            &["url", "secret", "secret_env", "secret_file", "ca_file"]
        ) >= 10
    );
}

#[cfg(feature = "serve")]
#[test]
fn the_examples_on_the_pages_on_services_are_valid() {
    for (page, cameras) in [
        ("docs/reference/cameras.md", 3),
        ("docs/guide/first-camera.md", 2),
        ("docs/reference/http.md", 1),
        ("docs/guide/access.md", 1),
        ("docs/guide/privacy.md", 1),
        ("docs/reference/mqtt.md", 1),
        ("docs/reference/nats.md", 1),
        ("docs/guide/fleet.md", 2),
        ("docs/reference/history.md", 1),
    ] {
        let text = std::fs::read_to_string(repository(page)).expect("the page");
        let example = text
            .split("```toml")
            .nth(1)
            .and_then(|t| t.split("```").next())
            .expect("an example");
        let file = tempfile::NamedTempFile::new().expect("a file");
        // The token's file does not exist on the machine of the test.
        std::fs::write(
            file.path(),
            example.replace(
                "token_file = \"/etc/twintrack/token\"",
                "token = \"0123456789abcdef\"",
            ),
        )
        .expect("written");
        let (service, _) = twintrack::serve::ServiceConfig::read(file.path())
            .unwrap_or_else(|e| panic!("{page}: {e}"));
        assert_eq!(service.cameras.len(), cameras, "{page}");
    }
}

#[test]
fn every_link_between_documents_resolves() {
    let mut seen = 0;
    for (path, line) in prose() {
        for target in line.split("](").skip(1) {
            let target = target.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let folder = repository(&path);
            let file = folder.parent().expect("a folder").join(target);
            assert!(file.exists(), "{path}: {target} does not exist");
            seen += 1;
        }
    }
    assert!(seen > 60, "only {seen} links");
}
