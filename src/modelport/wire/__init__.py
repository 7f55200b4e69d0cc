"""Bytes ⇄ messages, in both directions, for server and client: no socket, no clock, no model.

HTTP/1.1 is :mod:`.http` and :mod:`.http_response`, HTTP/2 :mod:`.http2`, gRPC :mod:`.grpc`. Files
are called after the protocol whose bodies they read and write; configurations of models are
:mod:`.model_config`.
"""
