"""Where a worker process begins: as light as can be, because all of it is waited for.

The first thing it sees to is that it will not outlive its server: the kernel kills it when the
thread that started it ends, however that comes about, and it looks whether that has happened
already. (Besides, it ends when its sockets are closed.)
"""

import ctypes
import importlib
import os
import signal
import sys

__all__ = ["main"]

PR_SET_NAME = 15
PR_SET_PDEATHSIG = 1


def main(arguments: list[str]) -> None:
    """Serve the instance that the server asks for, and end with it."""
    parent, fds, packages, title = arguments
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(PR_SET_NAME, title.encode()[:15], 0, 0, 0)
    if os.getppid() != int(parent):
        os._exit(1)
    for number in (signal.SIGINT, signal.SIGTERM):
        # These are sent to all processes of a terminal or service; the server says when it is over.
        signal.signal(number, lambda _number, _frame: None)
    # We come from where the server does. What we need, and the model, come from the interpreter's
    # own packages, which may be those of an environment that the model brings along.
    ours, *others = packages.split(os.pathsep)
    sys.path.insert(0, ours)
    importlib.import_module("modelport")
    del sys.path[0]
    sys.path += [path for path in (ours, *others) if path not in sys.path]

    from modelport.runtimes.worker.serving import Worker

    Worker(*map(int, fds.split(","))).run()


if __name__ == "__main__":
    main(sys.argv[1:])
