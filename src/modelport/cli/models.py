"""``modelport models``: what a server has, in which state, how busy it is and how to call it."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from modelport.cli.help import options_section, render
from modelport.cli.options import SERVER_OPTIONS, Option, asks_for_help, parse
from modelport.cli.terminal import (
    columns,
    is_coloured,
    paint,
    plain,
    redrawn,
    table,
    terminal_width,
)
from modelport.client.v2 import Load, ModelMetadata, Refused, Server
from modelport.errors import ModelportError

__all__ = ["OPTIONS", "SUMMARY", "USAGE", "run"]

USAGE = "modelport models [NAME] [options]"
SUMMARY = "List the models of a server with their versions and states, or describe one of them."
OPTIONS = (
    *SERVER_OPTIONS,
    Option("--json", None, "Print JSON; with --watch an array on each line"),
    Option("--watch", "SECONDS", "Look again every so often, until it is interrupted"),
)

_COLOUR_BY_STATE = {"READY": "green", "UNAVAILABLE": "red", "LOADING": "yellow"}


@dataclass(frozen=True, slots=True)
class Row:
    """One version of one model.

    Attributes:
        version: "" for a model that was never loaded.
        state: Triton's word, "" where the server does not say.
        reason: Why it is in that state, where there is something to say.
        metadata: Of a version that answers.
        load: How busy it is, where the server tells.
    """

    name: str
    version: str
    state: str
    reason: str
    metadata: ModelMetadata | None
    load: Load | None = None


def run(argv: Sequence[str]) -> int:
    """Print the models."""
    is_on = is_coloured(sys.stdout, os.environ)
    if asks_for_help(argv):
        sections = [options_section(OPTIONS)]
        print(render(USAGE, SUMMARY, sections, width=columns(), is_bold=is_on))
        return 0
    options = parse(argv, OPTIONS, os.environ, words=(0, 1), usage=USAGE)
    timeout_s = options.seconds("--timeout")
    every_s = options.seconds("--watch") if options.text("--watch") is not None else None
    name = options.words[0] if options.words else None

    def look(server: Server) -> str:
        is_brief = every_s is not None and name is None and not options.is_on("--json")
        rows = _rows(server, name, has_metadata=not is_brief)
        if options.is_on("--json"):
            return _json(rows, indent=None if every_s else 2)
        if name is not None:
            return describe(rows, is_on=is_on)
        most = terminal_width(sys.stdout)
        return overview(rows, is_on=is_on, most=most, is_live=every_s is not None)

    try:
        with Server(
            options.text("--url") or "", api_key=options.text("--api-key"), timeout_s=timeout_s
        ) as server:
            text = look(server)
            if every_s is None:
                print(text)
            else:
                _watch(text, lambda: look(server), every_s)
    except ModelportError as exc:
        print(f"modelport models: {plain(str(exc))}", file=sys.stderr)
        return 1
    return 0


def _watch(text: str, look: Callable[[], str], every_s: float) -> None:
    """Print a text, and what comes after it, for ever; a server may go away and come back."""
    is_terminal = sys.stdout.isatty()
    stream = sys.stdout
    while True:
        print(redrawn(text) if is_terminal else text, file=stream, flush=True)
        time.sleep(every_s)
        try:
            text, stream = look(), sys.stdout
        except ModelportError as exc:
            # Who reads tables or JSON from a pipe is not to find this among them.
            text = plain(f"modelport models: {exc}")
            stream = sys.stdout if is_terminal else sys.stderr


def _json(rows: Sequence[Row], *, indent: int | None) -> str:
    import json

    return json.dumps([asdict(row) for row in rows], indent=indent)


def _rows(server: Server, name: str | None, *, has_metadata: bool) -> list[Row]:
    try:
        index = server.index()
    except Refused as refused:
        return _rows_without_index(server, name, refused)
    load_by_version = server.load_by_version()
    rows = []
    for entry in index:
        if name is not None and entry["name"] != name:
            continue
        version, state = str(entry.get("version", "")), str(entry.get("state", ""))
        metadata = None
        if has_metadata and state == "READY":
            metadata = _metadata(server, entry["name"], version)
        load = load_by_version.get((entry["name"], version))
        rows.append(
            Row(entry["name"], version, state, str(entry.get("reason", "")), metadata, load)
        )
    if name is not None and not rows:
        metadata = server.metadata(name)  # the server's own words for what it does not know
        rows = [Row(name, version, "", "", metadata) for version in metadata.versions or ("",)]
    return rows


def _rows_without_index(server: Server, name: str | None, refused: Refused) -> list[Row]:
    """Ask for what other V2 servers have: a list of names, and metadata by name."""
    names = [name] if name is not None else []
    if name is None:
        try:
            names = server.names()
        except ModelportError:
            raise refused from None
    rows = []
    for each in names:
        metadata = server.metadata(each)
        rows += [Row(each, version, "", "", metadata) for version in metadata.versions or ("",)]
    return rows


def _metadata(server: Server, name: str, version: str) -> ModelMetadata | None:
    try:
        return server.metadata(name, version or None)
    except Refused:
        return None  # it was unloaded in between


def overview(
    rows: Sequence[Row], *, is_on: bool, most: int | None = None, is_live: bool = False
) -> str:
    """Lay out one line for each version.

    Args:
        rows: Of the index.
        is_on: Whether to colour.
        most: Columns that a line may have.
        is_live: Whether to tell the load of every version instead of its inputs and outputs.
    """
    if not rows:
        return "no models"
    heading = ["model", "version", "state", "inputs", "outputs", "load", "reason"]
    lines = []
    for row in rows:
        metadata = None if is_live else row.metadata
        inputs = ", ".join(map(str, metadata.inputs)) if metadata else ""
        outputs = ", ".join(map(str, metadata.outputs)) if metadata else ""
        load = _load(row.load, is_whole=is_live) if row.load is not None else ""
        lines.append([row.name, row.version, row.state, inputs, outputs, load, row.reason])
    kept = [at for at in range(len(heading)) if at < 2 or any(line[at] for line in lines)]
    return table(
        [heading[at] for at in kept],
        [[plain(" ".join(line[at].split())) for at in kept] for line in lines],
        colour_by_cell=_COLOUR_BY_STATE,
        is_on=is_on,
        most=most,
        firm=4 if is_live else 3,
    )


def _load(load: Load, *, is_whole: bool = False) -> str:
    """Say what is worth a look, or all: one instance that has nothing to do is not."""
    parts = []
    if load.instances is not None and (is_whole or load.instances > 1 or load.busy):
        parts.append(f"{load.busy or 0}/{load.instances} busy")
    if load.pending or (is_whole and load.pending is not None):
        parts.append(f"{load.pending} waiting")
    return ", ".join(parts)


def describe(rows: Sequence[Row], *, is_on: bool) -> str:
    """Lay out all that is known of one model."""
    parts = []
    for row in rows:
        state = paint(plain(row.state), _COLOUR_BY_STATE.get(row.state, "bold"), is_on=is_on)
        title = paint(plain(row.name), "bold", is_on=is_on)
        version = plain(row.version)
        lines = [f"{title} version {version} {state}".rstrip() if version else title]
        if row.reason:
            lines.append(f"  reason    {plain(row.reason).strip()}")
        if row.metadata is not None:
            lines.append(f"  platform  {plain(row.metadata.platform)}")
            lines += [f"  input     {plain(str(tensor))}" for tensor in row.metadata.inputs]
            lines += [f"  output    {plain(str(tensor))}" for tensor in row.metadata.outputs]
        if row.load is not None:
            lines.append(f"  load      {_load(row.load, is_whole=True)}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
