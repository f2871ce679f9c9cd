#!/usr/bin/env bash
# Resolves every dependency once for Python 3.11 to 3.13 and writes hashed requirement files without any index address, so that a mirror serves as well
# (docs/decisions/0001-hashed-requirements.md). run.txt is the whole mesh; <service>.txt is what one service needs alone, at the same versions.
# UPGRADE=--upgrade takes newer versions.
set -euo pipefail
cd "$(dirname "$0")/.."
omit=()
for name in protos events kit cli gateway inference redaction moderation feedback cost quality drift fairness insight console probes; do omit+=(--no-emit-package "sluice-$name"); done
compile() {
  uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --custom-compile-command "make lock" ${UPGRADE:-} "${omit[@]}" "$@"
}
services=(services/[a-z]*/pyproject.toml)

compile requirements/uv.in -o requirements/uv.txt
compile requirements/go.in -o requirements/go.txt
compile requirements/build.in protos/pyproject.toml services/_events/pyproject.toml services/_kit/pyproject.toml services/_cli/pyproject.toml "${services[@]}" --extra embedded --extra rocksdb -o requirements/run.txt
compile requirements/dev.in -c requirements/run.txt -o requirements/dev.txt
compile requirements/bench.in -c requirements/run.txt -o requirements/bench.txt
compile requirements/bench-quix.in -o requirements/bench-quix.txt
compile requirements/bench-drift.in -o requirements/bench-drift.txt
for service in "${services[@]}"; do
  # What a setting can ask of a service is in its image.
  extras=()
  for extra in rocksdb columns; do grep -q "^$extra = " "$service" && extras+=(--extra "$extra"); done
  compile requirements/build.in protos/pyproject.toml services/_events/pyproject.toml services/_kit/pyproject.toml "$service" ${extras[@]+"${extras[@]}"} -c requirements/run.txt -o "requirements/$(basename "$(dirname "$service")").txt"
done
