#!/usr/bin/env python3
"""Writes the reference pages of settings from the config structs' doc comments and the output of `config`:
docs/configuration.md and configs/default.toml, and docs/training-configuration.md if twintrack-train is built.

    python3 scripts/configuration_doc.py [folder of the programs]
`tests/documentation.rs` fails when one of them is out of date.
"""
import pathlib
import re
import subprocess
import sys

root = pathlib.Path(__file__).parent.parent
programs = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else root / "target/release"
TRACKER = [  # section, file, struct
    ("", "src/config.rs", "Config"),
    ("detector", "src/detect/detector.rs", "DetectorConfig"),
    ("embedder", "src/embed/embedder.rs", "EmbedderConfig"),
    ("tracker", "src/track/config.rs", "TrackerConfig"),
    ("tracker.motion", "src/track/motion.rs", "MotionConfig"),
    ("tracker.cost", "src/track/cost.rs", "CostConfig"),
    ("tracker.appearance", "src/track/appearance.rs", "AppearanceConfig"),
    ("tracker.camera_motion", "src/track/camera_motion.rs", "CameraMotionConfig"),
    ("tracker.reidentify", "src/track/reidentify.rs", "ReidentifyConfig"),
    ("tracker.scenery", "src/track/scenery.rs", "SceneryConfig"),
    ("offline", "src/track/offline.rs", "OfflineConfig"),
    ("offline.tracklets", "src/track/offline.rs", "TrackletConfig"),
    ("offline.fill", "src/track/interpolate.rs", "InterpolateConfig"),
    ("identity", "src/track/identity.rs", "IdentityConfig"),
    ("output", "src/sink/sink.rs", "OutputConfig"),
]
TRAINING = [
    ("", "src/train/config.rs", "TrainConfig"),
    ("augment", "src/train/batch.rs", "AugmentConfig"),
    ("distil", "src/train/distil/config.rs", "DistilConfig"),
]


def defaults_of(program):
    """The default of each (section, key) that `program config` prints."""
    toml = subprocess.run([str(programs / program), "config"], check=True, capture_output=True, text=True).stdout
    defaults, section = {}, ""
    for line in toml.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif "=" in line:
            key, value = line.split(" = ", 1)
            defaults[section, key] = value
    return defaults


def fields(file, struct):
    """The keys of a struct with their documentation, without those that are not read from files."""
    body = re.search(r"pub struct %s \{\n(.*?)\n\}" % struct, (root / file).read_text(), re.S).group(1)
    text, skipped = [], False
    for line in body.splitlines():
        line = line.strip()
        if line.startswith("///"):
            text.append(line[3:].strip())
        elif line.startswith("#[serde(skip)"):
            skipped = True
        elif line.startswith("pub "):
            if not skipped:
                yield line[4:].split(":")[0], " ".join(text)
            text, skipped = [], False


def write(program, sections, page, head, example):
    """Writes a page of tables, and the same as a settings file if `example` names one."""
    defaults = defaults_of(program)
    out, commented = list(head), ["# All settings with their defaults. Copy what you want to change and omit the rest.",
                                  f"# Made by scripts/configuration_doc.py; {page} has the same as tables.", ""]
    structs = {name.split(".")[-1] for name, _, _ in sections if name}
    for name, file, struct in sections:
        out += [f"## `[{name}]`" if name else "## At the top", "", "| key | default | what it does |", "|---|---|---|"]
        commented += ([f"[{name}]"] if name else [])
        for key, doc in fields(file, struct):
            default = defaults.get((name, key))
            if key in structs and not default:
                continue  # has its own section
            out.append(f"| `{key}` | {'`' + default + '`' if default else 'absent'} | {doc} |")
            commented += [f"# {doc}", f"{key} = {default}" if default else f"# {key} ="]
        out.append("")
        commented.append("")
    (root / page).write_text("\n".join(out))
    if example:
        (root / example).write_text("\n".join(commented))


write("twintrack", TRACKER, "docs/configuration.md", [
    "# Configuration", "",
    "A TOML file for `--config`. Every key has a default; unknown keys and values out of range are refused.",
    "The sections of `serve` are in [cameras.md](cameras.md) and [serving.md](serving.md); one file can have all.",
    "Made by `scripts/configuration_doc.py` from the documentation in the code.", ""], "configs/default.toml")
if (programs / "twintrack-train").exists():
    write("twintrack-train", TRAINING, "docs/training-configuration.md", [
        "# Configuration of training", "",
        "A TOML file for `--config` of `twintrack-train run` and `distil`, separate from the tracker's.",
        "Every key has a default; unknown keys are refused.",
        "Made by `scripts/configuration_doc.py` from the documentation in the code.", ""], None)
