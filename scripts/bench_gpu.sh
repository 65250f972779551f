#!/bin/sh
# Measures the figures of the section "On a GPU" in BENCHMARKS.md, in less than five minutes:
#
#     scripts/bench_gpu.sh VIDEO [DEVICE [FOLDER]]       DEVICE: cuda (default), cuda:N or cpu
#
# The machine needs NVIDIA's driver, and CUDA 13 and cuDNN 9, from `make setup-gpu` or as Python packages
# (nvidia-cublas, nvidia-cudnn-cu13, nvidia-cuda-runtime, nvidia-curand, nvidia-cufft). Programs: TWINTRACK
# and DEVICE_BENCH, by default the last ones built here. FOLDER receives the logs and tracks.
set -eu
video=$1 device=${2:-cuda} out=${3:-$(mktemp -d)}
here=$(cd "$(dirname "$0")/.." && pwd)
program=${TWINTRACK:-$here/target/release/twintrack}
bench=${DEVICE_BENCH:-$(ls -t "$here"/target/release/deps/device-* 2>/dev/null | grep -v '\.d$' | head -1)}
mkdir -p "$out"
packages=$(python3 -c 'import nvidia; print(list(nvidia.__path__)[0])' 2>/dev/null || true)
if [ -n "$packages" ]; then
    for folder in "$packages"/*/lib; do
        LD_LIBRARY_PATH=$folder:${LD_LIBRARY_PATH:-}
    done
    export LD_LIBRARY_PATH
fi

echo "== machine"
nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no NVIDIA GPU"
echo "$(nproc) cores, $("$program" --version)"
"$program" doctor 2>&1 | grep -i provider || true

echo "== networks alone"
for size in 768x576 1088x608; do
    timeout 100 "$bench" "$device" "$size" 2>&1
done

# track DEVICE NAME [OPTIONS]: tracks the video, prints the table.
track() {
    on=$1 name=$2
    shift 2
    echo "== track --device $on $*"
    timeout 120 "$program" track "$video" --device "$on" --output "$out/$name.jsonl" --mot "$out/$name.txt" \
        "$@" >"$out/$name.log" 2>&1 || { echo "failed:"; tail -5 "$out/$name.log"; return 0; }
    grep -E 'frames|people|ms/frame' "$out/$name.log" | grep -v 'left' || true
    grep -E 'together|prepared|INFO' "$out/$name.log" | head -5 || true
}

TWINTRACK_LOG=twintrack=info
export TWINTRACK_LOG
track "$device" first --precision fp32
track "$device" second --precision fp32
track cpu cpu --precision fp32
[ ! -f "${FP16:-}" ] || track "$device" fp16 --detector "$FP16"
echo "== tracks on $device and on the CPU"
python3 - "$out/second.txt" "$out/cpu.txt" <<'PYTHON'
import sys
a, b = ([tuple(map(float, line.split(",")[:6])) for line in open(path)] for path in sys.argv[1:])
same = sum(x[:2] == y[:2] for x, y in zip(a, b))
far = max((abs(p - q) for x, y in zip(a, b) for p, q in zip(x[2:], y[2:])), default=0)
print(f"{len(a)} and {len(b)} boxes, {same} with the same frame and id, largest difference {far:.2f} pixels")
PYTHON

echo "== serve, 16 files"
{
    printf 'device = "%s"\n[detector]\nprecision = "fp32"\n[serve]\nlisten = "127.0.0.1:18090"\n' "$device"
    for i in $(seq 16); do
        printf '[cameras.c%s]\nurl = "%s"\nrealtime = false\n' "$i" "$video"
    done
} >"$out/serve.toml"
for run in 1 2; do
    python3 - "$program" "$out" <<'PYTHON'
import os, re, subprocess, sys, time, urllib.request
program, out = sys.argv[1:]
events, log = f"{out}/serve.jsonl", open(f"{out}/serve.log", "w")
if os.path.exists(events):
    os.remove(events)
start = time.time()
service = subprocess.Popen(
    [program, "serve", "--config", f"{out}/serve.toml", "--output", events], stdout=log, stderr=log)
first = None
while service.poll() is None and time.time() < start + 120:
    if first is None and os.path.exists(events) and os.path.getsize(events) > 0:
        first = time.time()
    time.sleep(0.02)
    if first and time.time() > first + 2 and "metrics" not in globals():
        metrics = urllib.request.urlopen("http://127.0.0.1:18090/metrics").read().decode()
end = time.time()
service.terminate()
service.wait()
frames = sum(map(int, re.findall(r"(\d+) tracked", open(f"{out}/serve.log").read())))
first = first or end
rate = frames / max(end - first, 1e-9)
print(f"{frames} frames, first event after {first - start:.1f} s, then {end - first:.1f} s: {rate:.0f} frames/s")
value = lambda name: {m[0]: float(m[1]) for m in re.findall(name + r'\{stage="(\w+)"[^}]*\} (\S+)', globals().get("metrics", ""))}
total, count = value("twintrack_stage_seconds_sum"), value("twintrack_stage_seconds_count")
for stage in total:
    print(f"  {stage:8} {1e3 * total[stage] / max(count[stage], 1):8.3f} ms a run, {count[stage]:.0f} runs")
print("  " + ", ".join(line for line in globals().get("metrics", "").splitlines() if line.startswith("twintrack_batch")))
PYTHON
    grep -E "prepared|latency|WARN|ERROR" "$out/serve.log" | head -4 || true
    rm -f "$out/serve.jsonl"
done
