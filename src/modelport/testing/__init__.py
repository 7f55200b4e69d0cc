"""Fakes, a clock and suites for those who test against Modelport, as our own tests do.

:mod:`.runtime_suite` and :mod:`.task_store_suite` hold implementations to their contracts;
:mod:`.memory` runs the handlers of protocols without a socket.
"""
