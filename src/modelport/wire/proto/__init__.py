"""Messages of gRPC, generated from the ``.proto`` files here by ``tools/generate_proto.sh``."""
