//! The tables of the reference have exactly the options of the commands, and every option named in
//! the documents exists.

mod common;
#[path = "common/pages.rs"]
mod pages;

use std::collections::BTreeSet;
use std::process::Command;

use common::{run, text, twintrack};
use pages::page;

/// Options that every command has; the reference lists them in a separate table.
const GLOBAL: [&str; 6] = [
    "--help",
    "-h",
    "--verbose",
    "-v",
    "--log-format",
    "--version",
];

/// The options in a text, such as `-c` and `--config`.
fn options(text: &str) -> BTreeSet<String> {
    let words = text
        .split(|c: char| !(c.is_ascii_lowercase() || c == '-'))
        .map(|w| w.trim_end_matches('-'));
    let is_option = |w: &&str| {
        w.starts_with("--") && w.len() > 3 || w.starts_with('-') && w.len() == 2 && *w != "--"
    };
    words.filter(is_option).map(str::to_string).collect()
}

/// The options in a command's `--help`, without [`GLOBAL`].
fn listed(program: &mut Command, arguments: &[&str]) -> BTreeSet<String> {
    let help = text(&run(program.args(arguments).arg("--help")).stdout);
    let list = help.split("\nOptions:").nth(1).expect("a list of options");
    // Lines with a larger indent are wrapped text.
    let is_head = |l: &&str| {
        (2..=6).contains(&(l.len() - l.trim_start().len())) && l.trim_start().starts_with('-')
    };
    let heads = list
        .lines()
        .filter(is_head)
        .map(str::trim_start)
        .map(|l| l.split("  ").next().unwrap_or_default());
    heads
        .flat_map(options)
        .filter(|o| !GLOBAL.contains(&o.as_str()))
        .collect()
}

/// The options in the first column of the tables of the section `heading`.
fn tabled(page: &str, heading: &str) -> BTreeSet<String> {
    let level = heading.split(' ').next().expect("a heading");
    let at = page
        .find(&format!("\n{heading}"))
        .unwrap_or_else(|| panic!("the section '{heading}' is missing"));
    let section = &page[at + 1..];
    let section = section
        .split(&format!("\n{level} "))
        .next()
        .unwrap_or(section);
    section
        .lines()
        .filter(|l| l.starts_with("| `-"))
        .flat_map(|l| options(l.split(" | ").next().unwrap_or_default()))
        .collect()
}

/// The names of the commands of a program, or of a command's own; none if it has none.
fn commands(program: &mut Command) -> Vec<String> {
    let help = text(&run(program.arg("--help")).stdout);
    let list = help
        .split("Commands:")
        .nth(1)
        .and_then(|l| l.split("Options:").next())
        .unwrap_or_default()
        .to_string();
    let name = |l: &str| {
        l.strip_prefix("  ")
            .filter(|l| !l.starts_with(' '))
            .and_then(|l| l.split(' ').next())
            .map(str::to_string)
    };
    list.lines()
        .filter_map(name)
        .filter(|n| n != "help")
        .collect()
}

/// The options of a command of `twintrack` and of its own commands.
fn all_options(name: &str) -> BTreeSet<String> {
    let mut all = listed(&mut twintrack(), &[name]);
    for own in commands(twintrack().arg(name)) {
        all.extend(listed(&mut twintrack(), &[name, &own]));
    }
    all
}

#[test]
fn every_command_has_a_table_of_exactly_its_options() {
    let reference = page("docs/reference/commands.md");
    let all = commands(&mut twintrack());
    assert!(all.len() >= 8, "{all:?}");
    for name in all {
        assert_eq!(
            tabled(&reference, &format!("## `twintrack {name}")),
            all_options(&name),
            "twintrack {name}: table (left) and --help (right)"
        );
    }
    let of_every = tabled(&reference, "## For every command");
    assert_eq!(
        of_every,
        GLOBAL
            .iter()
            .filter(|o| **o != "--version")
            .map(|o| o.to_string())
            .collect()
    );
}

#[cfg(feature = "train")]
#[test]
fn every_command_of_training_has_a_table_of_exactly_its_options() {
    let train = || Command::new(assert_cmd::cargo::cargo_bin!("twintrack-train"));
    let reference = page("docs/reference/commands.md");
    let all = commands(&mut train());
    assert!(all.len() >= 6, "{all:?}");
    for name in all {
        let wanted = listed(&mut train(), &[&name]);
        assert_eq!(
            tabled(&reference, &format!("### `twintrack-train {name}")),
            wanted,
            "twintrack-train {name}: table (left) and --help (right)"
        );
    }
}

#[cfg(feature = "train")]
#[test]
fn every_option_named_in_the_documents_exists() {
    let mut known: BTreeSet<String> = GLOBAL.iter().map(|o| o.to_string()).collect();
    known.extend(
        commands(&mut twintrack())
            .iter()
            .flat_map(|name| all_options(name)),
    );
    let train = || Command::new(assert_cmd::cargo::cargo_bin!("twintrack-train"));
    known.extend(
        commands(&mut train())
            .iter()
            .flat_map(|name| listed(&mut train(), &[name])),
    );
    // Those of cargo and mosquitto_sub.
    let others = [
        "--bench",
        "--features",
        "--no-default-features",
        "--remove-retained",
    ];
    known.extend(others.map(String::from));
    let mut seen = 0;
    for (path, line) in pages::prose() {
        for quoted in line
            .split('`')
            .skip(1)
            .step_by(2)
            .filter(|q| !q.contains(".py"))
        {
            for option in options(quoted).iter().filter(|o| o.starts_with("--")) {
                assert!(
                    known.contains(option),
                    "{path}: {option} does not exist: {line}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 100, "only {seen} options named");
}
