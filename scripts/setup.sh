#!/usr/bin/env bash
# Installs what is missing: the system's OpenCV with its headers, clang for the bindings, and the ONNX Runtime library.
#   scripts/setup.sh [cpu|gpu]
# Needs root (or sudo) only where packages are missing. A second run finds everything there and does nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-cpu}

say() { printf 'setup: %s\n' "$*"; }
missing=()
command -v pkg-config >/dev/null || missing+=(pkg-config)
{ command -v pkg-config >/dev/null && pkg-config --exists opencv4; } || missing+=(libopencv-dev)
command -v clang >/dev/null || missing+=(clang)
# (libclang-cpp.so is another library)
{ compgen -G '/usr/lib/llvm-*/lib/libclang.so*' || compgen -G '/usr/lib/llvm-*/lib/libclang-[0-9]*.so*'; } >/dev/null || missing+=(libclang-dev)
command -v g++ >/dev/null || missing+=(g++)
command -v python3 >/dev/null && python3 -m pip --version >/dev/null 2>&1 || missing+=(python3-pip)
if ((${#missing[@]})); then
  if ! command -v apt-get >/dev/null; then
    say "missing: ${missing[*]} (Debian's names); install them with this system's package manager"; exit 1
  fi
  sudo=; [ "$(id -u)" = 0 ] || sudo=sudo
  if [ -n "$sudo" ] && ! command -v sudo >/dev/null; then
    say "missing: ${missing[*]}; run as root: apt-get install --no-install-recommends ${missing[*]}"; exit 1
  fi
  say "installing ${missing[*]}"
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi
command -v cargo >/dev/null || { say "Rust is missing: install it with rustup"; exit 1; }
scripts/fetch_onnxruntime.sh "$kind"
