#!/usr/bin/env python3
"""Training speed of PyTorch on the network `tiny` of twintrack-train: same layers, batch, loss and optimiser.

    python3 -m venv .torch && .torch/bin/pip install torch numpy
    .torch/bin/python scripts/bench_training.py --threads 2            # prints images per second
    target/release/twintrack-train run --data synthetic:200 --steps 100 --work /tmp/speed --output /tmp/speed.onnx

Here the batches are random numbers prepared in advance; twintrack-train draws, cuts and augments pictures while it
trains.
"""
import argparse
import math
import time

import torch
from torch import nn

STRIPES, DIMENSION = 8, 128
LIGHTNESS = torch.linspace(0.1, 0.95, 6)
ANGLES = torch.arange(8) * 2 * math.pi / 8
HUES = torch.cat([torch.zeros(1, 2), 0.09 * torch.stack([ANGLES.cos(), ANGLES.sin()], 1)])
OPPONENT = torch.tensor([[0.299, 0.587, 0.114], [0.7, -0.7, 0.0], [0.3, 0.3, -0.6]])


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        layers = [(3, 16, 2), (16, 32, 2), (32, 64, 2), (64, 96, 2), (96, 96, 1)]
        self.blocks = nn.Sequential(*[nn.Sequential(nn.Conv2d(a, b, 3, s, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU()) for a, b, s in layers])
        self.colour, self.texture = nn.Linear(STRIPES * 6 * 9, DIMENSION), nn.Linear(96 * STRIPES, DIMENSION, bias=False)
        column = torch.exp(-0.5 * ((torch.arange(32) - 15.5) / (32 * 0.22)) ** 2)
        self.register_buffer("column", column / column.sum() / 8)
        for name, value in (("lightness", LIGHTNESS), ("hues", HUES), ("opponent", OPPONENT)):
            self.register_buffer(name, value)

    def layout(self, x):
        x = nn.functional.avg_pool2d(x, 2)
        y, a, b = torch.einsum("oc,nchw->onhw", self.opponent, x)
        light = torch.softmax(-0.5 * (((y + 0.05).log() / 3 + 1)[:, None] - self.lightness[:, None, None]) ** 2 / 0.11**2, 1) * self.column
        scale = 0.35 / (y + 0.15)
        chroma = ((a * scale)[:, None] - self.hues[:, 0, None, None]) ** 2 + ((b * scale)[:, None] - self.hues[:, 1, None, None]) ** 2
        hue = torch.softmax(-0.5 * chroma / 0.035**2, 1)
        n = x.shape[0]
        light = light.reshape(n, 6, STRIPES, -1).transpose(1, 2)
        hue = hue.reshape(n, 9, STRIPES, -1).permute(0, 2, 3, 1)
        return nn.functional.normalize((light @ hue + 1e-8).sqrt().reshape(n, -1))

    def forward(self, x):
        stripes = self.blocks(x).mean(3).reshape(x.shape[0], -1)
        return nn.functional.normalize(self.colour(self.layout(x)) + self.texture(stripes))


def batch_hard(x, who, margin=0.3):
    d = torch.cdist(x, x)
    same = who[:, None] == who[None]
    own = torch.eye(len(who), dtype=torch.bool, device=x.device)
    farthest = d.masked_fill(~same | own, -4).amax(1)
    nearest = d.masked_fill(same, 4).amin(1)
    return torch.relu(farthest - nearest + margin).mean()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--amp", action="store_true", help="mixed precision (CUDA)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    net = Tiny().to(args.device)
    optimiser = torch.optim.AdamW(net.parameters(), 3e-4, weight_decay=1e-3)
    batches = [torch.rand(64, 3, 128, 64) for _ in range(4)]
    who = (torch.arange(64) // 4).to(args.device)

    def step(i):
        with torch.autocast(args.device, enabled=args.amp):
            loss = batch_hard(net(batches[i % 4].to(args.device)), who)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        return loss.item()

    for i in range(5):
        step(i)
    start = time.perf_counter()
    for i in range(args.steps):
        step(i)
    print(f"{64 * args.steps / (time.perf_counter() - start):.0f} images/s")


if __name__ == "__main__":
    main()
