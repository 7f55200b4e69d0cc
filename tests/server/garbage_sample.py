"""A server that tells which of its objects only the garbage collector found: ``serve``'s arguments.

SIGUSR1 begins, SIGUSR2 tells.
"""

import gc
import signal
import sys
from collections import Counter
from types import FrameType

from modelport.cli import main


def begin(number: int, frame: FrameType | None) -> None:
    gc.collect()
    gc.garbage.clear()
    gc.set_debug(gc.DEBUG_SAVEALL)
    print("begun\n", end="", flush=True)


def tell(number: int, frame: FrameType | None) -> None:
    gc.collect()
    ours = (type(each) for each in gc.garbage if type(each).__module__.startswith("modelport"))
    names = " ".join(Counter(each.__name__ for each in ours))
    # In one piece: the log is written by a thread of its own.
    print(f"garbage: {names} end\n", end="", flush=True)


signal.signal(signal.SIGUSR1, begin)
signal.signal(signal.SIGUSR2, tell)
sys.exit(main(["serve", *sys.argv[1:]]))
