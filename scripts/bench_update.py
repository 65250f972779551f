#!/usr/bin/env python3
"""Time of one tracker update (criterion) and of `ioutrack-rs` (SORT and ByteTrack in Rust, from PyPI) on the same
detections.

    pip install ioutrack-rs==0.4.0 numpy && python3 scripts/bench_update.py DET.txt
DET.txt is a MOTChallenge detection file. ioutrack is called from Python, which costs a few microseconds per call;
its figure is the smallest of five runs.
"""
import os
import pathlib
import re
import subprocess
import sys
import time

import ioutrack
import numpy as np

root = pathlib.Path(__file__).parent.parent
detections = np.loadtxt(sys.argv[1], delimiter=",", ndmin=2)
count = int(detections[:, 0].max())
frames = []
for f in range(1, count + 1):
    r = detections[detections[:, 0] == f]
    frames.append(np.c_[r[:, 2:4], r[:, 2:4] + r[:, 4:6], r[:, 6]].astype(np.float32))


def peer(kind):
    tracker = kind(max_age=30, min_hits=3)
    start = time.perf_counter()
    for boxes in frames:
        tracker.update(boxes)
    return (time.perf_counter() - start) / count * 1e6


def ours():
    command = ["cargo", "bench", "--locked", "--bench", "tracker_update", "--", "recorded"]
    environment = os.environ | {"TWINTRACK_DETECTIONS": str(pathlib.Path(sys.argv[1]).resolve())}
    text = subprocess.run(command, check=True, capture_output=True, text=True, cwd=root, env=environment).stdout
    value, unit = re.search(r"time: +\[[\d.]+ \S+ ([\d.]+) (\S+)", text).groups()
    return float(value) * {"ms": 1e3, "µs": 1.0, "us": 1.0, "s": 1e6}[unit] / count


print(f"{count} frames, {len(detections) / count:.1f} detections per frame; microseconds per frame")
peers = {name: min(peer(kind) for _ in range(5)) for name, kind in [("ioutrack Sort", ioutrack.Sort), ("ioutrack ByteTrack", ioutrack.ByteTrack)]}
for name, value in (peers | {"twintrack": ours()}).items():
    print(f"{name:20s} {value:8.1f}")
