"""Decode, ask the engine, encode: one package for each protocol, which know no socket.

What a handler is given is in :mod:`.base`. No package imports another one, but for :mod:`.v2`, of
which V2 over REST and over gRPC are made.
"""
