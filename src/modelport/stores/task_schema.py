"""The tables of tasks in SQLite, and the triggers that keep counts, totals and notices.

What the tables are for stands in ``docs/design/tasks.md``.
"""

from typing import Final

__all__ = ["SCHEMA", "SHARES", "VERSION"]

VERSION: Final = 1
"""Of files with this schema."""

SCHEMA: Final = """
CREATE TABLE tasks (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    state TEXT NOT NULL,
    priority INTEGER NOT NULL,
    retry TEXT NOT NULL,
    most_attempts INTEGER NOT NULL,
    idempotency_key TEXT,
    digest BLOB,
    webhook TEXT,
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
CREATE INDEX waiting ON tasks (endpoint, priority, number) WHERE state = 'queued';
CREATE INDEX running ON tasks (lease_s) WHERE state = 'running';
CREATE INDEX expiring ON tasks (expires_s) WHERE state = 'queued' AND expires_s != 0;
CREATE INDEX ended ON tasks (finished_s) WHERE state IN ('completed', 'failed', 'canceled');
CREATE INDEX owned ON tasks (owner, number);
CREATE UNIQUE INDEX keyed ON tasks (owner, endpoint, idempotency_key)
    WHERE idempotency_key IS NOT NULL;
CREATE TABLE contents (
    task INTEGER NOT NULL REFERENCES tasks (number) ON DELETE CASCADE,
    is_result INTEGER NOT NULL,
    status INTEGER NOT NULL,
    headers TEXT NOT NULL,
    size INTEGER NOT NULL,
    body BLOB NOT NULL,
    file TEXT,
    PRIMARY KEY (task, is_result)
);
CREATE UNIQUE INDEX filed ON contents (file) WHERE file IS NOT NULL;
CREATE TABLE notices (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    task INTEGER NOT NULL REFERENCES tasks (number) ON DELETE CASCADE,
    due_s REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX due ON notices (due_s);
CREATE INDEX noticed ON notices (task);
CREATE TABLE workers (
    id TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    process INTEGER NOT NULL,
    process_started TEXT NOT NULL,
    seen_s REAL NOT NULL
);
CREATE TABLE totals (bytes INTEGER NOT NULL);
INSERT INTO totals VALUES (0);
CREATE TABLE counts (
    state TEXT NOT NULL,
    endpoint TEXT NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (state, endpoint)
) WITHOUT ROWID;
CREATE TRIGGER begun AFTER INSERT ON tasks BEGIN
    INSERT INTO counts VALUES (NEW.state, NEW.endpoint, 1)
    ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER moved AFTER UPDATE OF state ON tasks WHEN OLD.state != NEW.state BEGIN
    UPDATE counts SET count = count - 1 WHERE state = OLD.state AND endpoint = OLD.endpoint;
    INSERT INTO counts VALUES (NEW.state, NEW.endpoint, 1)
    ON CONFLICT DO UPDATE SET count = count + 1;
END;
CREATE TRIGGER forgotten AFTER DELETE ON tasks BEGIN
    UPDATE counts SET count = count - 1 WHERE state = OLD.state AND endpoint = OLD.endpoint;
END;
CREATE TRIGGER kept AFTER INSERT ON contents BEGIN
    UPDATE totals SET bytes = bytes + NEW.size;
END;
CREATE TRIGGER dropped AFTER DELETE ON contents BEGIN
    UPDATE totals SET bytes = bytes - OLD.size;
END;
CREATE TRIGGER over AFTER UPDATE OF state ON tasks
WHEN NEW.webhook IS NOT NULL AND NEW.state IN ('completed', 'failed', 'canceled')
BEGIN
    INSERT INTO notices (task, due_s) VALUES (NEW.number, NEW.finished_s);
END;
"""

SHARES: Final = (
    "CREATE INDEX IF NOT EXISTS waiting_of_owner ON tasks (owner) WHERE state = 'queued'"
)
"""Not in the schema: files of this version have been without it."""
