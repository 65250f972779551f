#!/usr/bin/env python3
"""A fleet under faults: three NATS servers and six workers, each in a network namespace of its own.

    scripts/fleet_soak.py [--cameras 60] [--workers 6] [--faults kill,stop,...] [--keep DIR]

Needs root (network namespaces), nats-server and ffmpeg; without them it says so and exits with 0,
or with 1 if --require is given. Faults come one after another; after each the fleet must be whole
and balanced again. Then the whole stream is read: no acknowledged event may be missing, none may be
stored twice, and no event of a camera may have been made under an older lease after the first one
of a newer lease. Limits that are broken are printed, and the exit code is 1.

The file has the faults and the limits; fleet_soak_net.py the namespaces and processes,
fleet_soak_stream.py the reading of the stream.
"""
import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True  # the modules beside this file
from fleet_soak_net import Network, Process, Site
from fleet_soak_stream import Monitor, Stream, judge, quantile

HERE = Path(__file__).resolve().parent.parent
FAULT_SECONDS = 30
CALM_SECONDS = 30
# Limits of the issue: seconds, and share of the mean.
TAKEOVER_P95 = 10.0
IMBALANCE = 0.15


def missing():
    """What this machine lacks."""
    lacks = [] if os.geteuid() == 0 else ["root, for network namespaces"]
    lacks += [tool for tool in ("ip", "ffmpeg") if not shutil.which(tool)]
    return lacks


class Fleet:
    """The servers, the workers, and what happened when."""

    def __init__(self, options, directory):
        self.options, self.dir = options, directory
        self.net = Network()
        self.servers, self.workers, self.phases = {}, {}, []
        self.monitors = []
        self.program = options.program

    # --- start -------------------------------------------------------------------------------
    def start(self):
        sites = [Site(f"n{i}", f"10.77.0.{10 + i}") for i in (1, 2, 3)]
        sites += [Site(f"w{i}", f"10.77.0.{20 + i}") for i in range(1, self.options.workers + 1)]
        self.net.create(sites)
        self.url = ",".join(f"nats://{s.address}:4222" for s in sites[:3])
        for site in sites[:3]:
            self.servers[site.name] = Process(site, self.server_command(site), self.dir)
            self.servers[site.name].start()
        self.monitors = [Monitor(s.address) for s in sites[:3]]
        self.until(60, "the servers elect a leader", lambda: self.stream("n1").has_leader())
        self.clip()
        self.apply_cameras()
        for site in sites[3:]:
            self.workers[site.name] = Process(site, self.worker_command(site), self.dir)
            self.workers[site.name].start()
        self.until(120, "all cameras have workers", lambda: self.is_whole())
        self.phase("start")
        self.balanced()

    def server_command(self, site):
        config = self.dir / f"{site.name}.conf"
        routes = ", ".join(f'"nats://10.77.0.{10 + i}:6222"' for i in (1, 2, 3))
        config.write_text(
            f'server_name: {site.name}\nlisten: "0.0.0.0:4222"\n'
            f'jetstream {{ store_dir: "{self.dir / site.name}", max_file: 2G }}\n'
            f'cluster {{ name: soak, listen: "0.0.0.0:6222", routes: [{routes}] }}\n'
        )
        return [self.options.nats_server, "-c", str(config)]

    def worker_command(self, site):
        config, state = self.dir / f"{site.name}.toml", self.dir / f"{site.name}.state"
        state.mkdir(exist_ok=True)
        if site.name == "w6":  # a small disk, to be filled
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", state], check=True)
            self.net.mounts.append(state)
        config.write_text(
            f'[fleet]\nnats = "{self.url}"\nname = "{site.name}"\ncapacity = 60.0\n'
            f"replicas = 3\n[serve]\nlisten = \"\"\nstate_dir = \"{state}\"\n"
            "[detector]\nlongest_side = 160\n[embedder]\nenabled = false\n"
            "[tracker.camera_motion]\nfrom_pixels = false\n"
        )
        output = self.dir / f"{site.name}.jsonl"
        return [self.program, "serve", "-v", "--output", str(output), "--config", str(config)]

    def clip(self):
        """The sample clip, small and at a low rate, so that decoding costs little."""
        rate = self.options.rate
        subprocess.run(
            ["ffmpeg", "-v", "error", "-y", "-i", HERE / "samples/pets2009-s2l1.mp4", "-vf",
             f"fps={rate},scale=192:-2", "-g", "8", "-pix_fmt", "yuv420p", self.dir / "clip.mp4"],
            check=True,
        )

    def apply_cameras(self):
        cameras = self.dir / "cameras.toml"
        section = '[cameras.c{}]\nurl = "{}"\nrepeat = true\ntarget_fps = {}\n'
        clip, rate = self.dir / "clip.mp4", self.options.rate
        sections = (section.format(n, clip, rate) for n in range(self.options.cameras))
        cameras.write_text("".join(sections))
        # The first command creates the buckets, which `replicas` of the workers' files governs.
        config = self.dir / "first.toml"
        config.write_text(f'[fleet]\nnats = "{self.url}"\nreplicas = 3\n')
        self.fleet("--config", str(config), "apply", str(cameras))

    # --- the fleet's state -------------------------------------------------------------------
    def fleet(self, *arguments):
        command = [self.program, "fleet", "--nats", self.url, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr}")
        return done.stdout

    def status(self):
        """The workers' reports; none if the fleet does not answer."""
        try:
            return json.loads(self.fleet("status", "--json"))["workers"]
        except (RuntimeError, subprocess.TimeoutExpired, ValueError):
            return []

    def held(self):
        """Number of cameras by worker."""
        return {w["name"]: len(w["cameras"]) for w in self.status()}

    def is_whole(self, but=()):
        """Every camera has a worker, and all workers are there, except those of `but`."""
        held = self.held()
        names = set(self.workers) - set(but)
        return set(held) == names and sum(held.values()) == self.options.cameras

    def imbalance(self):
        """The load of the busiest worker, as a share of its capacity, relative to that of the
        whole fleet, less one; as `fleet::assignment::imbalance`. Infinite while the fleet is not
        whole."""
        workers, unknown = self.status(), self.options.rate
        held = sum(len(w["cameras"]) for w in workers)
        if {w["name"] for w in workers} != set(self.workers) or held != self.options.cameras:
            return math.inf
        loads = [sum(c["rate"] or unknown for c in w["cameras"].values()) for w in workers]
        capacities = [w["capacity"] for w in workers]
        mean = sum(loads) / sum(capacities)
        return max(load / capacity for load, capacity in zip(loads, capacities)) / mean - 1

    def stream(self, server):
        return Stream(self.servers[server].site.address)

    def until(self, seconds, what, condition, hold=0):
        """Waits until a condition has held for `hold` seconds. Returns after how many seconds it
        began to."""
        start, since = time.time(), None
        while time.time() - start < seconds:
            since = (since or time.time()) if condition() else None
            if since and time.time() - since >= hold:
                return since - start
            time.sleep(0.5)
        raise RuntimeError(f"not within {seconds} s: {what} ({self.held()})")

    # --- the course of a fault ---------------------------------------------------------------
    def phase(self, name):
        self.phases.append({"name": name, "from": time.time()})
        print(f"{time.strftime('%H:%M:%S')}  {name}  {self.held()}", flush=True)

    def balanced(self):
        """Waits until the load is balanced, within the minutes that bounded moves need; then 30 s
        of calm, and measures again."""
        phase = self.phases[-1]
        # A server that was cut off answers with what it knew, until it has caught up.
        phase["balanced"] = self.until(
            400, "the load is balanced", lambda: self.imbalance() <= IMBALANCE, hold=10
        )
        time.sleep(CALM_SECONDS)
        # A camera that changes hands at this moment has no worker.
        self.until(10, "all cameras have workers", lambda: self.imbalance() < math.inf)
        phase["imbalance"] = self.imbalance()
        print("          " + ", ".join(
            f"{w['name']} {len(w['cameras'])} of {w['capacity']:.0f}/s" for w in self.status()))

    def back(self, name):
        self.phase(f"{name}, return")
        self.balanced()

    def kill(self):
        self.phase("kill -9 a worker")
        self.workers["w1"].signal("KILL")
        self.until(60, "others have its cameras", lambda: self.is_whole(["w1"]))
        time.sleep(5)
        self.workers["w1"].start()
        self.back("kill -9 a worker")

    def stop(self):
        self.phase("SIGSTOP for 30 s")
        self.workers["w2"].signal("STOP")
        time.sleep(FAULT_SECONDS)
        self.workers["w2"].signal("CONT")
        self.back("SIGSTOP for 30 s")

    def cut(self):
        self.phase("a worker's network cut for 30 s")
        self.net.link(self.workers["w3"].site, up=False)
        time.sleep(FAULT_SECONDS)
        self.net.link(self.workers["w3"].site, up=True)
        self.back("a worker's network cut for 30 s")

    def leader(self):
        leader = self.stream("n1").leader("KV_twintrack-workers")
        self.phase("kill -9 the leader of a stream")
        self.servers[leader].signal("KILL")
        time.sleep(FAULT_SECONDS)
        self.servers[leader].start()
        self.back("kill -9 the leader of a stream")

    def hang(self):
        """A server that answers nothing: the leader of the stream, stopped."""
        leader = self.stream("n1").leader("KV_twintrack-workers")
        self.phase("SIGSTOP of the leader for 30 s")
        self.servers[leader].signal("STOP")
        time.sleep(FAULT_SECONDS)
        self.servers[leader].signal("CONT")
        self.back("SIGSTOP of the leader for 30 s")

    def partition(self):
        """The worst case: the coordinator and the leader of the reports' stream are on the side of
        the minority, with another worker."""
        workers = "KV_twintrack-workers"
        leader = self.stream("n1").leader(workers)
        name = self.stream("n1").last(workers, "$KV.twintrack-workers.coordinator")
        coordinator = name.rsplit("-", 1)[0]
        other = next(name for name in self.workers if name != coordinator)
        self.phase("partition for 30 s")
        minority = [self.servers[leader].site, self.workers[coordinator].site,
                    self.workers[other].site]
        self.net.part(minority)
        time.sleep(FAULT_SECONDS)
        self.net.join(minority)
        self.back("partition for 30 s")

    def disk(self):
        self.phase("a worker's disk full for 30 s")
        filler = self.dir / "w6.state" / "filler"
        with open(filler, "wb") as file:
            try:
                while True:
                    file.write(bytes(65536))
                    file.flush()
            except OSError:
                pass
        # Events that cannot be delivered for a moment, when there is no space for them.
        time.sleep(FAULT_SECONDS / 2)
        self.net.link(self.workers["w6"].site, up=False)
        time.sleep(3)
        self.net.link(self.workers["w6"].site, up=True)
        time.sleep(FAULT_SECONDS / 2 - 3)
        filler.unlink()
        self.back("a worker's disk full for 30 s")

    def roll(self):
        self.phase("all workers restarted, one by one")
        for name, worker in self.workers.items():
            worker.signal("TERM")
            code = worker.wait(60)
            if code != 0:
                raise RuntimeError(f"{name} ended with {code}")
            worker.start()
            self.until(120, f"{name} is back", lambda: self.is_whole())
        self.back("all workers restarted, one by one")

    def finish(self):
        """Stops the workers in order, and returns the events of the stream."""
        self.phase("end")
        for worker in self.workers.values():
            worker.signal("TERM")
        codes = {name: worker.wait(60) for name, worker in self.workers.items()}
        events = self.stream("n1").read("twintrack-events")
        return events, codes


FAULTS = ["kill", "stop", "cut", "leader", "hang", "partition", "disk", "roll"]


def report(fleet, found, codes):
    """Prints what was found. Returns the limits that are broken."""
    broken = []
    print(f"\n{'phase':44}{'handed over':>12}{'p50 s':>8}{'p95 s':>8}{'max s':>8}"
          f"{'late':>7}{'lost':>6}{'balanced s':>12}{'imbalance':>11}")
    for phase in fleet.phases:
        gaps = phase["gaps"]
        numbers = [f"{quantile(gaps, q):8.1f}" if gaps else f"{'-':>8}" for q in (0.5, 0.95, 1.0)]
        balanced = f"{phase['balanced']:12.0f}" if "balanced" in phase else f"{'-':>12}"
        share = f"{100 * phase['imbalance']:9.0f} %" if "imbalance" in phase else f"{'-':>11}"
        print(f"{phase['name']:44}{len(gaps):12}{''.join(numbers)}{phase['late']:7}"
              f"{phase['gone']:6}{balanced}{share}")
        # After a partition, JetStream may have no leader for longer than a lease; the workers stop
        # their cameras until it has. That is no takeover from a lost worker.
        is_fault = not phase["name"].endswith(", return")
        if gaps and is_fault and quantile(gaps, 0.95) > TAKEOVER_P95:
            broken.append(f"{phase['name']}: takeover p95 {quantile(gaps, 0.95):.1f} s")
        if phase.get("imbalance", 0) > IMBALANCE:
            broken.append(f"{phase['name']}: imbalance {phase['imbalance']:.2f}")
    gaps = [gap for phase in fleet.phases for gap in phase["gaps"]]
    p95 = quantile(gaps, 0.95)
    if p95 > TAKEOVER_P95:
        broken.append(f"takeover p95 {p95:.1f} s")
    print(f"\n{found['events']} events of {found['cameras']} cameras, {found['acknowledged']} "
          f"acknowledgements seen; {len(gaps)} takeovers, p95 {p95:.1f} s")
    print(f"acknowledged and lost {len(found['lost'])}, stored twice {len(found['doubled'])}, made "
          f"under an older lease after a newer one {len(found['interleaved'])}, without a lease "
          f"{found['without']}")
    print(f"stored after a newer lease's event, which consumers drop (late): {found['late']}; "
          f"numbers missing between two events of a lease, never acknowledged (lost): "
          f"{found['gone']}")
    for key in ("lost", "doubled", "interleaved"):
        if found[key]:
            broken.append(f"{key}: {len(found[key])}, such as {found[key][:3]}")
    if found["without"]:
        broken.append(f"events without a lease: {found['without']}")
    if not gaps:
        broken.append("no camera was taken over")
    if found["cameras"] != fleet.options.cameras:
        broken.append(f"events of {found['cameras']} cameras only")
    if any(codes.values()):
        broken.append(f"exit codes {codes}")
    return broken


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cameras", type=int, default=60)
    parser.add_argument("--workers", type=int, default=6)
    parser.add_argument("--rate", type=float, default=1.0, help="frames per second of a camera")
    parser.add_argument("--faults", default=",".join(FAULTS), help="in their order")
    parser.add_argument("--program", default=str(HERE / "target/release/twintrack"))
    parser.add_argument("--nats-server", default=shutil.which("nats-server") or "/usr/sbin/nats-server")
    parser.add_argument("--keep", type=Path, help="keep logs and data in this new directory")
    parser.add_argument("--require", action="store_true", help="fail if something is missing")
    options = parser.parse_args()
    lacks = missing() + [f for f in (options.nats_server, options.program) if not Path(f).exists()]
    if lacks:
        print(f"fleet_soak is SKIPPED, because this machine lacks {', '.join(lacks)}")
        return int(options.require)
    directory = options.keep or Path(tempfile.mkdtemp(prefix="fleet-soak-"))
    directory.mkdir(exist_ok=True)
    fleet = Fleet(options, directory.resolve())
    try:
        fleet.start()
        failed = []
        for fault in options.faults.split(","):
            try:
                getattr(fleet, fault)()
            except RuntimeError as error:
                failed.append(f"{fleet.phases[-1]['name']}: {error}")
                print(failed[-1], flush=True)
        events, codes = fleet.finish()
        acknowledged = set().union(*(m.acknowledged() for m in fleet.monitors))
        found = judge(events, acknowledged, fleet.phases)
        broken = failed + report(fleet, found, codes)
    finally:
        for process in [*fleet.workers.values(), *fleet.servers.values()]:
            process.end()
        fleet.net.remove()
        if not options.keep:
            shutil.rmtree(directory, ignore_errors=True)
    for limit in broken:
        print(f"BROKEN: {limit}")
    return int(bool(broken))


if __name__ == "__main__":
    sys.exit(main())
