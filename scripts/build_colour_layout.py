#!/usr/bin/env python3
"""Build the colour layout of a person as an embedder, which training without a teacher starts from.

    python3 -m venv .venv && .venv/bin/pip install -r models/requirements.txt
    .venv/bin/python scripts/build_colour_layout.py --out colour_layout.onnx

It has no trained weights: the numbers below are the network. People are distinguished by the colours they wear at each
height. The crop is divided into horizontal stripes. Every pixel votes softly for bins of logarithmic lightness and hue
(chromaticity relative to lightness), with more weight in the middle columns than at the edges, where the background is.
The embedding is the square root of each stripe's histogram, so that inner products are Bhattacharyya coefficients
(similar to the colour names of Farenzena et al. 2010, SDALF).

  input   crops      [N, 3, 128, 64] float32, RGB in [0, 1]
  output  embedding  [N, 432] float32 on the unit sphere (the L2 normalisation is the graph's last node)
"""
import argparse
import datetime
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnx_nodes import writer

HEIGHT, WIDTH = 128, 64
STRIPES = 8
LIGHTNESS, LIGHTNESS_WIDTH = np.linspace(0.1, 0.95, 6), 0.11
HUES, SATURATION, CHROMA_WIDTH = 8, 0.09, 0.035
COLUMN_WIDTH = 0.22  # standard deviation of the column weight, crop widths


def build() -> onnx.ModelProto:
    nodes, initializers, constant, node = writer()

    h, w = HEIGHT // 2, WIDTH // 2
    small = node("AveragePool", ["crops"], "small", kernel_shape=[2, 2], strides=[2, 2])
    # Lightness (BT.601), red minus green, yellow minus blue.
    luma = np.array([0.299, 0.587, 0.114])
    opponent = np.stack([luma, 0.7 * np.array([1, -1, 0]), 0.6 * np.array([0.5, 0.5, -1])])
    channels = node("Conv", [small, constant("opponent", opponent[:, :, None, None])], "channels", kernel_shape=[1, 1])
    nodes.append(helper.make_node("Split", [channels, constant("ones", [1, 1, 1], np.int64)], ["y", "a", "b"], "split", axis=1))
    log = node("Log", [node("Add", ["y", constant("dark", 0.05)], "y_dark")], "log_y")
    light = node("Add", [node("Mul", [log, constant("third", 1 / 3)], "log_third"), constant("one", 1)], "light")
    scale = node("Div", [constant("reference", 0.35), node("Add", ["y", constant("floor", 0.15)], "y_floor")], "scale")
    chroma = [node("Mul", [c, scale], f"{c}_relative") for c in ("a", "b")]

    def squared(value, centres, name):
        return node("Pow", [node("Sub", [value, constant(f"{name}_centres", np.reshape(centres, (1, -1, 1, 1)))], f"{name}_off"), constant(f"{name}_two", 2)], f"{name}_squared")

    # A softmax over -d^2 / 2s^2 distributes each pixel over the bins.
    def vote(distance, width, name):
        return node("Softmax", [node("Mul", [distance, constant(f"{name}_width", -0.5 / width**2)], f"{name}_scaled")], name, axis=1)

    angles = 2 * np.pi * np.arange(HUES) / HUES
    centres = np.concatenate([[[0, 0]], SATURATION * np.stack([np.cos(angles), np.sin(angles)], 1)])
    lightness = vote(squared(light, LIGHTNESS, "lightness"), LIGHTNESS_WIDTH, "lightness_votes")
    distance = node("Add", [squared(chroma[i], centres[:, i], f"chroma{i}") for i in (0, 1)], "chroma_distance")
    hue = vote(distance, CHROMA_WIDTH, "hue_votes")
    column = np.exp(-0.5 * ((np.arange(w) - (w - 1) / 2) / (w * COLUMN_WIDTH)) ** 2)
    weighted = node("Mul", [lightness, constant("column", (column / column.sum() * STRIPES / h).reshape(1, 1, 1, -1))], "weighted")

    def stripes(value, bins, order, name):
        shape = constant(f"{name}_shape", [0, bins, STRIPES, h // STRIPES * w], np.int64)
        return node("Transpose", [node("Reshape", [value, shape], f"{name}_cut")], name, perm=order)

    joint = node("MatMul", [stripes(weighted, len(LIGHTNESS), [0, 2, 1, 3], "lightness_stripes"), stripes(hue, len(centres), [0, 2, 3, 1], "hue_stripes")], "joint")
    root = node("Sqrt", [node("Add", [joint, constant("tiny", 1e-8)], "joint_tiny")], "root")
    node("LpNormalization", [node("Flatten", [root], "flat")], "embedding", axis=1, p=2)

    d = STRIPES * len(LIGHTNESS) * len(centres)
    graph = helper.make_graph(nodes, "siamese_tower", [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["N", 3, HEIGHT, WIDTH])],
                              [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", d])], initializers)
    m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="twintrack scripts/build_colour_layout.py", ir_version=8)
    helper.set_model_props(m, {
        "twintrack.kind": "embedder", "twintrack.name": "colour layout", "twintrack.size": f"{WIDTH}x{HEIGHT}", "twintrack.color": "rgb",
        "twintrack.mean": "0,0,0", "twintrack.std": "255,255,255", "twintrack.dimension": str(d), "twintrack.precision": "fp32",
        "twintrack.training_data": "none: its numbers were set by hand", "twintrack.licence": "Apache-2.0", "twintrack.date": datetime.date.today().isoformat()})
    onnx.checker.check_model(m, full_check=True)
    return m


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--out", type=pathlib.Path, default=pathlib.Path("colour_layout.onnx"))
    a = a.parse_args()
    onnx.save(build(), a.out)
    print(f"{a.out}: {a.out.stat().st_size / 1e3:.1f} kB")


if __name__ == "__main__":
    main()
