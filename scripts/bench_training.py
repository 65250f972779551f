#!/usr/bin/env python3
"""Training speed of PyTorch on the networks `tiny`, `mobile` and `omni` of twintrack-train: same layers, batch, losses
and optimiser. Needs nothing but PyTorch.

    python3 -m venv .torch && .torch/bin/pip install torch
    .torch/bin/python scripts/bench_training.py --threads 2            # prints images per second of each network
    .torch/bin/python scripts/bench_training.py --device cuda --precision bfloat16 --network omni
    target/release/twintrack-train bench --network tiny                # the same of ours, `with prepared batches`

The batches are random numbers prepared in advance, in pinned memory for a GPU. `tiny` has the colour layout and the
hardest triplets; `mobile` and `omni` a neck in its place (`colours = false` in the configuration of ours). Losses are read at
the end only, cuDNN chooses its kernels by measurement.
"""
import argparse
import math
import time

import torch
from torch import nn
from torch.nn import functional as F

STRIPES, DIMENSION = 8, 128
LIGHTNESS = torch.linspace(0.1, 0.95, 6)
ANGLES = torch.arange(8) * 2 * math.pi / 8
HUES = torch.cat([torch.zeros(1, 2), 0.09 * torch.stack([ANGLES.cos(), ANGLES.sin()], 1)])
OPPONENT = torch.tensor([[0.299, 0.587, 0.114], [0.7, -0.7, 0.0], [0.3, 0.3, -0.6]])


class ConvNorm(nn.Sequential):
    def __init__(self, a, b, kernel, stride=1, groups=1, activation=None):
        layers = [nn.Conv2d(a, b, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(b)]
        super().__init__(*layers, *([activation(inplace=True)] if activation else []))


class Tiny(nn.Module):
    """With its colour layout (src/train/colour.rs)."""

    def __init__(self):
        super().__init__()
        layers = [(3, 16, 2), (16, 32, 2), (32, 64, 2), (64, 96, 2), (96, 96, 1)]
        self.blocks = nn.Sequential(*[ConvNorm(a, b, 3, s, activation=nn.ReLU) for a, b, s in layers])
        self.colour, self.texture = nn.Linear(STRIPES * 6 * 9, DIMENSION), nn.Linear(96 * STRIPES, DIMENSION, bias=False)
        column = torch.exp(-0.5 * ((torch.arange(32) - 15.5) / (32 * 0.22)) ** 2)
        self.register_buffer("column", column / column.sum() / 8)
        for name, value in (("lightness", LIGHTNESS), ("hues", HUES), ("opponent", OPPONENT)):
            self.register_buffer(name, value)

    def layout(self, x):
        x = F.avg_pool2d(x, 2)
        y, a, b = torch.einsum("oc,nchw->onhw", self.opponent, x)
        light = torch.softmax(-0.5 * (((y + 0.05).log() / 3 + 1)[:, None] - self.lightness[:, None, None]) ** 2 / 0.11**2, 1) * self.column
        scale = 0.35 / (y + 0.15)
        chroma = ((a * scale)[:, None] - self.hues[:, 0, None, None]) ** 2 + ((b * scale)[:, None] - self.hues[:, 1, None, None]) ** 2
        hue = torch.softmax(-0.5 * chroma / 0.035**2, 1)
        n = x.shape[0]
        light = light.reshape(n, 6, STRIPES, -1).transpose(1, 2)
        hue = hue.reshape(n, 9, STRIPES, -1).permute(0, 2, 3, 1)
        return F.normalize((light @ hue + 1e-8).sqrt().reshape(n, -1))

    def forward(self, x):
        stripes = self.blocks(x).mean(3).reshape(x.shape[0], -1)
        return F.normalize(self.colour(self.layout(x)) + self.texture(stripes))


class OmniBlock(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        m = b // 4
        light = lambda: nn.Sequential(ConvNorm(m, m, 1), ConvNorm(m, m, 3, groups=m, activation=nn.ReLU))
        self.enter, self.leave = ConvNorm(a, m, 1, activation=nn.ReLU), ConvNorm(m, b, 1)
        self.streams = nn.ModuleList([nn.Sequential(*[light() for _ in range(n)]) for n in (1, 2, 3, 4)])
        self.narrow, self.widen = nn.Linear(m, m // 4), nn.Linear(m // 4, m)
        self.around = ConvNorm(a, b, 1) if a != b else nn.Identity()

    def forward(self, x):
        entered = self.enter(x)
        gated = lambda y: y * torch.sigmoid(self.widen(F.relu(self.narrow(y.mean((2, 3))))))[:, :, None, None]
        return F.relu(self.leave(sum(gated(s(entered)) for s in self.streams)) + self.around(x))


def omni():
    layers, a = [ConvNorm(3, 16, 3, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)], 16
    for stage, b in enumerate((64, 96, 128)):
        for _ in range(2):
            layers.append(OmniBlock(a, b))
            a = b
        if stage < 2:
            layers += [ConvNorm(b, b, 1, activation=nn.ReLU), nn.AvgPool2d(2)]
    return nn.Sequential(*layers), 128


class Inverted(nn.Module):
    def __init__(self, a, b, expansion, stride):
        super().__init__()
        m = a * expansion
        widen = [ConvNorm(a, m, 1, activation=nn.ReLU6)] if expansion > 1 else []
        self.layers = nn.Sequential(*widen, ConvNorm(m, m, 3, stride, m, nn.ReLU6), ConvNorm(m, b, 1))
        self.adds = stride == 1 and a == b

    def forward(self, x):
        return x + self.layers(x) if self.adds else self.layers(x)


class Standardise(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std


def mobile():
    layers, a = [Standardise(), ConvNorm(3, 32, 3, 2, activation=nn.ReLU6)], 32
    stages = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 1), (6, 320, 1, 1)]
    for expansion, b, count, stride in stages:
        for i in range(count):
            layers.append(Inverted(a, b, expansion, stride if i == 0 else 1))
            a = b
    return nn.Sequential(*layers), 320


class Tower(nn.Module):
    """A network with stripes and a neck."""

    def __init__(self, body, channels):
        super().__init__()
        self.body, self.linear = body, nn.Linear(channels * STRIPES, DIMENSION)
        self.neck = nn.BatchNorm1d(DIMENSION, eps=1e-10)

    def forward(self, x):
        m = self.body(x)
        return F.normalize(self.neck(self.linear(F.avg_pool2d(m, (m.shape[2] // STRIPES, m.shape[3])).flatten(1))).float())


def batch_hard(x, who, margin=0.3):
    d = ((2 - 2 * x.float() @ x.float().T).clamp_min(0) + 1e-6).sqrt()
    same = who[:, None] == who[None]
    own = torch.eye(len(who), dtype=torch.bool, device=x.device)
    return F.relu(d.masked_fill(~same | own, -4).amax(1) - d.masked_fill(same, 4).amin(1) + margin).mean()


NETWORKS = {"tiny": Tiny, "mobile": lambda: Tower(*mobile()), "omni": lambda: Tower(*omni())}


def speed(name, args):
    """Images per second."""
    torch.manual_seed(1)
    net = NETWORKS[name]().to(args.device)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-4, weight_decay=1e-3)
    on_gpu = args.device.startswith("cuda")
    batches = [torch.rand(64, 3, 128, 64) for _ in range(4)]
    batches = [b.pin_memory() for b in batches] if on_gpu else batches
    who = (torch.arange(64) // 4).to(args.device)
    kind = "cuda" if on_gpu else "cpu"

    def step(i):
        with torch.autocast(kind, torch.bfloat16, enabled=args.precision == "bfloat16"):
            loss = batch_hard(net(batches[i % 4].to(args.device, non_blocking=True)), who)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.detach()

    for i in range(args.warm_up):
        step(i).item()
    start = time.perf_counter()
    losses = [step(i) for i in range(args.steps)]
    assert torch.stack(losses).isfinite().all()  # waits for the device
    return 64 * args.steps / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=list(NETWORKS), action="append", help="default: all")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--warm-up", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cudnn.benchmark = True
    for name in args.network or NETWORKS:
        print(f"{name}: {speed(name, args):.0f} images/s ({args.device}, {args.precision})", flush=True)


if __name__ == "__main__":
    main()
