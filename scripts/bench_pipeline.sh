#!/usr/bin/env bash
# Measures speed and memory of the whole program and of the Python pipeline in ../shared/bench, in
# alternation.
#   scripts/bench_pipeline.sh VIDEO PYTHON [rounds]
# PYTHON has the packages of ../shared/bench/requirements.txt. Needs ffmpeg (to loop the video) and GNU time.
set -euo pipefail
cd "$(dirname "$0")/.."
video=$1 python=$2 rounds=${3:-3}
bin=target/release/twintrack
ours() { $bin track "$video" --threads 2 --output /dev/null "$@" 2>&1 | awk '/frames\/s  |total,|ONNX Runtime/ {printf "%s %s  ", $1 ($1=="ONNX"?"Runtime":""), $NF} END {print ""}'; }
for i in $(seq "$rounds"); do
  echo "round $i"
  printf '  python, float32, no embedder    '; "$python" ../shared/bench/python_pipeline.py --video "$video" --model ../shared/models/nanodet_g_coco.onnx --size 768x576 --threads 2
  printf '  twintrack, default              '; ours
  printf '  twintrack, float32, no embedder '; ours --precision fp32 --no-embed
  printf '  twintrack, float32              '; ours --precision fp32
done
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
ffmpeg -loglevel error -stream_loop 9 -i "$video" -c copy "$work/ten.avi"
for input in "$video" "$work/ten.avi"; do
  command time -f "  peak memory %M KB, $(basename "$input")" $bin track "$input" --threads 2 --output "$work/out.jsonl" --quiet
done
