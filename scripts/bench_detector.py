#!/usr/bin/env python3
"""AP50 of the shipped person detector, run by twintrack, and of the model it was made from, run in Python.

    .venv/bin/python scripts/bench_detector.py --frames ../shared/data/mot17-frames --reference ../shared/models/nanodet_g_coco.onnx
--frames has MOTChallenge sequences with a few pictures (img1) and ground truth each. Needs models/requirements.txt.
Ground truth: pedestrians (class 1) with a visibility of at least 0.25; every other box is neutral.
"""
import argparse
import pathlib
import subprocess
import sys
import tempfile

import cv2
import numpy as np
import onnxruntime as ort

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "models"))
from build_detector import letterbox  # noqa: E402


def reference(session, image, width, height, threshold, nms):
    x, scale = letterbox(image, width, height)
    out = session.run(None, {"image": x})
    found = []
    for stride, cls, reg in zip((8, 16, 32), out[:3], out[3:]):
        ys, xs = np.mgrid[: height // stride, : width // stride]
        cx, cy, score = (xs.ravel() + 0.5) * stride, (ys.ravel() + 0.5) * stride, cls[0][:, 0]
        e = reg[0].reshape(-1, 4, 11)
        e = np.exp(e - e.max(-1, keepdims=True))
        d = (e / e.sum(-1, keepdims=True) * np.arange(11)).sum(-1) * stride
        boxes = np.c_[cx - d[:, 0], cy - d[:, 1], d[:, 0] + d[:, 2], d[:, 1] + d[:, 3]] / scale
        found += [(s, b) for s, b in zip(score, boxes) if s >= threshold]
    found.sort(key=lambda f: -f[0])
    kept = []
    for s, b in found:
        if all(iou(b, k) <= nms for _, k in kept):
            kept.append((s, b))
    return kept


def iou(a, b):
    w = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    h = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    shared = max(w, 0) * max(h, 0)
    return shared / (a[2] * a[3] + b[2] * b[3] - shared)


def average_precision(frames):
    """frames: [(truth boxes, neutral boxes, [(score, box), ...]), ...]; area under the interpolated curve at IoU 0.5."""
    total, events = 0, []
    for truth, neutral, found in frames:
        total += len(truth)
        free = set(range(len(truth)))
        for score, box in sorted(found, key=lambda f: -f[0]):
            best = max(free, key=lambda t: iou(box, truth[t]), default=None)
            if best is not None and iou(box, truth[best]) >= 0.5:
                free.discard(best)
                events.append((score, 1))
            elif not any(iou(box, n) >= 0.5 for n in neutral):
                events.append((score, 0))
    events.sort(key=lambda e: -e[0])
    hits = np.cumsum([e[1] for e in events])
    precision, recall = hits / np.arange(1, len(events) + 1), hits / total
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(np.r_[0, recall]) * precision))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--frames", type=pathlib.Path, required=True)
    a.add_argument("--reference", required=True)
    a.add_argument("--sizes", default="416x416,736x416,864x480,1088x608")
    a.add_argument("--twintrack", default="target/release/twintrack")
    a = a.parse_args()
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 2
    session = ort.InferenceSession(a.reference, options, providers=["CPUExecutionProvider"])
    sequences = sorted(p.parent for p in a.frames.glob("*/img1"))
    truths = {}
    for s in sequences:
        rows = np.loadtxt(s / "gt/gt.txt", delimiter=",", ndmin=2)
        for i, picture in enumerate(sorted((s / "img1").glob("*.jpg")), 1):
            r = rows[rows[:, 0] == int(picture.stem)]
            person = (r[:, 6] == 1) & (r[:, 7] == 1) & (r[:, 8] >= 0.25)
            truths[s, i] = (r[person, 2:6], r[~person, 2:6], picture)
    print(f"{len(truths)} frames, {sum(len(t[0]) for t in truths.values())} people")
    for size in a.sizes.split(","):
        width, height = map(int, size.split("x"))
        frames = [(t, n, reference(session, cv2.imread(str(p)), width, height, 0.01, 0.6)) for t, n, p in truths.values()]
        row = {"reference": average_precision(frames)}
        for precision in ("fp32", "int8"):
            frames = []
            for s in sequences:
                with tempfile.TemporaryDirectory() as tmp:
                    config = pathlib.Path(tmp) / "c.toml"
                    config.write_text("[detector]\nconfidence = 0.01\nmax_people = 10000\n[embedder]\nenabled = false\n")
                    det = pathlib.Path(tmp) / "det.txt"
                    subprocess.run([a.twintrack, "track", str(s / "img1"), "--quiet", "--config", str(config), "--size", size, "--precision", precision,
                                    "--output", "/dev/null", "--save-detections", str(det)], check=True)
                    rows = np.loadtxt(det, delimiter=",", ndmin=2)
                frames += [(truths[q, i][0], truths[q, i][1], [(r[6], r[2:6]) for r in rows[rows[:, 0] == i]]) for q, i in truths if q == s]
            row[precision] = average_precision(frames)
        print(f"{size:10s} " + "  ".join(f"{k} {v:.4f}" for k, v in row.items()), flush=True)


if __name__ == "__main__":
    main()
