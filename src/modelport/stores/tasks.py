"""Tasks in one SQLite file; see :class:`modelport.stores.base.TaskStore`.

What is counted (how many wait, how many bytes are kept) and what follows from an end (the notice to
a webhook) is done by triggers: no way of ending a task can forget it.
"""

import hashlib
import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from modelport.errors import Conflict, NotFound, Overloaded, Unavailable
from modelport.stores.base import (
    Claim,
    Content,
    Heartbeat,
    NewTask,
    Notice,
    Retry,
    Task,
    TaskState,
    unwritable_by,
)
from modelport.stores.bodies import BodyFiles
from modelport.stores.sqlite import Database
from modelport.stores.task_schema import SCHEMA, SHARES, VERSION
from modelport.stores.workers import Workers

__all__ = ["SqliteTasks"]

MOST_LISTED = 1000
INLINE_BYTES = 128 << 10
"""Bodies up to this are kept in the database: beyond, SQLite is slower than a file system."""
KEPT_FREE_BYTES = 256 << 20
"""Of the disk, for everybody else, and for the results of what was accepted."""
FLUSHERS = 4
"""Threads that bring large bodies to the disk while the database goes on."""

T = TypeVar("T")


class SqliteTasks:
    """Keeps tasks in one file, and large bodies in a folder of the same name beside it.

    Args:
        path: Of the file; made if it is not there.
        now_s: The time of day, in seconds since 1970: leases are compared between processes.
        most_queued: Tasks of all owners and endpoints that may wait.
        most_queued_each: Of one owner; ``None`` for as many as all of them may have.
        most_bytes: Of the bodies of all tasks, those that are over included, beyond which no new
            ones are accepted.
        kept_free_bytes: Of the disk, below which no new ones are accepted.

    Raises:
        sqlite3.Error: If the file cannot be opened, is no database, or has another schema.
    """

    def __init__(
        self,
        path: Path,
        now_s: Callable[[], float],
        *,
        most_queued: int = 10_000,
        most_queued_each: int | None = None,
        most_bytes: int = 16 << 30,
        kept_free_bytes: int = KEPT_FREE_BYTES,
    ) -> None:
        self._now_s = now_s
        self._most_queued = most_queued
        self._most_queued_each = most_queued_each
        self._most_bytes = most_bytes
        self._worker = secrets.token_hex(8)
        self._workers = Workers(self._worker, now_s)
        self._bodies = BodyFiles(path.with_suffix(""), self._worker, kept_free_bytes)
        self._is_swept = False
        self._database = Database(path, SCHEMA, VERSION)
        self._flushing = ThreadPoolExecutor(FLUSHERS, thread_name_prefix="store bodies")
        self._database.call(lambda connection: connection.execute(SHARES)).result()
        self._database.call(self._workers.register).result()

    def __repr__(self) -> str:
        return f"<SqliteTasks {self._database}>"

    def new_file(self) -> Path:
        """See :meth:`modelport.stores.base.TaskStore.new_file`."""
        self._bodies.check_room()
        return self._bodies.new()

    def submit(self, task: NewTask) -> "Future[Task]":
        """See :meth:`modelport.stores.base.TaskStore.submit`."""
        try:
            self._bodies.check_room(len(task.request.body))
        except Unavailable:
            self._abandon(task.request)
            raise
        digest = None
        if task.idempotency_key and task.request.file is None:
            digest = hashlib.blake2b(task.request.body, digest_size=16).digest()
        return self._keeping(
            task.request, lambda connection, kept: self._submit(connection, task, kept, digest)
        )

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

        def finish(connection: sqlite3.Connection, kept: Content) -> bool:
            row = connection.execute(
                "UPDATE tasks SET state = ?, reason = ?, finished_s = ?, worker = NULL "
                "WHERE id = ? AND worker = ? AND state = 'running' RETURNING number",
                (state, reason, self._now_s(), task_id, self._worker),
            ).fetchone()
            if row is not None and result is not None:
                _write_content(connection, row["number"], True, kept)
            return row is not None

        return self._keeping(result or Content(), finish)

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
        return self._then_removing(self._database.call(self._recover))

    def get(self, owner: str, task_id: str) -> "Future[Task]":
        """See :meth:`modelport.stores.base.TaskStore.get`."""
        return self._database.call(lambda connection: _task(_find(connection, owner, task_id)))

    def result(self, owner: str, task_id: str) -> "Future[tuple[Task, Content | None]]":
        """See :meth:`modelport.stores.base.TaskStore.result`."""

        def result(connection: sqlite3.Connection) -> tuple[Task, Content | None]:
            row = _find(connection, owner, task_id)
            return _task(row), self._read_content(connection, row["number"], True)

        return self._database.call(result)

    def request(self, owner: str, task_id: str) -> "Future[tuple[Task, Content]]":
        """See :meth:`modelport.stores.base.TaskStore.request`."""

        def request(connection: sqlite3.Connection) -> tuple[Task, Content]:
            row = _find(connection, owner, task_id)
            content = self._read_content(connection, row["number"], False) or Content()
            if content.file is not None:
                # Whoever forgets the task waits for this transaction, so the file is there.
                content = Content(
                    content.headers, file=self._bodies.another_name(content.file.name)
                )
            return _task(row), content

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

    def notices(self, count: int, lease_s: float) -> "Future[list[Notice]]":
        """See :meth:`modelport.stores.base.TaskStore.notices`."""
        return self._database.call(lambda connection: self._notices(connection, count, lease_s))

    def settle(self, notice_id: int, again_in_s: float | None) -> "Future[None]":
        """See :meth:`modelport.stores.base.TaskStore.settle`."""

        def settle(connection: sqlite3.Connection) -> None:
            if again_in_s is None:
                connection.execute("DELETE FROM notices WHERE id = ?", (notice_id,))
            else:
                due_s = self._now_s() + again_in_s
                connection.execute("UPDATE notices SET due_s = ? WHERE id = ?", (due_s, notice_id))

        return self._database.call(settle)

    def counts(self) -> "Future[Mapping[tuple[str, TaskState], int]]":
        """See :meth:`modelport.stores.base.TaskStore.counts`."""

        def counts(connection: sqlite3.Connection) -> Mapping[tuple[str, TaskState], int]:
            rows = connection.execute("SELECT endpoint, state, count FROM counts WHERE count != 0")
            return {(row["endpoint"], TaskState(row["state"])): row["count"] for row in rows}

        return self._database.call(counts)

    def prune(self, older_than_s: float) -> "Future[int]":
        """See :meth:`modelport.stores.base.TaskStore.prune`."""

        def prune(connection: sqlite3.Connection) -> tuple[int, list[str]]:
            before_s = self._now_s() - older_than_s
            # Of every state that is over, as the index knows them.
            over = "state IN ('completed', 'failed', 'canceled') AND finished_s < ?"
            files = connection.execute(
                "SELECT file FROM contents WHERE file IS NOT NULL AND task IN "
                f"(SELECT number FROM tasks WHERE {over})",
                (before_s,),
            ).fetchall()
            deleted = connection.execute(f"DELETE FROM tasks WHERE {over}", (before_s,)).rowcount
            return deleted, [row["file"] for row in files]

        return self._then_removing(self._database.call(prune))

    def close(self) -> None:
        """See :meth:`modelport.stores.base.TaskStore.close`."""
        self._flushing.shutdown()
        self._database.close()

    # Bodies.

    def _keeping(
        self, content: Content, statement: Callable[[sqlite3.Connection, Content], T]
    ) -> "Future[T]":
        """Run a statement that writes a content, once its body is on disk if it goes to a file.

        The file is deleted if the statement did not use it.
        """
        if content.file is None and len(content.body) <= INLINE_BYTES:
            return self._database.call(lambda connection: statement(connection, content))
        outer: Future[T] = Future()

        def keep() -> None:
            if not outer.set_running_or_notify_cancel():
                self._abandon(content)
                return
            kept = content
            try:
                kept = self._flushed(content)
                inner = self._database.call(
                    lambda connection: (statement(connection, kept), _is_named(connection, kept))
                )
            except BaseException as exc:
                self._abandon(kept)
                outer.set_exception(exc)
                return
            inner.add_done_callback(done(kept))

        def done(kept: Content) -> Callable[["Future[tuple[T, bool]]"], None]:
            def settle(inner: "Future[tuple[T, bool]]") -> None:
                error = inner.exception()
                if error is not None or not inner.result()[1]:
                    self._abandon(kept)
                if error is not None:
                    outer.set_exception(error)
                else:
                    outer.set_result(inner.result()[0])

            return settle

        try:
            self._flushing.submit(keep)
        except RuntimeError:
            self._abandon(content)
            raise Unavailable("the server is going down and takes no more tasks") from None
        return outer

    def _flushed(self, content: Content) -> Content:
        try:
            if content.file is None:
                file = self._bodies.write(content.body)
                return Content(content.headers, b"", content.status, file)
            self._bodies.flush(content.file)
        except OSError as exc:
            raise unwritable_by(exc) from exc
        return content

    def _abandon(self, content: Content) -> None:
        if content.file is not None:
            self._bodies.remove([content.file.name])

    def _then_removing(self, call: "Future[tuple[int, list[str]]]") -> "Future[int]":
        """Delete files once what named them is gone for good."""
        outer: Future[int] = Future()

        def settle(inner: "Future[tuple[int, list[str]]]") -> None:
            error = inner.exception()
            if error is not None:
                outer.set_exception(error)
                return
            count, names = inner.result()
            self._bodies.remove(names)
            outer.set_result(count)

        outer.set_running_or_notify_cancel()
        call.add_done_callback(settle)
        return outer

    def _read_content(
        self, connection: sqlite3.Connection, number: int, is_result: bool
    ) -> Content | None:
        row = connection.execute(
            "SELECT * FROM contents WHERE task = ? AND is_result = ?", (number, is_result)
        ).fetchone()
        if row is None:
            return None
        headers = tuple((name, value) for name, value in json.loads(row["headers"]))
        file = self._bodies.path(row["file"]) if row["file"] is not None else None
        return Content(headers, row["body"], row["status"], file)

    # Statements.

    def _submit(
        self, connection: sqlite3.Connection, task: NewTask, kept: Content, digest: bytes | None
    ) -> Task:
        now_s = self._now_s()
        if task.idempotency_key:
            row = connection.execute(
                "SELECT * FROM tasks WHERE owner = ? AND endpoint = ? AND idempotency_key = ?",
                (task.owner, task.endpoint, task.idempotency_key),
            ).fetchone()
            if row is not None:
                if digest is not None and row["digest"] not in (None, digest):
                    raise Conflict(
                        "the idempotency key was used before with another request; use a new key "
                        "for each request"
                    )
                return _task(row)
        queued, size = connection.execute(
            "SELECT (SELECT coalesce(sum(count), 0) FROM counts WHERE state = 'queued'), bytes "
            "FROM totals"
        ).fetchone()
        if queued >= self._most_queued:
            raise Overloaded(
                f"{queued} tasks wait already, which is as many as may; try again later",
                retry_after_s=5,
            )
        self._check_share(connection, task.owner)
        if size + _size(kept) > self._most_bytes:
            raise Overloaded(
                f"the tasks that are kept have {size} bytes together, and {self._most_bytes} is "
                "the most; those that are over are forgotten after a while, so try again later",
                retry_after_s=60,
            )
        row = connection.execute(
            "INSERT INTO tasks (id, owner, endpoint, state, priority, retry, most_attempts, "
            "idempotency_key, digest, webhook, created_s, expires_s) "
            "VALUES (?, ?, ?, 'queued', ?, ?, ?, ?, ?, ?, ?, ?) RETURNING *",
            (
                task.id,
                task.owner,
                task.endpoint,
                task.priority,
                task.retry,
                task.most_attempts,
                task.idempotency_key or None,
                digest,
                task.webhook or None,
                now_s,
                now_s + task.expires_s if task.expires_s else 0,
            ),
        ).fetchone()
        _write_content(connection, row["number"], False, kept)
        return _task(row)

    def _check_share(self, connection: sqlite3.Connection, owner: str) -> None:
        most = self._most_queued_each
        if most is None or most >= self._most_queued:
            return
        # Not more than the most are counted, and of nobody else's.
        (queued,) = connection.execute(
            "SELECT count(*) FROM (SELECT 1 FROM tasks INDEXED BY waiting_of_owner "
            "WHERE owner = ? AND state = 'queued' "
            "LIMIT ?)",
            (owner, most),
        ).fetchone()
        if queued >= most:
            raise Overloaded(
                f"{queued} of your tasks wait already, which is as many as one caller may have; "
                "try again later",
                retry_after_s=5,
            )

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
                request = self._read_content(connection, row["number"], False) or Content()
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

    def _recover(self, connection: sqlite3.Connection) -> tuple[int, list[str]]:
        now_s = self._now_s()
        self._workers.stay_known(connection)
        gone = self._workers.forget_dead(connection)
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
        left: list[str] = []
        if gone or not self._is_swept:
            left = self._left_files(connection)
            self._is_swept = True
        return len(rows) + late, left

    def _left_files(self, connection: sqlite3.Connection) -> list[str]:
        """Find bodies that no row names, and whose process writes no more rows."""
        living = {row["id"] for row in connection.execute("SELECT id FROM workers")}
        named = {
            row["file"]
            for row in connection.execute("SELECT file FROM contents WHERE file IS NOT NULL")
        }
        return [name for name in self._bodies.of_others(living) if name not in named]

    def _notices(self, connection: sqlite3.Connection, count: int, lease_s: float) -> list[Notice]:
        now_s = self._now_s()
        rows = connection.execute(
            "UPDATE notices SET due_s = ?, attempts = attempts + 1 WHERE id IN "
            "(SELECT id FROM notices WHERE due_s <= ? ORDER BY due_s, id LIMIT ?) RETURNING *",
            (now_s + lease_s, now_s, count),
        ).fetchall()
        notices = []
        for row in sorted(rows, key=lambda row: int(row["id"])):
            task = connection.execute(
                "SELECT * FROM tasks WHERE number = ?", (row["task"],)
            ).fetchone()
            notices.append(Notice(row["id"], task["webhook"], _task(task), row["attempts"]))
        return notices

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
        webhook=row["webhook"] or "",
    )


def _write_content(
    connection: sqlite3.Connection, number: int, is_result: bool, content: Content
) -> None:
    headers = json.dumps([list(pair) for pair in content.headers])
    file = content.file.name if content.file is not None else None
    connection.execute(
        "INSERT INTO contents VALUES (?, ?, ?, ?, ?, ?, ?)",
        (number, is_result, content.status, headers, _size(content), content.body, file),
    )


def _size(content: Content) -> int:
    return len(content.body) if content.file is None else content.file.stat().st_size


def _is_named(connection: sqlite3.Connection, content: Content) -> bool:
    if content.file is None:
        return False
    query = "SELECT 1 FROM contents WHERE file = ?"
    return connection.execute(query, (content.file.name,)).fetchone() is not None
