#!/usr/bin/env bash
# Checks deploy/kubernetes against the schemas of Kubernetes, and what the compose files refer to.
# `make setup-test` installs what it needs; overlays are rendered if kubectl or kustomize is there.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=.deps/deploy/bin
if [ ! -x $tools/kubernetes-validate ]; then
  echo "check_deploy: SKIPPED, kubernetes-validate is not installed (make setup-test)"; exit 0
fi
$tools/python scripts/check_compose.py compose.yaml compose.fleet.yaml
rendered=$(mktemp); trap 'rm -f "$rendered"' EXIT
for directory in deploy/kubernetes/base deploy/kubernetes/overlays/*; do
  if command -v kustomize >/dev/null; then kustomize build "$directory" > "$rendered"
  elif command -v kubectl >/dev/null; then kubectl kustomize "$directory" > "$rendered"
  elif [ "$directory" = deploy/kubernetes/base ]; then
    echo "check_deploy: neither kustomize nor kubectl is there; overlays are not checked"
    for file in "$directory"/*.yaml; do
      case $file in */kustomization.yaml) ;; *) printf -- '---\n'; cat "$file" ;; esac
    done > "$rendered"
  else continue
  fi
  $tools/kubernetes-validate --strict --quiet "$rendered"
  echo "check_deploy: $directory is valid"
done
