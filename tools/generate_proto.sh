#!/bin/sh
# Generate src/modelport/wire/proto/*_pb2.py and *_pb2.pyi from the .proto files beside them.
#
# protobuf 6.30's compiler, because what it generates loads with every runtime from 6.30 to before 8;
# a newer compiler would shut out the older runtimes that tritonclient's gRPC extra still asks for.
# The compiler is grpcio-tools 1.72, in an environment of its own:
#
#     python -m venv build/protoc && build/protoc/bin/pip install 'grpcio-tools==1.72.*'
#     PROTOC_PYTHON=build/protoc/bin/python tools/generate_proto.sh
set -eu
cd "$(dirname "$0")/.."
python=${PROTOC_PYTHON:-build/protoc/bin/python}
out=src/modelport/wire/proto

"$python" -m grpc_tools.protoc --proto_path="$out" --python_out="$out" --pyi_out="$out" "$out"/*.proto

for generated in "$out"/*_pb2.py; do
    # Our own pool (see pool.py), and imports inside the package.
    sed -i \
        -e 's/^from google.protobuf import descriptor_pool as _descriptor_pool$/from modelport.wire.proto.pool import POOL as _POOL/' \
        -e 's/_descriptor_pool\.Default()/_POOL/' \
        -e 's/^import \([a-z0-9_]*_pb2\) as /from modelport.wire.proto import \1 as /' \
        "$generated"
done
for generated in "$out"/*_pb2.pyi; do
    sed -i -e 's/^import \([a-z0-9_]*_pb2\) as /from modelport.wire.proto import \1 as /' "$generated"
done
