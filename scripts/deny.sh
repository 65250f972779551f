#!/usr/bin/env bash
# Checks licences, bans and sources of all dependencies, and advisories if their database can be
# reached.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-deny >/dev/null || cargo install cargo-deny --version 0.20.2 --locked --quiet
cargo deny --log-level error check licenses bans sources
if timeout 60 cargo deny --log-level error fetch db >/dev/null 2>&1; then
  cargo deny --log-level error check advisories
else
  echo "deny: the advisory database cannot be reached from here; advisories were not checked"
fi
