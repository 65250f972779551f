#!/usr/bin/env bash
# Measures speed and memory of the whole program and of the Python pipeline in ../shared/bench, in
# alternation.
#   scripts/bench_pipeline.sh VIDEO PYTHON [rounds]
# PYTHON is an interpreter with the packages of ../shared/bench/requirements.txt. Needs ffmpeg (to
# loop the video) and GNU time.
set -euo pipefail
cd "$(dirname "$0")/.."
video=$1 python=$2 rounds=${3:-3}
bin=target/release/twintrack
config=$(mktemp --suffix .toml); trap 'rm -f "$config"' EXIT
printf '[cadence]\nmax_interval = 0\n[embedder]\ncrops = "all"\n' > "$config" # no frame and no crop is left out
timing() { # COMMAND: prints frames/s, the counts of skipped frames and embedded crops, and the processor time in s
  { command time -f 'processor %U s' "$@" 2>&1 || true; } | awk '
    /frames\/s  |skipped|embedded/ {printf "%s %s  ", $1, $NF} / frames, .* frames\/s, / && /session/ {printf "frames/s %s  ", $3}
    /^processor/ {printf "processor %s s", $2} END {print ""}'
}
ours() { timing $bin track "$video" --threads 2 --output /dev/null "$@"; }
for i in $(seq "$rounds"); do
  echo "round $i"
  printf '  python, float32, no embedder     '; timing "$python" ../shared/bench/python_pipeline.py --video "$video" --model ../shared/models/nanodet_g_coco.onnx --size 768x576 --threads 2
  printf '  twintrack, balanced (default)    '; ours
  printf '  twintrack, fast                  '; ours --preset fast
  printf '  twintrack, accurate              '; ours --preset accurate
  printf '  every frame, every crop, int8    '; ours --config "$config"
  printf '  every frame, float32, no embedder'; ours --config "$config" --precision fp32 --no-embed
done
work=$(mktemp -d); trap 'rm -rf "$work" "$config"' EXIT
ffmpeg -loglevel error -stream_loop 9 -i "$video" -c copy "$work/ten.avi"
for input in "$video" "$work/ten.avi"; do
  command time -f "  peak memory %M KB, $(basename "$input")" $bin track "$input" --threads 2 --output "$work/out.jsonl" --quiet
done
