#!/usr/bin/env bash
# Decoding of H.264 at 768x576, 1080p and 4K: time per frame, frames per second and peak memory of `track`, and
# memory of `serve` with several 1080p recordings. The files are made from the sample clip.
#   scripts/bench_decoding.sh [seconds of `serve`]
# Needs ffmpeg, GNU time, and a release build. CARGO: the command to build with.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-15} bin=$PWD/target/release/twintrack clip=$PWD/samples/pets2009-s2l1.mp4
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
scaled() { # NAME SIZE FRAMES
  ffmpeg -v error -i "$clip" -vf "scale=$2" -frames:v "$3" -c:v libx264 -preset medium -crf 23 -g 50 -bf 2 "$work/$1"
}
cp "$clip" "$work/768x576.mp4"; scaled 1080p.mp4 1920:1080 400; scaled 4k.mp4 3840:2160 150
files=("$work/768x576.mp4" "$work/1080p.mp4" "$work/4k.mp4")
${CARGO:-cargo} bench --bench decode -- "${files[@]}"
for threads in 1 2; do
  printf '[source]\nthreads = %s\n' $threads > "$work/source.toml"
  for file in "${files[@]}"; do
    printf 'track %s, source.threads = %s: ' "$(basename "$file")" $threads
    command time -f '%M KB, processor %U s' "$bin" track "$file" --config "$work/source.toml" --threads 2 --output /dev/null 2>&1 |
      awk '/frames\/s  / {printf "%s frames/s, ", $NF} /processor/'
  done
done
for cameras in 1 2 4; do
  printf '[serve]\nlisten = ""\n' > "$work/cameras.toml"
  for i in $(seq $cameras); do printf '[cameras.c%s]\nurl = "%s"\nrealtime = false\n' "$i" "$work/1080p.mp4"; done >> "$work/cameras.toml"
  { command time -f "serve, recordings of 1080p: $cameras, %M KB" timeout -s INT "$seconds" "$bin" serve --config "$work/cameras.toml" 2>&1 > /dev/null ||
    test $? = 124; } | grep KB # 124: ended by timeout
done
