#!/usr/bin/env bash
# Compares the library's interface with that of the last release (cargo semver-checks must be installed):
# fails if the version number is too small for what changed. semver.sh REVISION compares with another
# revision.
set -euo pipefail
cd "$(dirname "$0")/.."
baseline="${1:-$(git describe --tags --abbrev=0 --match 'v*' HEAD^ 2>/dev/null || true)}"
if [ -z "$baseline" ]; then
    echo "semver: no earlier release; nothing to compare with"
    exit 0
fi
# Without features, and with those of the library; programs have no interface.
cargo semver-checks --baseline-rev "$baseline" --only-explicit-features
cargo semver-checks --baseline-rev "$baseline" --only-explicit-features --features serve,models
