"""Requests over pooled connections, blocking and on asyncio; what they share is :mod:`.common`."""
