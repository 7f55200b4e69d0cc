"""``modelport config``: every setting, its value, and where that came from."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from modelport.cli.options import asks_for_help
from modelport.cli.server_settings import read_settings
from modelport.cli.terminal import is_coloured, paint, plain, table
from modelport.server.config import Origin, Resolved
from modelport.server.setting_display import json_value, shown
from modelport.server.settings import SETTINGS, Group

__all__ = ["SUMMARY", "USAGE", "run"]

USAGE = "modelport config [--json] [TARGET...] [options of serve]"
SUMMARY = (
    "Show the settings that modelport serve would have with the same options, environment and file,"
    " and where each comes from. Keys are masked. --json prints one JSON object."
)


def run(argv: Sequence[str]) -> int:
    """Print the settings."""
    if asks_for_help(argv):
        from modelport.cli.settings_help import print_help

        print_help(USAGE, SUMMARY, ())
        return 0
    is_json = "--json" in argv
    resolved = read_settings([argument for argument in argv if argument != "--json"])
    if is_json:
        import json

        print(json.dumps(as_json(resolved), indent=2))
    else:
        print(as_table(resolved, is_on=is_coloured(sys.stdout, os.environ)))
        for name in resolved.unknown_variables:
            print(f"{name} is set in the environment, and is no setting", file=sys.stderr)
    return 0


def as_json(resolved: Resolved) -> dict[str, Any]:
    """Give value, origin and place of each setting, by its name."""
    return {
        setting.name: {
            "value": json_value(setting, getattr(resolved.settings, setting.name)),
            "origin": str(resolved.source_by_name[setting.name].origin),
            "where": resolved.source_by_name[setting.name].where,
        }
        for setting in SETTINGS
    }


def as_table(resolved: Resolved, *, is_on: bool) -> str:
    """Lay the settings out by group; what is not a default stands out."""
    order = list(Group)
    settings = sorted(SETTINGS, key=lambda setting: order.index(setting.group))
    rows = []
    for setting in settings:
        source = resolved.source_by_name[setting.name]
        is_default = source.origin is Origin.DEFAULT
        where = "default" if is_default else f"{source.origin}: {source.where}"
        value = shown(setting, getattr(resolved.settings, setting.name))
        rows.append((setting.name, where, plain(value).replace("\n", "\\n")))
    colours = {where: "dim" if where == "default" else "green" for _, where, _ in rows}
    heading, *lines = table(
        ("setting", "from", "value"), rows, colour_by_cell=colours, is_on=is_on
    ).splitlines()
    parts = [heading]
    group: Group | None = None
    for setting, line in zip(settings, lines, strict=True):
        if setting.group is not group:
            group = setting.group
            parts += ["", paint(str(group), "bold", is_on=is_on)]
        parts.append(line)
    return "\n".join(parts)
