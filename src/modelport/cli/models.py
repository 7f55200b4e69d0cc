"""``modelport models``: what a server has, in which state, how busy it is and how to call it."""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from modelport.cli.help import options_section, render
from modelport.cli.options import SERVER_OPTIONS, Option, asks_for_help, parse
from modelport.cli.terminal import columns, is_coloured, paint, table
from modelport.client.v2 import Load, ModelMetadata, Refused, Server
from modelport.errors import ModelportError

__all__ = ["OPTIONS", "SUMMARY", "USAGE", "run"]

USAGE = "modelport models [NAME] [options]"
SUMMARY = "List the models of a server with their versions and states, or describe one of them."
OPTIONS = (*SERVER_OPTIONS, Option("--json", None, "Print JSON"))

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
    try:
        with Server(
            options.text("--url") or "", api_key=options.text("--api-key"), timeout_s=timeout_s
        ) as server:
            rows = _rows(server, options.words[0] if options.words else None)
    except ModelportError as exc:
        print(f"modelport models: {exc}", file=sys.stderr)
        return 1
    if options.is_on("--json"):
        import json

        print(json.dumps([asdict(row) for row in rows], indent=2))
    elif options.words:
        print(describe(rows, is_on=is_on))
    else:
        print(overview(rows, is_on=is_on))
    return 0


def _rows(server: Server, name: str | None) -> list[Row]:
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
        metadata = _metadata(server, entry["name"], version) if state == "READY" else None
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


def overview(rows: Sequence[Row], *, is_on: bool) -> str:
    """Lay out one line for each version."""
    if not rows:
        return "no models"
    heading = ["model", "version", "state", "inputs", "outputs", "load", "reason"]
    lines = []
    for row in rows:
        inputs = ", ".join(map(str, row.metadata.inputs)) if row.metadata else ""
        outputs = ", ".join(map(str, row.metadata.outputs)) if row.metadata else ""
        load = _load(row.load) if row.load is not None else ""
        lines.append([row.name, row.version, row.state, inputs, outputs, load, row.reason])
    kept = [at for at in range(len(heading)) if at < 2 or any(line[at] for line in lines)]
    return table(
        [heading[at] for at in kept],
        [[" ".join(line[at].split()) for at in kept] for line in lines],
        colour_by_cell=_COLOUR_BY_STATE,
        is_on=is_on,
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
        state = paint(row.state, _COLOUR_BY_STATE.get(row.state, "bold"), is_on=is_on)
        title = paint(row.name, "bold", is_on=is_on)
        lines = [f"{title} version {row.version} {state}".rstrip() if row.version else title]
        if row.reason:
            lines.append(f"  reason    {row.reason.strip()}")
        if row.metadata is not None:
            lines.append(f"  platform  {row.metadata.platform}")
            lines += [f"  input     {tensor}" for tensor in row.metadata.inputs]
            lines += [f"  output    {tensor}" for tensor in row.metadata.outputs]
        if row.load is not None:
            lines.append(f"  load      {_load(row.load, is_whole=True)}")
        parts.append("\n".join(lines))
    return "\n\n".join(parts)
