#!/usr/bin/env python3
"""Checks that what compose files refer to exists: services, volumes, and files that are mounted."""
import sys
from pathlib import Path

import yaml


def problems(path):
    """What a compose file refers to and does not have."""
    compose = yaml.safe_load(path.read_text())
    services, volumes = compose["services"], compose.get("volumes", {})
    for name, service in services.items():
        if "image" not in service and "build" not in service:
            yield f"{name} has neither image nor build"
        build = service.get("build")
        if build and not (path.parent / build / "Dockerfile").is_file():
            yield f"{name}: {build} has no Dockerfile"
        for other in service.get("depends_on", []):
            if other not in services:
                yield f"{name} depends on {other}, which is no service"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                if not (path.parent / source).exists():
                    yield f"{name} mounts {source}, which does not exist"
            elif source not in volumes:
                yield f"{name} mounts the volume {source}, which is not declared"
    ports = [port for service in services.values() for port in service.get("ports", [])]
    hosts = [port.rsplit(":", 1)[0] for port in ports]
    if len(set(hosts)) != len(hosts):
        yield f"two services publish the same port: {hosts}"


def main():
    failed = False
    for name in sys.argv[1:]:
        for problem in problems(Path(name)):
            print(f"{name}: {problem}")
            failed = True
        if not failed:
            print(f"check_compose: {name} is consistent")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
