"""Which processes share a file of tasks, and which of them have ended.

A process of this host is alive if its process id has the start time that it had; one of another
host until it has not been seen for a day. So nobody has to wait for the leases of a process that
was killed here.
"""

import os
import socket
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

__all__ = ["Workers"]

SEEN_EVERY_S: Final = 3600.0
FORGOTTEN_AFTER_S: Final = 86_400.0
"""Without a sign of life a process of another host is taken for gone, as far as files go."""


class Workers:
    """The table of processes, as one of them keeps it. Used on the thread of the database.

    Args:
        own_id: Of this process.
        now_s: The time of day, in seconds since 1970.
    """

    def __init__(self, own_id: str, now_s: Callable[[], float]) -> None:
        self._own_id = own_id
        self._now_s = now_s

    def register(self, connection: sqlite3.Connection) -> None:
        """Say that this process is there."""
        process = os.getpid()
        connection.execute(
            "INSERT OR REPLACE INTO workers VALUES (?, ?, ?, ?, ?)",
            (self._own_id, _host(), process, _started(process), self._now_s()),
        )

    def stay_known(self, connection: sqlite3.Connection) -> None:
        """Say so again, where that was long ago or has been forgotten."""
        seen = connection.execute(
            "SELECT seen_s FROM workers WHERE id = ?", (self._own_id,)
        ).fetchone()
        if seen is None or seen["seen_s"] < self._now_s() - SEEN_EVERY_S:
            self.register(connection)

    def forget_dead(self, connection: sqlite3.Connection) -> list[str]:
        """Take those out of the table that have ended, and give their ids."""
        gone = []
        for row in connection.execute("SELECT * FROM workers").fetchall():
            if row["host"] == _host() and row["process_started"]:
                is_gone = _started(row["process"]) != row["process_started"]
            else:
                is_gone = row["seen_s"] < self._now_s() - FORGOTTEN_AFTER_S
            if is_gone:
                gone.append(row["id"])
                connection.execute("DELETE FROM workers WHERE id = ?", (row["id"],))
        return gone


def _host() -> str:
    """Name this host, and on it what sees the same process ids: containers may share a name."""
    try:
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        space = ""
    return f"{socket.gethostname()} {space}"


def _started(process: int) -> str:
    """When a process of this host was started, in words of the system; "" if it does not run.

    A process id is used again sooner or later, but not with the same start.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{boot} {fields[19]}"
