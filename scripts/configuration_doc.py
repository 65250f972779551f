#!/usr/bin/env python3
"""Writes docs/configuration.md and configs/default.toml from the config structs' own documentation and `twintrack config`.

    python3 scripts/configuration_doc.py [path of the twintrack program]
`tests/documentation.rs` fails when either is out of date.
"""
import pathlib
import re
import subprocess
import sys

root = pathlib.Path(__file__).parent.parent
program = sys.argv[1] if len(sys.argv) > 1 else str(root / "target/release/twintrack")
sections = [  # section, file, struct
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
    ("identity", "src/track/people.rs", "IdentityConfig"),
    ("output", "src/sink/sink.rs", "OutputConfig"),
]
toml = subprocess.run([program, "config"], check=True, capture_output=True, text=True).stdout
defaults, section = {}, ""
for line in toml.splitlines():
    if line.startswith("["):
        section = line.strip("[]")
    elif "=" in line:
        key, value = line.split(" = ", 1)
        defaults[section, key] = value
docs = {}
for name, file, struct in sections:
    body = re.search(r"pub struct %s \{\n(.*?)\n\}" % struct, (root / file).read_text(), re.S).group(1)
    text = []
    for line in body.splitlines():
        line = line.strip()
        if line.startswith("///"):
            text.append(line[3:].strip())
        elif line.startswith("pub "):
            docs[name, line[4:].split(":")[0]] = " ".join(text)
            text = []
out = ["# Configuration", "", "A TOML file for `--config`. Every key has a default; a key that is not known, or a value out of range, is refused.",
       "Made by `scripts/configuration_doc.py` from the documentation in the code.", ""]
commented = ["# All settings with their defaults. Copy what you want to change; the rest may go.",
             "# Made by scripts/configuration_doc.py; docs/configuration.md says the same as a table.", ""]
structs = {n.split(".")[-1] for n, _, _ in sections if n}
for name, _, _ in sections:
    keys = [(k, d) for (n, k), d in docs.items() if n == name and not (k in structs and (name, k) not in defaults)]
    out += [f"## `[{name}]`" if name else "## At the top", "", "| key | default | what it does |", "|---|---|---|"]
    commented += ([f"[{name}]"] if name else [])
    for key, doc in keys:
        default = defaults.get((name, key))
        out.append(f"| `{key}` | {'`' + default + '`' if default else 'absent'} | {doc} |")
        commented += [f"# {doc}", f"{key} = {default}" if default else f"# {key} ="]
    out.append("")
    commented.append("")
(root / "docs/configuration.md").write_text("\n".join(out))
(root / "configs/default.toml").write_text("\n".join(commented))
