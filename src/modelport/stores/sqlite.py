"""One SQLite file that several processes may share: its writer thread, and how it is kept safe.

All statements run on one thread. Whatever has been asked for while a commit was under way goes into
the next transaction together (group commit), so a hundred callers wait for one flush of the disk
and not for a hundred; each still has a savepoint of its own, and fails alone.

``synchronous=FULL``: when a future is done, what it promises is on disk.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

from modelport.errors import Unavailable
from modelport.stores.base import unwritable

__all__ = ["Database"]

BUSY_TIMEOUT_S = 30.0
"""How long to wait while another process writes."""
MOST_TOGETHER = 256
"""Calls that share one transaction at the most."""

T = TypeVar("T")
Statement = Callable[[sqlite3.Connection], Any]

log = logging.getLogger("modelport.stores")


class Database:
    """A SQLite file and the one thread that speaks to it.

    Args:
        path: Made with its folder, readable for this user alone, if it is not there.
        schema: Statements that make everything in a new file.
        version: Of the schema, from 1; noted in the file.

    Raises:
        sqlite3.Error: If the file cannot be opened, is no database, or has another schema.
    """

    def __init__(self, path: Path, schema: str, version: int) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.touch(mode=0o600, exist_ok=True)
        self._path = path
        self._calls: SimpleQueue[tuple[Statement, Future[Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._is_closed = False
        connection = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            _begin_wal(connection)
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("PRAGMA foreign_keys=ON")
            _prepare(connection, schema, version)
        except BaseException:
            connection.close()
            raise
        connection.row_factory = sqlite3.Row
        self._connection = connection
        self._thread = threading.Thread(target=self._run, name=f"store {path.name}", daemon=True)
        self._thread.start()

    def __repr__(self) -> str:
        return f"<Database {self._path.name}{' closed' if self._is_closed else ''}>"

    def call(self, statement: Callable[[sqlite3.Connection], T]) -> "Future[T]":
        """Run ``statement`` in a transaction; the future is done once it is committed.

        The future fails with what ``statement`` raises, and nothing of it stays then; what SQLite
        raises comes as :class:`~modelport.errors.Unavailable`.

        Raises:
            Unavailable: It is closed.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                raise Unavailable("the server is going down and takes no more tasks")
            self._calls.put((statement, future))
        return future

    def close(self) -> None:
        """Finish what was asked for, then close the file. Idempotent."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._calls.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            is_open = True
            while is_open:
                group = []
                call = self._calls.get()
                while call is not None:
                    # Whoever asked may have given up while it waited.
                    if call[1].set_running_or_notify_cancel():
                        group.append(call)
                    if len(group) == MOST_TOGETHER or self._calls.empty():
                        break
                    call = self._calls.get()
                is_open = call is not None
                if group:
                    self._commit(group)
                # Else what was given last lives until the next call.
                del group, call
        finally:
            self._connection.close()

    def _commit(self, group: Sequence[tuple[Statement, "Future[Any]"]]) -> None:
        connection = self._connection
        done: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            connection.execute("BEGIN IMMEDIATE")
            for statement, future in group:
                connection.execute("SAVEPOINT one")
                try:
                    result, error = statement(connection), None
                except BaseException as exc:
                    result, error = None, _translated(exc)
                    connection.execute("ROLLBACK TO one")
                connection.execute("RELEASE one")
                done.append((future, result, error))
            connection.execute("COMMIT")
        except sqlite3.Error as exc:
            # A full disk, say: nobody was promised anything yet.
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            for _, future in group:
                future.set_exception(_translated(exc))
            return
        for future, result, error in done:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)


def _translated(exc: BaseException) -> BaseException:
    if not isinstance(exc, sqlite3.Error):
        return exc
    log.error("the store could not be written: %s", exc)
    code = getattr(exc, "sqlite_errorcode", None)
    error = unwritable(is_full=code == sqlite3.SQLITE_FULL)
    error.__cause__ = exc
    return error


def _begin_wal(connection: sqlite3.Connection) -> None:
    """Turn to the write-ahead log; SQLite does not wait for others that do so just now."""
    until_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.01)
        else:
            return


def _prepare(connection: sqlite3.Connection, schema: str, version: int) -> None:
    connection.execute("BEGIN IMMEDIATE")
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if found != version and (found or tables):
        connection.execute("ROLLBACK")
        raise sqlite3.DatabaseError(
            f"it was written by another version of Modelport (its schema is {found}, "
            f"this one's {version})"
        )
    if not found:
        # executescript would commit first, and two processes may be here at once.
        for statement in _statements(schema):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version={version:d}")
    connection.execute("COMMIT")


def _statements(script: str) -> Sequence[str]:
    statements, so_far = [], ""
    for line in script.splitlines(keepends=True):
        so_far += line
        if sqlite3.complete_statement(so_far):
            statements.append(so_far)
            so_far = ""
    return statements
