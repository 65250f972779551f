#!/usr/bin/env bash
# Downloads the ONNX Runtime library into .deps/onnxruntime, from PyPI, pinned by version and sha256.
#   scripts/fetch_onnxruntime.sh cpu   the CPU build (22 MB)
#   scripts/fetch_onnxruntime.sh gpu   the CUDA 13 build, with the CUDA and cuDNN libraries it needs (about 2 GB)
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-cpu}
case "$kind" in cpu|gpu) ;; *) echo "usage: $0 cpu|gpu" >&2; exit 2;; esac
requirements=scripts/onnxruntime-$kind-$(uname -m).txt
target=.deps/onnxruntime
if [ ! -f "$requirements" ]; then
  echo "no ONNX Runtime is pinned for $(uname -m) ($kind); set ORT_DYLIB_PATH to a libonnxruntime.so" >&2; exit 1
fi
wanted="$kind $(sha256sum "$requirements" | cut -d' ' -f1)"
if [ "$(cat "$target/.installed" 2>/dev/null)" = "$wanted" ] && [ -e "$target/libonnxruntime.so" ]; then exit 0; fi

echo "setup: fetching ONNX Runtime ($kind)"
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
# The library does not depend on Python, so the wheels for Python 3.12 are fetched, whichever
# version is installed.
python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: --python-version 3.12 --implementation cp \
  --platform "manylinux_2_28_$(uname -m)" --platform "manylinux_2_27_$(uname -m)" --platform "manylinux2014_$(uname -m)" --dest "$work" -r "$requirements"
for wheel in "$work"/*.whl; do python3 -m zipfile -e "$wheel" "$work/x"; done
rm -rf "$target"; mkdir -p "$target"
find "$work/x/onnxruntime/capi" -name 'libonnxruntime*.so*' -exec cp {} "$target/" \;
if [ "$kind" = gpu ]; then find "$work/x/nvidia" -path '*/lib/*' -name '*.so*' -exec cp {} "$target/" \; ; fi
(cd "$target" && ln -sf "$(ls libonnxruntime.so.1.* | head -n 1)" libonnxruntime.so)
echo "$wanted" > "$target/.installed"
