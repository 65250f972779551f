#!/usr/bin/env python3
"""Serving several cameras: frames per second of files played as fast as possible, or latency and memory per minute
of files played as cameras. Uses the standard library only; the clip is cut with ffmpeg.
    scripts/bench_cameras.py throughput CAMERAS    scripts/bench_cameras.py live CAMERAS SECONDS"""
import collections
import datetime
import json
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

root = pathlib.Path(__file__).parent.parent
mode, cameras = sys.argv[1], int(sys.argv[2])
seconds = float(sys.argv[3]) if mode == "live" else float("inf")
with tempfile.TemporaryDirectory() as folder:
    clip = root / "samples/pets2009-s2l1.mp4"
    if mode == "throughput":
        short = pathlib.Path(folder, "clip.mp4")
        subprocess.run(["ffmpeg", "-v", "error", "-i", clip, "-t", "12", "-c", "copy", short], check=True)
        clip = short
    how = "repeat = true" if mode == "live" else "realtime = false"
    sections = [f'[cameras.c{i}]\nurl = "{clip.resolve()}"\n{how}\n' for i in range(cameras)]
    config = pathlib.Path(folder, "cameras.toml")
    config.write_text('[serve]\nlisten = ""\n[detector]\nsize = "416x320"\n' + "".join(sections))
    start, asked, frames = time.time(), False, 0
    program = subprocess.Popen([root / "target/release/twintrack", "serve", "--config", config], stdout=subprocess.PIPE, text=True)
    latencies, memory = collections.defaultdict(list), collections.defaultdict(float)
    for line in program.stdout:
        if '"twintrack.trajectory/1"' not in line[:60]:
            continue
        now, frames = time.time(), frames + 1
        minute = int((now - start) // 60) + 1
        if mode == "live":
            at = datetime.datetime.fromisoformat(json.loads(line)["time"].replace("Z", "+00:00")).timestamp()
            latencies[minute].append(1000 * (now - at))
            if frames % 50 == 0:
                status = pathlib.Path(f"/proc/{program.pid}/status").read_text()
                memory[minute] = max(memory[minute], int(status.split("VmRSS:")[1].split()[0]) / 1024)
        if now - start > seconds and not asked:
            program.send_signal(signal.SIGINT)
            asked = True
    program.wait()
    print(f"{cameras} cameras: {frames} frames, {frames / (time.time() - start):.1f} frames/s")
    for minute, ms in latencies.items():
        ms.sort()
        print(f"minute {minute}: {len(ms)} frames, latency {ms[len(ms) // 2]:.1f} ms (median) {ms[int(0.95 * len(ms))]:.1f} ms (p95), memory {memory[minute]:.0f} MB")
