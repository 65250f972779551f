#!/usr/bin/env bash
# Packs the built programs with their models, configurations and ONNX Runtime, and writes an SBOM.
#   scripts/archive.sh TARGET VERSION      into out/release
set -euo pipefail
cd "$(dirname "$0")/.."
target=${1:?target, e.g. x86_64-unknown-linux-gnu} version=${2:?version, e.g. v0.1.0}
name=twintrack-$version-$target
folder=out/release/$name
rm -rf "$folder"; mkdir -p "$folder"/{lib,models,completions,man}
for program in twintrack twintrack-train; do
  [ ! -x "target/release/$program" ] || cp "target/release/$program" "$folder/"
done
cp -L .deps/onnxruntime/libonnxruntime.so "$folder/lib/"
cp models/*.onnx models/README.md models/catalogue.toml "$folder/models/"
cp -r configs LICENSE README.md CHANGELOG.md scripts/twintrack.service "$folder/"
for shell in bash fish zsh; do
  "target/release/twintrack" completions $shell > "$folder/completions/twintrack.$shell"
done
target/release/twintrack manual > "$folder/man/twintrack.1"
# Software bill of materials (CycloneDX), from the crates that are linked.
command -v cargo-cyclonedx >/dev/null || cargo install --locked --quiet cargo-cyclonedx
cargo cyclonedx --format json --override-filename twintrack.cdx >/dev/null
mv twintrack.cdx.json "out/release/$name.cdx.json"
tar -C out/release -czf "out/release/$name.tar.gz" "$name"
rm -rf "$folder"
echo "out/release/$name.tar.gz"
