#!/usr/bin/env bash
# Compares the instructions that this working tree and an earlier commit execute on a fixed input,
# and fails if a command needs more than LIMIT percent (5) more. Unlike times, numbers of
# instructions do not depend on the load of the machine.
#   scripts/bench_check.sh [REV] [LIMIT]
# REV: by default HEAD if files are changed, else the commit before HEAD. The parts that need no
# pixels and no networks are measured: tracker, events, offline linking, evaluation. Needs valgrind.
# Both programs are built with the feature `cli` only, in out/bench-check; nothing in target/
# changes.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
limit=${2:-5}
fail() { echo "$*" >&2; exit 2; }
command -v valgrind >/dev/null || fail "valgrind is missing: sudo apt-get install valgrind"
if [ $# -gt 0 ]; then rev=$1
elif [ -n "$(git status --porcelain)" ]; then rev=HEAD
else rev=HEAD~1; fi
commit=$(git rev-parse --verify --quiet "$rev^{commit}") || fail "there is no commit $rev"
work=$PWD/out/bench-check
input=$work/input
mkdir -p "$input/sequences/walk/gt" "$input/results"

# build SOURCE PROGRAM: builds the tree in the folder SOURCE and copies the program.
build() {
  (cd "$1" && "${CARGO:-cargo}" build --release --locked --quiet --no-default-features \
    --features cli --bin twintrack --target-dir "$work/target") || fail "cannot build $1"
  cp "$work/target/release/twintrack" "$2"
}

# 60 people who walk on straight lines through 1,000 frames: as ground truth, and as detections with
# noise, of which one in ten is left out.
walk() {
  awk -v truth="$1" 'BEGIN {
    seed = 20261127
    for (f = 1; f <= 1000; f++) for (p = 1; p <= 60; p++) {
      for (i = 0; i < 4; i++) { seed = (seed * 16807) % 2147483647; noise[i] = seed / 2147483647 }
      x = (p * 173 + f * (1 + p % 5)) % 1840; y = (p * 97 + f * (p % 3)) % 940
      if (truth) printf "%d,%d,%d,%d,40,100,1,1,1\n", f, p, x, y
      else if (noise[0] > 0.1) printf "%d,-1,%.1f,%.1f,40,100,%.2f\n",
        f, x + 4 * noise[1], y + 4 * noise[2], 0.6 + 0.4 * noise[3]
    }
  }'
}

# count PROGRAM ARGUMENTS...: runs the command and prints the number of instructions.
count() {
  valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" >"$work/stdout" 2>"$work/stderr" ||
    { cat "$work/stderr" >&2; fail "the command failed: $*"; }
  awk '/Collected : / { print $NF }' "$work/stderr"
}

walk=$input/sequences/walk
printf '[Sequence]\nname=walk\nframeRate=10\nseqLength=1000\nimWidth=1920\nimHeight=1080\n' \
  > "$walk/seqinfo.ini"
walk 1 > "$walk/gt/gt.txt"
walk 0 > "$input/detections.txt"
before=$work/before-${commit:0:12}
if [ ! -x "$before" ]; then
  rm -rf "$work"/before-* "$work"/tree-*
  # Each commit has its own folder, because cargo compares the times of files, and files of an
  # archive have the time of their commit.
  tree=$work/tree-${commit:0:12}
  mkdir "$tree"
  git archive "$commit" -- . ':!samples' ':!docs' | tar -x -C "$tree"
  echo "building $rev ($(git log -1 --format='%h %s' "$commit"))" >&2
  build "$tree" "$before"
fi
echo "building the working tree" >&2
build "$PWD" "$work/now"

track=(track "$walk" --detections "$input/detections.txt" --no-embed --quiet --threads 1
  --run-id 01936a1e-0000-7000-8000-000000000000 --output /dev/null)
status=0
printf '| instructions, millions | %s | working tree | change |\n|---|---:|---:|---:|\n' \
  "${commit:0:7}"
# row NAME ARGUMENTS...: measures both programs; records an increase above the limit.
row() {
  local name=$1 old new
  shift
  old=$(count "$before" "$@")
  new=$(count "$work/now" "$@")
  awk -v name="$name" -v old="$old" -v new="$new" -v limit="$limit" 'BEGIN {
    change = 100 * (new - old) / old
    printf "| %s | %.1f | %.1f | %+.2f %% |\n", name, old / 1e6, new / 1e6, change
    exit change > limit
  }' || status=1
}
row 'track' "${track[@]}" --mot "$input/results/walk.txt"
row 'track --offline' "${track[@]}" --offline
row 'eval' eval --gt "$input/sequences" --results "$input/results"
[ $status = 0 ] || echo "a command needs over $limit % more instructions than at $rev" >&2
exit $status
