#!/usr/bin/env bash
# Writes the _pb2.py beside each .proto of the package, and its stub, anew.
# An old generator on purpose: code of protoc 25 loads in every protobuf from 4.25 on, code of a newer protoc only in its own version and the next.
set -euo pipefail
cd "$(dirname "$0")/.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
python3 -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet 'grpcio-tools==1.62.3' 'setuptools<80'
"$scratch/venv/bin/python" -m grpc_tools.protoc -I. --python_out=. --pyi_out=. \
  detpipe/*/*.proto detpipe/backbone/caffe/*.proto
