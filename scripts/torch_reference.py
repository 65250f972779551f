#!/usr/bin/env python3
"""The networks `omni` and `mobile` in PyTorch, trained as by `twintrack-train run`: same layers, batches, augmentation,
losses and schedule. A reference for what ours should reach.

    .torch/bin/pip install torch numpy opencv-python-headless onnx
    .torch/bin/python scripts/torch_reference.py --network omni --train DIR --held DIR --steps 1500
    .torch/bin/python scripts/torch_reference.py --network mobile --start mobilenetv2_imagenet.onnx --train DIR --held DIR --steps 1000

DIR: pictures named as Market-1501's, IDENTITY_cCAMERAs..., e.g. 0003_c1s1_000000_00.jpg.
"""
import argparse
import math
import pathlib
import time

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from bench_training import omni

H, W, STRIPES, WARM_UP = 128, 64, 8, 100


def read(folder):
    files = sorted(pathlib.Path(folder).glob("*.jpg"))
    who = np.array([int(f.name.split("_")[0]) for f in files])
    camera = np.array([int(f.name.split("_")[1][1]) for f in files])
    pictures = [cv2.cvtColor(cv2.imread(str(f)), cv2.COLOR_BGR2RGB) for f in files]
    return pictures, np.unique(who, return_inverse=True)[1], camera


def altered(picture, rng):
    """Augments a picture: shift, resolution, mirroring, light, erasing (src/train/batch.rs)."""
    signed = lambda most: (2 * rng.random() - 1) * most
    h, w = picture.shape[:2]
    cx, cy = w * (0.5 + signed(0.08)), h * (0.5 + signed(0.08))
    rw, rh = w * (1 + signed(0.08)), h * (1 + signed(0.08))
    gain, bright = 1 + signed(0.2), signed(0.2) * 0.3
    cast = np.array([gain * (1 + signed(0.06)) for _ in range(3)], np.float32)

    def view(width, height):
        sx, sy = rw / width, rh / height
        m = np.array([[sx, 0, cx - rw / 2 + sx / 2 - 0.5], [0, sy, cy - rh / 2 + sy / 2 - 0.5]], np.float32)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(picture, m, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE).astype(np.float32) / 255

    if rng.random() < 0.3:
        scale = 0.25 + 0.5 * rng.random()
        out = cv2.resize(view(int(W * scale), int(H * scale)), (W, H), interpolation=cv2.INTER_NEAREST)
    else:
        out = view(W, H)
    if rng.random() < 0.5:
        out = out[:, ::-1]
    out = np.clip((out - 0.4) * cast + 0.4 + bright, 0, 1)
    if rng.random() < 0.3:
        eh, ew = rng.integers(H // 10, H // 3), rng.integers(W // 6, W // 2)
        y, x = rng.integers(0, H - eh), rng.integers(0, W - ew)
        out[y : y + eh, x : x + ew] = rng.random(3)
    return out.transpose(2, 0, 1)


class FromFile(nn.Module):
    """An ONNX graph of convolutions, Clip and Add up to the value `cut`, without maps below 1/16 of the picture."""

    def __init__(self, path, cut, most=16):
        import onnx
        from onnx import numpy_helper

        super().__init__()
        graph = onnx.load(path).graph
        weights = {i.name: torch.tensor(numpy_helper.to_array(i).copy()) for i in graph.initializer}
        self.steps, self.weights, divided = [], nn.ParameterList(), 1
        self.register_buffer("mean", torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1) / 255)
        self.register_buffer("std", torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1) / 255)
        for node in graph.node:
            if node.op_type == "Conv":
                a = {x.name: onnx.helper.get_attribute_value(x) for x in node.attribute}
                stride = a["strides"][0] if divided * a["strides"][0] <= most else 1
                divided *= stride
                self.weights.extend(nn.Parameter(weights[n]) for n in node.input[1:3])
                self.steps.append(("conv", node.input[0], node.output[0], len(self.weights) - 2, stride, a["pads"][0], a.get("group", 1)))
                self.channels = weights[node.input[1]].shape[0]
            else:
                self.steps.append((node.op_type, list(node.input), node.output[0]))
            if node.output[0] == cut:
                break
        self.first = graph.input[0].name

    def forward(self, x):
        values = {self.first: (x - self.mean) / self.std}
        for step in self.steps:
            if step[0] == "conv":
                _, source, out, at, stride, pad, groups = step
                values[out] = F.conv2d(values[source], self.weights[at], self.weights[at + 1], stride, pad, 1, groups)
            elif step[0] == "Clip":
                values[step[2]] = F.relu6(values[step[1][0]])
            else:
                values[step[2]] = values[step[1][0]] + values[step[1][1]]
        return values[self.steps[-1][2]]


class Tower(nn.Module):
    def __init__(self, body, channels, dimension, neck):
        super().__init__()
        self.body, self.linear = body, nn.Linear(channels * STRIPES, dimension)
        self.neck = nn.BatchNorm1d(dimension, eps=1e-10) if neck else nn.Identity()

    def forward(self, x):
        m = self.body(x)
        return F.normalize(self.neck(self.linear(F.avg_pool2d(m, (m.shape[2] // STRIPES, m.shape[3])).flatten(1))))


def distances(x):
    return ((2 - 2 * x @ x.T).clamp_min(0) + 1e-6).sqrt()


def triplets(x, who, hardest, margin=0.3):
    d, same = distances(x), who[:, None] == who[None]
    own = torch.eye(len(who), dtype=torch.bool, device=x.device)
    if hardest:
        return F.relu(d.masked_fill(~same | own, -4).amax(1) - d.masked_fill(same, 4).amin(1) + margin).mean()
    terms = F.relu(d[:, :, None] - d[:, None, :] + margin)[(same & ~own)[:, :, None] & ~same[:, None, :]]
    return terms.sum() / (terms > 0).sum().clamp_min(1)


@torch.no_grad()
def judge(net, device, pictures, who, camera):
    net.eval()
    batch = np.stack([cv2.resize(p, (W, H)).transpose(2, 0, 1).astype(np.float32) / 255 for p in pictures])
    x = torch.cat([net(torch.from_numpy(batch[i : i + 64]).to(device)).cpu() for i in range(0, len(batch), 64)]).numpy()
    net.train()
    similar, precision, first = x @ x.T, [], []
    for q in range(len(who)):
        allowed = (who != who[q]) | (camera != camera[q])
        hits = (who[allowed] == who[q])[np.argsort(-similar[q][allowed], kind="stable")]
        if hits.any():
            at = np.flatnonzero(hits)
            precision.append(np.mean((np.arange(len(at)) + 1) / (at + 1)))
            first.append(hits[0])
    return round(100 * float(np.mean(precision)), 1), round(100 * float(np.mean(first)), 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=["omni", "mobile"], required=True)
    parser.add_argument("--start", help="MobileNetV2's ONNX file")
    parser.add_argument("--cut", default="c61", help="the value of that file at which the head begins")
    parser.add_argument("--train", required=True)
    parser.add_argument("--held", required=True)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--easy-steps", type=int, default=300)
    parser.add_argument("--neck", action=argparse.BooleanOptionalAction, default=True, help="batch normalisation before unit length")
    parser.add_argument("--classification", type=float, default=0.0)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--people", type=int, default=16)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    (pictures, who, _), held = read(args.train), read(args.held)
    by_person = [np.flatnonzero(who == i) for i in range(who.max() + 1)]
    by_person = [v for v in by_person if len(v) > 1]
    body, channels = omni() if args.network == "omni" else (lambda b: (b, b.channels))(FromFile(args.start, args.cut))
    net = Tower(body, channels, args.dimension, args.neck).to(args.device)
    classes = nn.Linear(args.dimension, len(by_person)).to(args.device)
    parameters = [*net.parameters(), *(classes.parameters() if args.classification else [])]
    optimiser = torch.optim.AdamW(parameters, args.rate, weight_decay=1e-3)
    print(f"before training: mAP, rank-1 {judge(net, args.device, *held)}", flush=True)
    start = time.perf_counter()
    for step in range(args.steps):
        people = rng.permutation(len(by_person))[: args.people]
        views = [rng.permutation(by_person[p])[np.arange(args.views) % len(by_person[p])] for p in people]
        x = torch.from_numpy(np.stack([altered(pictures[i], rng) for v in views for i in v])).to(args.device)
        label = torch.from_numpy(np.repeat(people, args.views)).to(args.device)
        done = (step - WARM_UP) / (args.steps - WARM_UP)
        share = (step + 1) / WARM_UP if step < WARM_UP else 0.505 + 0.495 * math.cos(math.pi * done)
        optimiser.param_groups[0]["lr"] = args.rate * share
        e = net(x)
        loss = triplets(e, label, step >= args.easy_steps)
        if args.classification:
            loss = loss + args.classification * F.cross_entropy(classes(e) * 16, label, label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step + 1) % 250 == 0 or step + 1 == args.steps:
            speed = (step + 1) * len(label) / (time.perf_counter() - start)
            print(f"step {step + 1}: loss {loss.item():.4f}, mAP, rank-1 {judge(net, args.device, *held)}, {speed:.0f} images/s", flush=True)


if __name__ == "__main__":
    main()
