"""Tasks in one SQLite file; see :class:`modelport.stores.base.TaskStore`."""

import json
import os
import secrets
import socket
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path

from modelport.errors import Conflict, NotFound, Overloaded
from modelport.stores.base import (
    Claim,
    Content,
    Heartbeat,
    NewTask,
    Retry,
    Task,
    TaskState,
)
from modelport.stores.sqlite import Database

__all__ = ["SqliteTasks"]

MOST_LISTED = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS tasks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    retry TEXT NOT NULL,
    most_attempts INTEGER NOT NULL,
    idempotency_key TEXT,
    created_s REAL NOT NULL,
    expires_s REAL NOT NULL,
    started_s REAL NOT NULL DEFAULT 0,
    finished_s REAL NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    progress REAL,
    progress_text TEXT NOT NULL DEFAULT '',
    reason TEXT NOT NULL DEFAULT '',
    cancel_requested INTEGER NOT NULL DEFAULT 0,
    worker TEXT,
    lease_s REAL NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS waiting ON tasks (state, endpoint, priority, number);
CREATE INDEX IF NOT EXISTS owned ON tasks (owner, number);
CREATE UNIQUE INDEX IF NOT EXISTS keyed ON tasks (owner, endpoint, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE TABLE IF NOT EXISTS contents (
    task INTEGER NOT NULL REFERENCES tasks (number) ON DELETE CASCADE,
    is_result INTEGER NOT NULL,
    status INTEGER NOT NULL,
    headers TEXT NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (task, is_result)
);
CREATE TABLE IF NOT EXISTS workers (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    process INTEGER NOT NULL,
    process_started TEXT NOT NULL
);
"""


class SqliteTasks:
    """Keeps tasks in one file.

    Args:
        path: Of the file; made if it is not there.
        now_s: The time of day, in seconds since 1970: leases are compared between processes.
        most_queued: Tasks of all owners and endpoints that may wait.
    """

    def __init__(
        self, path: Path, now_s: Callable[[], float], *, most_queued: int = 10_000
    ) -> None:
        self._now_s = now_s
        self._most_queued = most_queued
        self._worker = secrets.token_hex(8)
        self._database = Database(path, _SCHEMA)
        self._database.call(self._register).result()

    def __repr__(self) -> str:
        return f"<SqliteTasks {self._database}>"

    def submit(self, task: NewTask) -> "Future[Task]":
        """See :meth:`modelport.stores.base.TaskStore.submit`."""
        return self._database.call(lambda connection: self._submit(connection, task))

    def claim(self, endpoints: Mapping[str, int], lease_s: float) -> "Future[list[Claim]]":
        """See :meth:`modelport.stores.base.TaskStore.claim`."""
        return self._database.call(lambda connection: self._claim(connection, endpoints, lease_s))

    def heartbeat(
        self, progress: Mapping[str, tuple[float | None, str] | None], lease_s: float
    ) -> "Future[Heartbeat]":
        """See :meth:`modelport.stores.base.TaskStore.heartbeat`."""
        return self._database.call(
            lambda connection: self._heartbeat(connection, progress, lease_s)
        )

    def finish(
        self, task_id: str, state: TaskState, result: Content | None, reason: str = ""
    ) -> "Future[bool]":
        """See :meth:`modelport.stores.base.TaskStore.finish`."""

        def finish(connection: sqlite3.Connection) -> bool:
            row = connection.execute(
                "UPDATE tasks SET state = ?, reason = ?, finished_s = ?, worker = NULL "
                "WHERE id = ? AND worker = ? AND state = 'running' RETURNING number",
                (state, reason, self._now_s(), task_id, self._worker),
            ).fetchone()
            if row is not None and result is not None:
                _write_content(connection, row["number"], True, result)
            return row is not None

        return self._database.call(finish)

    def give_back(self, task_ids: Sequence[str], reason: str) -> "Future[None]":
        """See :meth:`modelport.stores.base.TaskStore.give_back`."""

        def give_back(connection: sqlite3.Connection) -> None:
            for task_id in task_ids:
                rows = connection.execute(
                    "SELECT * FROM tasks WHERE id = ? AND worker = ? AND state = 'running'",
                    (task_id, self._worker),
                ).fetchall()
                self._interrupt(connection, rows, reason)

        return self._database.call(give_back)

    def recover(self) -> "Future[int]":
        """See :meth:`modelport.stores.base.TaskStore.recover`."""
        return self._database.call(self._recover)

    def get(self, owner: str, task_id: str) -> "Future[Task]":
        """See :meth:`modelport.stores.base.TaskStore.get`."""
        return self._database.call(lambda connection: _task(_find(connection, owner, task_id)))

    def result(self, owner: str, task_id: str) -> "Future[tuple[Task, Content | None]]":
        """See :meth:`modelport.stores.base.TaskStore.result`."""

        def result(connection: sqlite3.Connection) -> tuple[Task, Content | None]:
            row = _find(connection, owner, task_id)
            return _task(row), _read_content(connection, row["number"], True)

        return self._database.call(result)

    def request(self, owner: str, task_id: str) -> "Future[tuple[Task, Content]]":
        """See :meth:`modelport.stores.base.TaskStore.request`."""

        def request(connection: sqlite3.Connection) -> tuple[Task, Content]:
            row = _find(connection, owner, task_id)
            return _task(row), _read_content(connection, row["number"], False) or Content()

        return self._database.call(request)

    def owned(
        self,
        owner: str,
        *,
        endpoint: str | None = None,
        states: Sequence[TaskState] = (),
        limit: int = 100,
        before: str | None = None,
    ) -> "Future[list[Task]]":
        """See :meth:`modelport.stores.base.TaskStore.owned`."""

        def listed(connection: sqlite3.Connection) -> list[Task]:
            wanted, values = ["owner = ?"], [owner]
            if endpoint is not None:
                wanted.append("endpoint = ?")
                values.append(endpoint)
            if states:
                wanted.append(f"state IN ({', '.join('?' * len(states))})")
                values += states
            if before is not None:
                wanted.append("number < ?")
                values.append(_find(connection, owner, before)["number"])
            rows = connection.execute(
                f"SELECT * FROM tasks WHERE {' AND '.join(wanted)} ORDER BY number DESC LIMIT ?",
                (*values, min(max(limit, 1), MOST_LISTED)),
            )
            return [_task(row) for row in rows]

        return self._database.call(listed)

    def cancel(self, owner: str, task_id: str) -> "Future[Task]":
        """See :meth:`modelport.stores.base.TaskStore.cancel`."""

        def cancel(connection: sqlite3.Connection) -> Task:
            number = _find(connection, owner, task_id)["number"]
            connection.execute(
                "UPDATE tasks SET state = 'canceled', finished_s = ?, cancel_requested = 1, "
                "reason = 'canceled before it was started' WHERE number = ? AND state = 'queued'",
                (self._now_s(), number),
            )
            connection.execute(
                "UPDATE tasks SET cancel_requested = 1 WHERE number = ? AND state = 'running'",
                (number,),
            )
            return _task(_find(connection, owner, task_id))

        return self._database.call(cancel)

    def counts(self) -> "Future[Mapping[tuple[str, TaskState], int]]":
        """See :meth:`modelport.stores.base.TaskStore.counts`."""

        def counts(connection: sqlite3.Connection) -> Mapping[tuple[str, TaskState], int]:
            rows = connection.execute(
                "SELECT endpoint, state, count(*) AS count FROM tasks GROUP BY endpoint, state"
            )
            return {(row["endpoint"], TaskState(row["state"])): row["count"] for row in rows}

        return self._database.call(counts)

    def prune(self, older_than_s: float) -> "Future[int]":
        """See :meth:`modelport.stores.base.TaskStore.prune`."""

        def prune(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "DELETE FROM tasks WHERE state IN ('completed', 'failed', 'canceled') "
                "AND finished_s < ?",
                (self._now_s() - older_than_s,),
            ).rowcount

        return self._database.call(prune)

    def close(self) -> None:
        """See :meth:`modelport.stores.base.TaskStore.close`."""
        self._database.close()

    def _register(self, connection: sqlite3.Connection) -> None:
        process = os.getpid()
        connection.execute(
            "INSERT INTO workers VALUES (?, ?, ?, ?)",
            (self._worker, socket.gethostname(), process, _started(process)),
        )

    def _submit(self, connection: sqlite3.Connection, task: NewTask) -> Task:
        now_s = self._now_s()
        if task.idempotency_key:
            row = connection.execute(
                "SELECT * FROM tasks WHERE owner = ? AND endpoint = ? AND idempotency_key = ?",
                (task.owner, task.endpoint, task.idempotency_key),
            ).fetchone()
            if row is not None:
                asked = _read_content(connection, row["number"], False)
                if asked is not None and asked.body != task.request.body:
                    raise Conflict(
                        "the idempotency key was used before with another request; use a new key "
                        "for each request"
                    )
                return _task(row)
        (queued,) = connection.execute(
            "SELECT count(*) FROM tasks WHERE state = 'queued'"
        ).fetchone()
        if queued >= self._most_queued:
            raise Overloaded(
                f"{queued} tasks wait already, which is as many as may; try again later",
                retry_after_s=5,
            )
        row = connection.execute(
            "INSERT INTO tasks (id, owner, endpoint, state, priority, retry, most_attempts, "
            "idempotency_key, created_s, expires_s) VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?) "
            "RETURNING *",
            (
                task.id,
                task.owner,
                task.endpoint,
                task.priority,
                task.retry,
                task.most_attempts,
                task.idempotency_key or None,
                now_s,
                now_s + task.expires_s if task.expires_s else 0,
            ),
        ).fetchone()
        _write_content(connection, row["number"], False, task.request)
        return _task(row)

    def _claim(
        self, connection: sqlite3.Connection, endpoints: Mapping[str, int], lease_s: float
    ) -> list[Claim]:
        now_s = self._now_s()
        claims = []
        for endpoint, count in endpoints.items():
            if count <= 0:
                continue
            rows = connection.execute(
                "UPDATE tasks SET state = 'running', worker = ?, lease_s = ?, started_s = ?, "
                "attempts = attempts + 1, progress = NULL, progress_text = '' WHERE number IN "
                "(SELECT number FROM tasks WHERE state = 'queued' AND endpoint = ? "
                "AND (expires_s = 0 OR expires_s > ?) ORDER BY priority, number LIMIT ?) "
                "RETURNING *",
                (self._worker, now_s + lease_s, now_s, endpoint, now_s, count),
            ).fetchall()
            # RETURNING knows no order.
            rows.sort(key=lambda row: (row["priority"], row["number"]))
            for row in rows:
                request = _read_content(connection, row["number"], False) or Content()
                claims.append(Claim(_task(row), request))
        return claims

    def _heartbeat(
        self,
        connection: sqlite3.Connection,
        progress: Mapping[str, tuple[float | None, str] | None],
        lease_s: float,
    ) -> Heartbeat:
        until_s = self._now_s() + lease_s
        cancelled, lost = set(), set()
        for task_id, reported in progress.items():
            row = connection.execute(
                "UPDATE tasks SET lease_s = ? WHERE id = ? AND worker = ? AND state = 'running' "
                "RETURNING number, cancel_requested",
                (until_s, task_id, self._worker),
            ).fetchone()
            if row is None:
                lost.add(task_id)
                continue
            if row["cancel_requested"]:
                cancelled.add(task_id)
            if reported is not None:
                connection.execute(
                    "UPDATE tasks SET progress = ?, progress_text = ? WHERE number = ?",
                    (*reported, row["number"]),
                )
        return Heartbeat(frozenset(cancelled), frozenset(lost))

    def _recover(self, connection: sqlite3.Connection) -> int:
        now_s = self._now_s()
        gone = self._forget_dead_workers(connection)
        rows = connection.execute(
            "SELECT * FROM tasks WHERE state = 'running' AND (lease_s < ? OR worker IN "
            f"({', '.join('?' * len(gone))}))",
            (now_s, *gone),
        ).fetchall()
        self._interrupt(connection, rows, "the server that ran it ended before it did")
        late = connection.execute(
            "UPDATE tasks SET state = 'failed', finished_s = ?, reason = 'expired: it was not "
            "started in time' WHERE state = 'queued' AND expires_s != 0 AND expires_s <= ?",
            (now_s, now_s),
        ).rowcount
        return len(rows) + late

    def _forget_dead_workers(self, connection: sqlite3.Connection) -> list[str]:
        """Find processes of this host that have ended: no need to wait for their leases."""
        gone = []
        host = socket.gethostname()
        for row in connection.execute("SELECT * FROM workers WHERE host = ?", (host,)).fetchall():
            if row["process_started"] and _started(row["process"]) != row["process_started"]:
                gone.append(row["id"])
                connection.execute("DELETE FROM workers WHERE id = ?", (row["id"],))
        return gone

    def _interrupt(
        self, connection: sqlite3.Connection, rows: Iterable[sqlite3.Row], reason: str
    ) -> None:
        for row in rows:
            if row["cancel_requested"]:
                state, words = TaskState.CANCELED, f"canceled; {reason}"
            elif row["retry"] != Retry.ON_INTERRUPT:
                state, words = TaskState.FAILED, f"interrupted: {reason}; it is not run again"
            elif row["attempts"] >= row["most_attempts"]:
                state = TaskState.FAILED
                words = f"interrupted: {reason}; it was started {row['attempts']} times"
            else:
                state, words = TaskState.QUEUED, ""
            connection.execute(
                "UPDATE tasks SET state = ?, reason = ?, finished_s = ?, worker = NULL "
                "WHERE number = ?",
                (state, words, self._now_s() if state.is_over else 0, row["number"]),
            )


def _find(connection: sqlite3.Connection, owner: str, task_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = connection.execute(
        "SELECT * FROM tasks WHERE id = ? AND owner = ?", (task_id, owner)
    ).fetchone()
    if row is None:
        raise NotFound("task_id not found")
    return row


def _task(row: sqlite3.Row) -> Task:
    return Task(
        id=row["id"],
        owner=row["owner"],
        endpoint=row["endpoint"],
        state=TaskState(row["state"]),
        priority=row["priority"],
        retry=Retry(row["retry"]),
        created_s=row["created_s"],
        started_s=row["started_s"],
        finished_s=row["finished_s"],
        attempts=row["attempts"],
        progress=row["progress"],
        progress_text=row["progress_text"],
        reason=row["reason"],
        cancel_requested=bool(row["cancel_requested"]),
    )


def _write_content(
    connection: sqlite3.Connection, number: int, is_result: bool, content: Content
) -> None:
    headers = json.dumps([list(pair) for pair in content.headers])
    connection.execute(
        "INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?, ?)",
        (number, is_result, content.status, headers, content.body),
    )


def _read_content(connection: sqlite3.Connection, number: int, is_result: bool) -> Content | None:
    row = connection.execute(
        "SELECT * FROM contents WHERE task = ? AND is_result = ?", (number, is_result)
    ).fetchone()
    if row is None:
        return None
    headers = tuple((name, value) for name, value in json.loads(row["headers"]))
    return Content(headers, row["body"], row["status"])


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
