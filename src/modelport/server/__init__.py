"""Sockets and processes: the listeners, the door, the settings, and who is put together with whom.

Composition is :mod:`.build` and nothing else. HTTP/1.1 is :mod:`.http`, HTTP/2 :mod:`.http2`, gRPC
on top of it :mod:`.grpc`. Settings stand once, in :mod:`.settings`, and are read by :mod:`.config`.
"""
