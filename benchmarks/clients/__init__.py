"""Clients of our own, each a process, for what a load generator cannot see.

The harness starts them through `benchmarks.clients.launch`. They speak HTTP/1.1 on raw
connections, print JSON lines, and stop on SIGTERM where they run without an end.
"""
