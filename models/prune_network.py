#!/usr/bin/env python3
"""Remove channels from the residual blocks of an embedder, and adjust the weights that remain: the start of the last training
of models/siamese.onnx.

    .venv/bin/python models/prune_network.py out/second.onnx out/pruned.onnx --probes work/probes-*/pictures.u8

A block of MobileNetV2 (Sandler et al. 2018) is a 1x1 convolution that widens, a depthwise one and a 1x1 convolution that
narrows. A channel between them is removed where the block's output over the probes changes least, and the narrowing weights of
the others are adjusted to it by least squares (optimal brain surgeon, Hassibi and Stork 1993, with the squared error of the
block's output). Widths are multiples of 64 where possible: ONNX Runtime computes 64 channels at once on a CPU with AVX-512.

Needs numpy, onnx and onnxruntime: models/requirements.txt.
"""
import argparse
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

# Channels that remain, by the channels that there are.
WIDTHS = {96: 80, 144: 128, 384: 320}
# Probes and places of each map that the errors are computed over.
PROBES, PLACES = 1024, 24
SEED = 8
MEAN, STD = np.array([123.675, 116.28, 103.53]), np.array([58.395, 57.12, 57.375])


def crops(path: pathlib.Path, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """PROBES of the stored pictures (bytes, BGR, one after the other), as input of the network."""
    stored = np.memmap(path, np.uint8, "r").reshape(-1, height, width, 3)
    chosen = stored[np.sort(rng.choice(len(stored), PROBES, replace=False))][..., ::-1]
    return ((chosen - MEAN) / STD).transpose(0, 3, 1, 2).astype(np.float32)


def blocks(graph: onnx.GraphProto) -> list[tuple[onnx.NodeProto, onnx.NodeProto, onnx.NodeProto]]:
    """The widening, depthwise and narrowing convolution of each block whose width is one of WIDTHS."""
    shapes = {i.name: list(i.dims) for i in graph.initializer}
    made_by = {node.output[0]: node for node in graph.node}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]

    def before(node: onnx.NodeProto) -> onnx.NodeProto | None:
        """The convolution whose rectified output this one takes."""
        rectifier = made_by.get(node.input[0])
        return made_by.get(rectifier.input[0]) if rectifier else None

    found = []
    for narrow in convolutions:
        depthwise = before(narrow)
        if depthwise in convolutions and shapes[depthwise.input[1]] in [[width, 1, 3, 3] for width in WIDTHS]:
            found.append((before(depthwise), depthwise, narrow))
    return found


def activations(model: onnx.ModelProto, value: str, inputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The channels of `value` at PLACES of each probe's map, [samples, channels]."""
    partial = onnx.ModelProto()
    partial.CopyFrom(model)
    partial.graph.output.append(onnx.ValueInfoProto(name=value))
    session = onnxruntime.InferenceSession(partial.SerializeToString(), providers=["CPUExecutionProvider"])
    samples = []
    for first in range(0, len(inputs), 64):
        (maps,) = session.run([value], {session.get_inputs()[0].name: inputs[first : first + 64]})
        flat = maps.reshape(*maps.shape[:2], -1)
        samples.append(flat[:, :, rng.choice(flat.shape[2], PLACES, replace=False)].transpose(0, 2, 1).reshape(-1, maps.shape[1]))
    return np.concatenate(samples).astype(np.float64)


def choose(samples: np.ndarray, weights: np.ndarray, bias: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The channels that remain, and the narrowing weights [outputs, channels] and bias adjusted to their absence."""
    extended = np.hstack([samples, np.ones((len(samples), 1))])
    inverse = np.linalg.inv(extended.T @ extended / len(extended) + 1e-5 * np.eye(extended.shape[1]))
    adjusted, remain = np.hstack([weights, bias[:, None]]), np.ones(samples.shape[1], bool)
    while remain.sum() > width:
        cost = np.where(remain, (adjusted[:, :-1] ** 2).sum(0) / np.diag(inverse)[:-1].clip(1e-12), np.inf)
        worst = int(cost.argmin())
        row = inverse[worst] / inverse[worst, worst]
        adjusted = adjusted - np.outer(adjusted[:, worst], row)
        inverse = inverse - np.outer(inverse[:, worst], row)
        remain[worst] = False
    return np.flatnonzero(remain), adjusted[:, :-1][:, remain], adjusted[:, -1]


def put(graph: onnx.GraphProto, name: str, array: np.ndarray) -> None:
    target = next(i for i in graph.initializer if i.name == name)
    target.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array, dtype=np.float32), name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source")
    parser.add_argument("output")
    parser.add_argument("--probes", type=pathlib.Path, required=True, help="pictures.u8 of a work folder of `twintrack-train distil`")
    args = parser.parse_args()
    model, rng = onnx.load(args.source), np.random.default_rng(SEED)
    graph = model.graph
    height, width = (d.dim_value for d in graph.input[0].type.tensor_type.shape.dim[2:])
    inputs = crops(args.probes, height, width, rng)
    for widen, depthwise, narrow in blocks(graph):
        # The earlier blocks are pruned already, so that their errors are adjusted for too.
        samples = activations(model, narrow.input[0], inputs, rng)
        weights = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        kernel, bias = weights[narrow.input[1]], weights[narrow.input[2]]
        before = kernel.shape[1]
        remain, adjusted, shifted = choose(samples, kernel[:, :, 0, 0].astype(np.float64), bias.astype(np.float64), WIDTHS[before])
        exact = samples @ kernel[:, :, 0, 0].T.astype(np.float64) + bias
        error = samples[:, remain] @ adjusted.T + shifted - exact
        print(f"{narrow.output[0]}: {before} to {len(remain)} channels, {error.var() / exact.var():.5f} of the output's variance lost")
        for node in (widen, depthwise):
            for name in node.input[1:]:
                put(graph, name, weights[name][remain])
        put(graph, narrow.input[1], adjusted[:, :, None, None])
        put(graph, narrow.input[2], shifted)
        next(a for a in depthwise.attribute if a.name == "group").i = len(remain)
    del graph.value_info[:]
    onnx.checker.check_model(model)
    onnx.save(model, args.output)


if __name__ == "__main__":
    main()
