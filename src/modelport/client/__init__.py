"""Calls to servers: what is said is in :mod:`.flows` and :mod:`.dialects`, without waiting.

:mod:`.bentoml` has the clients that people use, blocking and asynchronous, :mod:`.transports` the
connections under them, :mod:`.v2` what the command line needs of V2.
"""
