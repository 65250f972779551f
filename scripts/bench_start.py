#!/usr/bin/env python3
"""Time from the command `twintrack track VIDEO` to its first line of JSON, seconds.

    scripts/bench_start.py PROGRAM VIDEO ... [--rounds 7]
Videos alternate; the first round, which reads files from the disk, is not counted.
"""
import argparse
import statistics
import subprocess
import time

parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
)
parser.add_argument("program")
parser.add_argument("videos", nargs="+")
parser.add_argument("--rounds", type=int, default=7)
arguments = parser.parse_args()


def first_line(video):
    command = [arguments.program, "track", video, "--quiet"]
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as program:
        line = program.stdout.readline()
        took = time.perf_counter() - start
        program.kill()
        if not line.startswith(b"{"):
            raise SystemExit(f"{video}: {program.stderr.read().decode()}")
    return took


times = {video: [] for video in arguments.videos}
for counted in range(-1, arguments.rounds):
    for video, all_times in times.items():
        took = first_line(video)
        if counted >= 0:
            all_times.append(took)
for video, all_times in times.items():
    median, best, worst = statistics.median(all_times), min(all_times), max(all_times)
    print(f"{video}: median {median:.3f}, {best:.3f} to {worst:.3f}")
