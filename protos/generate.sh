#!/usr/bin/env bash
# Regenerates gen/ from the protos. `make check` fails when gen/ is out of step.
# grpc_tools, not `buf generate`: buf cannot drive the grpc_python plugin.
set -euo pipefail
cd "$(dirname "$0")"
out=${1:-gen}
rm -rf "$out/sluice"
mkdir -p "$out"
find sluice -name '*.proto' | LC_ALL=C sort | xargs python -m grpc_tools.protoc -I . \
  --python_out="$out" --grpc_python_out="$out" --mypy_out="quiet:$out" --mypy_grpc_out="quiet:$out"
# Packages without a service get an empty *_pb2_grpc.py that nobody needs.
find "$out/sluice/types" "$out/sluice/events" -name '*_pb2_grpc.py*' -delete
touch "$out/sluice/py.typed"
