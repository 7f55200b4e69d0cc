"""``modelport tasks``: what a server was asked to do later, and how far it is."""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelport.cli.help import options_section, render
from modelport.cli.options import SERVER_OPTIONS, Option, Options, UsageError, asks_for_help, parse
from modelport.cli.terminal import (
    columns,
    is_coloured,
    paint,
    plain,
    redrawn,
    table,
    terminal_width,
)
from modelport.errors import ModelportError

if TYPE_CHECKING:
    from modelport.client.bentoml import SyncHTTPClient

__all__ = ["NOTES", "OPTIONS", "SUMMARY", "USAGE", "run"]

USAGE = "modelport tasks [list | show ID | cancel ID | retry ID] [options]"
SUMMARY = "List your tasks on a server, look at one, stop it, or ask the same again as a new one."
OPTIONS = (
    *SERVER_OPTIONS,
    Option("--limit", "N", "Most tasks to list, from 1 to 1000, the newest first", default="20"),
    Option(
        "--status",
        "STATUS",
        "List only those that are in_progress, completed, failed or canceled",
    ),
    Option("--json", None, "Print JSON; with --watch an array or object on each line"),
    Option("--watch", "SECONDS", "Look again every so often, until all of them are over"),
)
NOTES = ("Each key sees its own tasks only.",)

_COLOUR_BY_STATUS = {
    "completed": "green",
    "failed": "red",
    "canceled": "dim",
    "in_progress": "yellow",
}

Row = Mapping[str, Any]


def run(argv: Sequence[str]) -> int:
    """Do what the first word says."""
    is_on = is_coloured(sys.stdout, os.environ)
    if asks_for_help(argv):
        sections = [options_section(OPTIONS)]
        print(render(USAGE, SUMMARY, sections, notes=NOTES, width=columns(), is_bold=is_on))
        return 0
    options = parse(argv, OPTIONS, os.environ, words=(0, 2), usage=USAGE)
    action, *ids = options.words or ("list",)
    is_one = action in _ACTIONS and len(ids) == 1
    if not is_one and (action, ids) != ("list", []):
        raise UsageError(f'"{" ".join(options.words)}" is none of its forms; usage: {USAGE}')
    limit, status = _limit(options), _status(options)
    from modelport.client.bentoml import SyncHTTPClient

    try:
        with SyncHTTPClient(
            options.text("--url") or "",
            token=options.text("--api-key"),
            timeout=options.seconds("--timeout"),
            server_ready_timeout=0,
        ) as client:
            if not ids:
                _Screen(options, overview).show(lambda: _listed(client, limit, status))
                return 0
            task_id = _ACTIONS[action](client, ids[0])
            _Screen(options, describe).show(lambda: _shown(client, task_id))
    except ModelportError as exc:
        print(f"modelport tasks: {plain(str(exc))}", file=sys.stderr)
        return 1
    return 0


def _limit(options: Options) -> int:
    text = options.text("--limit") or ""
    if not text.isdecimal() or not 1 <= int(text) <= 1000:
        raise UsageError(f'--limit: expected a number from 1 to 1000, got "{text}"')
    return int(text)


def _status(options: Options) -> str | None:
    status = options.text("--status")
    if status is not None and status not in _COLOUR_BY_STATUS:
        offered = ", ".join(_COLOUR_BY_STATUS)
        raise UsageError(f'--status: expected one of {offered}, got "{status}"')
    return status


# What is asked of the server.


def _listed(client: "SyncHTTPClient", limit: int, status: str | None) -> list[Row]:
    rows: list[Row] = []
    params = {"limit": str(limit)} | ({} if status is None else {"status": status})
    for name, route in _routes(client).items():
        reply = client.request("GET", f"{route}/list", params=params)
        if reply.status_code == 404:
            raise ModelportError(
                "this server does not list its tasks; BentoML's do not. Name one: modelport tasks "
                "show ID"
            )
        rows += [{"task": name, **row} for row in reply.raise_for_status().json()]
    # Sorting is stable, and each of the lists has its newest first.
    return sorted(rows, key=lambda row: str(row["created_at"]), reverse=True)[:limit]


def _shown(client: "SyncHTTPClient", task_id: str) -> list[Row]:
    for name, route in _routes(client).items():
        reply = client.request("GET", f"{route}/status", params={"task_id": task_id})
        if reply.status_code != 404:
            return [{"task": name, **reply.raise_for_status().json()}]
    raise ModelportError(f"there is no task {task_id} of yours; modelport tasks lists them")


def _told(method: str, verb: str) -> Callable[["SyncHTTPClient", str], str]:
    """Have something done with a task; gives the id of the task that there is then."""

    def tell(client: "SyncHTTPClient", task_id: str) -> str:
        (row,) = _shown(client, task_id)
        route = _routes(client)[row["task"]]
        reply = client.request(method, f"{route}/{verb}", params={"task_id": task_id})
        return str(reply.raise_for_status().json()["task_id"])

    return tell


def _routes(client: "SyncHTTPClient") -> Mapping[str, str]:
    return {
        name: endpoint.route.rstrip("/")
        for name, endpoint in client.endpoints.items()
        if endpoint.is_task
    }


# How it is shown.


class _Screen:
    """Prints rows, once or until nothing changes any more.

    A terminal shows the last ones; elsewhere they are printed again when they have changed.
    """

    def __init__(self, options: Options, lay_out: Callable[..., str]) -> None:
        is_watching = options.text("--watch") is not None
        self._every_s = options.seconds("--watch") if is_watching else None
        self._is_json = options.is_on("--json")
        self._lay_out = lay_out
        self._last = ""

    def show(self, ask: Callable[[], list[Row]]) -> None:
        rows = ask()
        self._print(rows)
        while self._every_s is not None and any(row["status"] == "in_progress" for row in rows):
            time.sleep(self._every_s)
            rows = ask()
            self._print(rows)

    def _print(self, rows: Sequence[Row]) -> None:
        text = self._text(rows)
        if text == self._last:
            return
        is_drawn = self._every_s is not None and sys.stdout.isatty() and not self._is_json
        if is_drawn and not self._last:
            print("\x1b[2J", end="")
        print(redrawn(text) if is_drawn else text, flush=True)
        self._last = text

    def _text(self, rows: Sequence[Row]) -> str:
        if not self._is_json:
            return self._lay_out(rows, is_on=is_coloured(sys.stdout, os.environ))
        import json

        value = rows if self._lay_out is overview else rows[0]
        return json.dumps(value, indent=2 if self._every_s is None else None)


def overview(rows: Sequence[Row], *, is_on: bool) -> str:
    """Lay out one line for each task."""
    if not rows:
        return "no tasks"
    heading = ["id", "task", "status", "created", "progress", "reason"]
    lines = [
        [
            row["task_id"],
            row["task"],
            row["status"],
            row["created_at"].replace("T", " "),
            _progress(row),
            _one_line(row.get("reason", "")),
        ]
        for row in rows
    ]
    kept = [at for at in range(len(heading)) if at < 4 or any(line[at] for line in lines)]
    return table(
        [heading[at] for at in kept],
        [[line[at] for at in kept] for line in lines],
        colour_by_cell=_COLOUR_BY_STATUS,
        is_on=is_on,
        most=terminal_width(sys.stdout),
        firm=3,
    )


def describe(rows: Sequence[Row], *, is_on: bool) -> str:
    """Lay out all that is known of one task."""
    (row,) = rows
    status = paint(row["status"], _COLOUR_BY_STATUS.get(row["status"], "bold"), is_on=is_on)
    lines = [f"{paint(row['task_id'], 'bold', is_on=is_on)} {status}"]
    facts = {
        "task": row["task"],
        "created": row["created_at"].replace("T", " "),
        "over": (row.get("executed_at") or "").replace("T", " "),
        "progress": _progress(row),
        "reason": _one_line(row.get("reason", "")),
    }
    return "\n".join(lines + [f"  {name:<9} {fact}" for name, fact in facts.items() if fact])


def _progress(row: Row) -> str:
    fraction, text = row.get("progress"), _one_line(row.get("progress_text", ""))
    return f"{fraction:.0%} {text}".rstrip() if fraction is not None else text


def _one_line(text: str) -> str:
    """What somebody's task says of itself: on one line, and nothing that a terminal obeys."""
    return plain(" ".join(text.split()))


_ACTIONS: Mapping[str, Callable[["SyncHTTPClient", str], str]] = {
    "show": lambda client, task_id: task_id,
    "cancel": _told("PUT", "cancel"),
    "retry": _told("POST", "retry"),
}
