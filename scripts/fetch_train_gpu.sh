#!/usr/bin/env bash
# Installs the libraries for training on an NVIDIA GPU, except the driver, into .deps.
#   scripts/fetch_train_gpu.sh cuda    for --features train-cuda: the run-time compiler and headers (100 MB), .deps/cuda
#   scripts/fetch_train_gpu.sh torch   for --features train-torch: PyTorch 2.9 with its libraries (7 GB), .deps/torch
set -euo pipefail
cd "$(dirname "$0")/.."
case "${1:-}" in
cuda)
  requirements=scripts/train-cuda-$(uname -m).txt
  [ -f "$requirements" ] || { echo "no CUDA packages are pinned for $(uname -m); install NVIDIA's CUDA toolkit" >&2; exit 1; }
  wanted=$(sha256sum "$requirements" | cut -d' ' -f1)
  [ "$(cat .deps/cuda/.installed 2>/dev/null)" = "$wanted" ] && exit 0
  echo "setup: fetching the CUDA run-time compiler"
  work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: --dest "$work" -r "$requirements"
  for wheel in "$work"/*.whl; do python3 -m zipfile -e "$wheel" "$work/x"; done
  rm -rf .deps/cuda; mkdir -p .deps
  mv "$work/x/nvidia/cu13" .deps/cuda
  echo "$wanted" > .deps/cuda/.installed ;;
torch)
  [ -e .deps/torch/.installed ] && exit 0
  echo "setup: fetching PyTorch"
  python3 -m venv .deps/torch
  .deps/torch/bin/python -m pip install --quiet --disable-pip-version-check setuptools torch==2.9.0
  touch .deps/torch/.installed ;;
*) echo "usage: $0 cuda|torch" >&2; exit 2 ;;
esac
