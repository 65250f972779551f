//! Completion scripts and the manual page.

use std::io::Write as _;
use std::process::{Command, Stdio};

mod common;
use common::{run, text, twintrack};

const COMMANDS: [&str; 15] = [
    "track",
    "serve",
    "user",
    "token",
    "refine",
    "compare",
    "search",
    "eval",
    "tune",
    "models",
    "bench",
    "doctor",
    "config",
    "completions",
    "manual",
];

fn output(arguments: &[&str]) -> String {
    text(&run(twintrack().args(arguments)).stdout)
}

#[test]
fn completions_of_every_shell_have_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = output(&["completions", shell]);
        for word in COMMANDS.iter().chain(&["offline", "schema"]) {
            assert!(script.contains(word), "{shell}: {word} is missing");
        }
    }
}

#[test]
fn bash_can_read_its_completions() {
    let script = output(&["completions", "bash"]);
    let mut bash = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("bash");
    let mut input = bash.stdin.take().expect("piped");
    input.write_all(script.as_bytes()).expect("written");
    drop(input);
    let result = bash.wait_with_output().expect("it ends");
    assert!(result.status.success(), "{}", text(&result.stderr));
}

#[test]
fn the_error_for_an_unknown_shell_lists_the_known_ones() {
    let result = twintrack().args(["completions", "sh"]).output().unwrap();
    assert_eq!(result.status.code(), Some(2));
    assert!(text(&result.stderr).contains("bash"));
}

#[test]
fn the_manual_has_a_section_for_every_command_with_its_options() {
    let page = output(&["manual"]);
    assert!(page.contains(".TH "), "no title");
    for command in COMMANDS {
        let title = format!(".SH \"TWINTRACK {}\"", command.to_uppercase());
        assert_eq!(page.matches(&title).count(), 1, "{title}");
    }
    for section in ["MODELS GET", "USER ADD", "TOKEN REMOVE"] {
        assert!(
            page.contains(&format!(".SH \"TWINTRACK {section}\"")),
            "{section}"
        );
    }
    // roff writes a hyphen as \-.
    for option in ["offline", "gallery", "check", "schema", "trials"] {
        assert!(
            page.contains(&format!("\\-\\-{option}")),
            "--{option} is missing"
        );
    }
}
