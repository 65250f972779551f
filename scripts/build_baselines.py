#!/usr/bin/env python3
"""Build the baseline embedders that the shipped embedder is compared with, as ONNX files for twintrack and twintrack-train.

    .venv/bin/python scripts/build_baselines.py OUT [--mobilenet FILE [--size WIDTHxHEIGHT]]

  OUT/hsv6.onnx       joint HSV histogram (8 hues x 4 saturations x 4 values) of each of 6 horizontal stripes, head first;
                      square root of each bin's share, unit length
  OUT/mobilenet.onnx  with --mobilenet: that file, an ImageNet MobileNetV2 (input [N,3,H,W], ImageNet mean and std), with
                      `twintrack.*` metadata added

They are not shipped; BENCHMARKS.md has their results.
"""
import argparse
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnx_nodes import writer

# Horizontal stripes; bins of hue, saturation, value.
STRIPES, BINS = 6, (8, 4, 4)


def hsv_histograms() -> onnx.ModelProto:
    """HSV histograms of crops [N, 3, 128, 64], RGB in [0, 1]."""
    nodes, initializers, constant, node = writer()

    one, tiny = constant("one", 1.0), constant("tiny", 1e-6)
    nodes.append(helper.make_node("Split", ["crops", constant("ones", [1, 1, 1], np.int64)], ["r", "g", "b"], "split", axis=1))
    value = node("ReduceMax", ["crops"], "value", axes=[1], keepdims=1)
    chroma = node("Sub", [value, node("ReduceMin", ["crops"], "least", axes=[1], keepdims=1)], "chroma")
    nonzero_chroma = node("Max", [chroma, tiny], "nonzero_chroma")
    saturation = node("Div", [chroma, node("Max", [value, tiny], "nonzero_value")], "saturation")

    def hue_in_sector(first, second, offset, name):
        """Hue in sixths of a turn."""
        ratio = node("Div", [node("Sub", [first, second], f"{name}_difference"), nonzero_chroma], f"{name}_ratio")
        return node("Add", [ratio, constant(f"{name}_offset", offset)], f"{name}_hue")

    red, green = (node("Equal", [value, c], f"{c}_most") for c in ("r", "g"))
    rest = node("Where", [green, hue_in_sector("b", "r", 2.0, "green"), hue_in_sector("r", "g", 4.0, "blue")], "rest")
    hue = node("Where", [red, hue_in_sector("g", "b", 6.0, "red"), rest], "hue_sixths")
    hue = node("Mod", [node("Div", [hue, constant("six", 6.0)], "hue_turns"), one], "hue", fmod=1)

    def binned(x, bins, name):
        scaled = node("Floor", [node("Mul", [x, constant(f"{name}_bins", float(bins))], f"{name}_scaled")], f"{name}_floor")
        return node("Min", [scaled, constant(f"{name}_last", bins - 1.0)], f"{name}_bin")

    h, s, v = (binned(x, n, name) for x, n, name in zip((hue, saturation, value), BINS, ("h", "s", "v")))
    joint = node("Add", [node("Mul", [h, constant("per_hue", float(BINS[1] * BINS[2]))], "h_index"), node("Mul", [s, constant("per_saturation", float(BINS[2]))], "s_index")], "hs")
    bin_index = node("Cast", [node("Add", [joint, v], "bin_index_float")], "bin_index", to=TensorProto.INT64)
    # The first 126 rows of a crop are the 6 stripes of 21 rows. The last two, usually ground below the feet, are not used.
    cut = node("Slice", [bin_index, constant("from", [0], np.int64), constant("to", [126], np.int64), constant("along", [2], np.int64)], "cut")
    stripes = node("Reshape", [cut, constant("shape", [0, STRIPES, 21 * 64], np.int64)], "stripes")
    one_hot = node("OneHot", [stripes, constant("depth", int(np.prod(BINS)), np.int64), constant("off_on", [0.0, 1.0])], "one_hot", axis=-1)
    roots = node("Sqrt", [node("ReduceMean", [one_hot], "shares", axes=[2], keepdims=0)], "roots")
    node("LpNormalization", [node("Flatten", [roots], "flat")], "embedding", axis=1, p=2)
    dimension = STRIPES * int(np.prod(BINS))
    graph = helper.make_graph(
        nodes, "hsv6",
        [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["N", 3, 128, 64])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", dimension])], initializers)
    return add_metadata(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "hsv6", "64x128", "0,0,0", "255,255,255")


def add_metadata(model: onnx.ModelProto, name: str, size: str, mean: str, std: str) -> onnx.ModelProto:
    """Adds `twintrack.*` metadata to the model in place, checks it and returns it. mean and std: R,G,B in 0 to 255."""
    entries = {"kind": "embedder", "name": name, "size": size, "color": "rgb", "mean": mean, "std": std}
    helper.set_model_props(model, {f"twintrack.{k}": v for k, v in entries.items()})
    onnx.checker.check_model(model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path, help="folder for the ONNX files; created if missing")
    parser.add_argument("--mobilenet", type=pathlib.Path, help="ONNX file of an ImageNet MobileNetV2 embedder, input [N,3,H,W]; written to OUT/mobilenet.onnx with metadata added")
    parser.add_argument("--size", default="128x256", help="crop size of --mobilenet, WIDTHxHEIGHT (default: %(default)s)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    onnx.save(hsv_histograms(), args.out / "hsv6.onnx")
    if args.mobilenet:
        model = add_metadata(onnx.load(args.mobilenet), "mobilenetv2_imagenet", args.size, "123.675,116.28,103.53", "58.395,57.12,57.375")
        onnx.save(model, args.out / "mobilenet.onnx")


if __name__ == "__main__":
    main()
