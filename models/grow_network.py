#!/usr/bin/env python3
"""Add residual blocks and head channels to an embedder, with almost the same output: the start of models/siamese_accurate.onnx.

    .venv/bin/python models/grow_network.py out/second.onnx out/grown.onnx

The blocks are MobileNetV2's inverted residuals of 64 channels (Sandler et al. 2018) behind the backbone's last one. The last
convolution of each is zero, so that a block adds nothing before the training. The head's channels are copied, and their
outgoing weights divided among the copies (Net2Net, Chen et al. 2016); noise tells the copies apart.

Needs numpy and onnx: models/requirements.txt.
"""
import argparse

import numpy as np
import onnx
from onnx import helper, numpy_helper

# Output of the backbone's last block, its channels, and the channels within a block.
BACKBONE, CHANNELS, EXPANDED = "start.a36", 64, 384
SEED = 7


def put(graph: onnx.GraphProto, name: str, array: np.ndarray) -> None:
    """Adds an initializer, or replaces that of this name."""
    for initializer in list(graph.initializer):
        if initializer.name == name:
            graph.initializer.remove(initializer)
    graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype=np.float32), name))


def block(graph: onnx.GraphProto, source: str, name: str, rng: np.random.Generator) -> list[onnx.NodeProto]:
    """The nodes of a block, whose output is the last one's."""
    expand = rng.normal(0, np.sqrt(2 / CHANNELS) / 2, (EXPANDED, CHANNELS, 1, 1))
    depthwise = rng.normal(0, 0.1, (EXPANDED, 1, 3, 3))
    depthwise[:, 0, 1, 1] += 0.6
    for number, weight in enumerate((expand, depthwise, np.zeros((CHANNELS, EXPANDED, 1, 1))), start=1):
        put(graph, f"{name}.w{number}", weight)
        put(graph, f"{name}.b{number}", np.zeros(len(weight)))
    conv = lambda source, number, output, **more: helper.make_node(
        "Conv", [source, f"{name}.w{number}", f"{name}.b{number}"], [f"{name}.{output}"], name=f"{name}.{output}", **more)
    clip = lambda source: helper.make_node("Clip", [f"{name}.{source}", "start.zero", "start.six"], [f"{name}.{source}r"])
    return [
        conv(source, 1, "e", kernel_shape=[1, 1]), clip("e"),
        conv(f"{name}.er", 2, "d", kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=EXPANDED), clip("d"),
        conv(f"{name}.dr", 3, "p", kernel_shape=[1, 1]),
        helper.make_node("Add", [source, f"{name}.p"], [f"{name}.sum"]),
    ]


def add_blocks(graph: onnx.GraphProto, count: int, rng: np.random.Generator) -> None:
    head = next(k for k, node in enumerate(graph.node) if node.output[0] == "widen.conv")
    source, nodes = BACKBONE, []
    for number in range(count):
        nodes += block(graph, source, f"grown.{number}", rng)
        source = nodes[-1].output[0]
    graph.node[head].input[0] = source
    for k, node in enumerate(nodes):
        graph.node.insert(head + k, node)


def widen(graph: onnx.GraphProto, channels: int, rng: np.random.Generator) -> None:
    """Raises the number of the head's channels."""
    weights = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
    before = len(weights["widen.conv.bias"])
    copied = np.concatenate([np.arange(before), np.arange(channels - before) % before])
    copies = np.bincount(copied, minlength=before)
    is_copy = np.arange(channels) >= before

    def copy(name: str) -> np.ndarray:
        array = weights[name][copied]
        return array * (1 + rng.normal(0, 0.05, array.shape) * is_copy.reshape((-1,) + (1,) * (array.ndim - 1)))

    put(graph, "widen.conv.weight", copy("widen.conv.weight"))
    put(graph, "widen.conv.bias", weights["widen.conv.bias"][copied])
    put(graph, "read_out.weight", copy("read_out.weight"))
    linear = next(node for node in graph.node if node.op_type == "Gemm")
    is_transposed = any(a.name == "transB" and a.i for a in linear.attribute)
    weight, share = weights["texture_linear.weight"], 1 / copies[copied]
    put(graph, "texture_linear.weight", weight[:, copied] * share if is_transposed else weight[copied] * share[:, None])
    for node in graph.node:
        if node.output[0] == "read_out":
            next(a for a in node.attribute if a.name == "group").i = channels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", help="siamese.onnx before it was pruned")
    parser.add_argument("output")
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--channels", type=int, default=384, help="channels of the head")
    args = parser.parse_args()
    model, rng = onnx.load(args.source), np.random.default_rng(SEED)
    add_blocks(model.graph, args.blocks, rng)
    widen(model.graph, args.channels, rng)
    del model.graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save(model, args.output)


if __name__ == "__main__":
    main()
