#!/usr/bin/env bash
# Installs missing dependencies: the system's OpenCV with its headers, clang for the bindings, and the ONNX Runtime library.
#   scripts/setup.sh [cpu|gpu]
#   scripts/setup.sh web         Node, npm and Chromium, for the dashboard
#   scripts/setup.sh tests       servers and tools for tests (MQTT broker, NATS server, RTSP server, reverse proxy, ffmpeg)
# Needs root (or sudo) only if packages are missing. A second run does nothing.
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
if [ "$kind" = web ]; then
  # What building and testing the dashboard needs, and nothing else.
  missing=()
  command -v node >/dev/null || missing+=(nodejs)
  command -v npm >/dev/null || missing+=(npm)
  command -v chromium >/dev/null || command -v google-chrome >/dev/null || missing+=(chromium)
fi
if [ "$kind" = tests ]; then
  python3 -c 'import ensurepip' 2>/dev/null || missing+=(python3-venv)
  for tool in mosquitto:mosquitto mosquitto_sub:mosquitto-clients ffmpeg:ffmpeg openssl:openssl nginx:nginx-light nats-server:nats-server xmllint:libxml2-utils; do
    command -v "${tool%%:*}" >/dev/null || [ -x "/usr/sbin/${tool%%:*}" ] || missing+=("${tool##*:}")
  done
  # PostgreSQL with pgvector, for the history's tests. Debian 12 itself has no package of pgvector.
  compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || missing+=(postgresql)
  if ! compgen -G '/usr/share/postgresql/*/extension/vector.control' >/dev/null &&
     command -v apt-cache >/dev/null && apt-cache show postgresql-15-pgvector >/dev/null 2>&1; then
    missing+=(postgresql-15-pgvector)
  fi
  /usr/bin/python3 -c 'import gi; gi.require_version("GstRtspServer", "1.0")' 2>/dev/null || missing+=(python3-gi gir1.2-gst-rtsp-server-1.0)
  command -v gst-inspect-1.0 >/dev/null && gst-inspect-1.0 rtph264pay >/dev/null 2>&1 || missing+=(gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good)
  command -v gst-inspect-1.0 >/dev/null && gst-inspect-1.0 h264parse >/dev/null 2>&1 || missing+=(gstreamer1.0-plugins-bad)
fi
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
if [ "$kind" = tests ] && command -v apt-get >/dev/null; then
  # Without it the history's tests on PostgreSQL are skipped.
  scripts/build_pgvector.sh || say "pgvector is missing: the history is tested on SQLite only"
fi
if [ "$kind" = web ]; then
  node web/scripts/require_node.mjs
  exit
fi
if [ "$kind" = tests ]; then
  # Without them the documents of `track --onvif` are not checked against ONVIF's schemas.
  scripts/fetch_onvif_schemas.sh || say "ONVIF's schemas are missing: metadata is not checked against them"
fi
if [ "$kind" = tests ] && [ ! -x .deps/schemathesis/bin/schemathesis ]; then
  # Compares the HTTP interface with its OpenAPI document; without it that test is skipped.
  { python3 -m venv .deps/schemathesis && .deps/schemathesis/bin/pip install -q 'schemathesis==4.*'; } ||
    say "schemathesis is missing: the OpenAPI document is not compared with the service"
fi
if [ "$kind" = tests ] && [ ! -x .deps/deploy/bin/kubernetes-validate ]; then
  # Has the schemas of Kubernetes, for `make lint`; without it deploy/ is not checked.
  { python3 -m venv .deps/deploy && .deps/deploy/bin/pip install -q 'kubernetes-validate==1.37.*'; } ||
    say "kubernetes-validate is missing: deploy/ is not checked"
fi
command -v cargo >/dev/null || { say "Rust is missing: install it with rustup"; exit 1; }
[ "$kind" = tests ] || scripts/fetch_onnxruntime.sh "$kind"
