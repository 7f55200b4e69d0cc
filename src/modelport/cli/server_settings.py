"""What ``serve`` and ``config`` share: reading the settings, and the help that lists them."""

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from modelport.cli.help import Entry, Section, render
from modelport.cli.options import UsageError
from modelport.cli.terminal import columns, is_coloured
from modelport.server.config import CONFIG_VARIABLE, Resolved, SettingsError, load
from modelport.server.setting_values import SWITCH
from modelport.server.settings import SETTINGS, Group, Setting
from modelport.server.shown import shown_default

__all__ = ["print_help", "read_settings", "sections"]


def read_settings(argv: Sequence[str]) -> Resolved:
    """Resolve the settings from this process's arguments, environment and files.

    Raises:
        UsageError: With every problem found.
    """
    try:
        return load(argv, os.environ, _read)
    except SettingsError as exc:
        raise UsageError(str(exc)) from exc


def sections() -> list[Section]:
    """Describe every setting, by group."""
    entries_by_group: Mapping[Group, list[Entry]] = {group: [] for group in Group}
    for setting in SETTINGS:
        entries_by_group[setting.group].append(_entry(setting))
    general = [
        Entry(
            "--config FILE",
            "Read settings from this TOML file",
            ("default: ./modelport.toml if it is there", f"env: {CONFIG_VARIABLE}"),
        ),
        Entry("-h, --help", "Print this"),
    ]
    found = [Section(str(group), entries) for group, entries in entries_by_group.items()]
    return [*found, Section("General", general)]


def print_help(usage: str, summary: str, notes: Sequence[str]) -> None:
    """Print the help of a verb that takes every setting."""
    is_bold = is_coloured(sys.stdout, os.environ)
    print(render(usage, summary, sections(), notes=notes, width=columns(), is_bold=is_bold))


def _entry(setting: Setting) -> Entry:
    flags = [*setting.flags[1:], setting.flags[0]] if setting.name == "targets" else setting.flags
    if setting.name == "targets":
        names = "TARGET..."
        others = flags[:1]
    else:
        names = flags[0] if setting.kind is SWITCH else f"{flags[0]} {setting.kind.metavar}"
        others = list(flags[1:])
    facts = [f"also {flag}" for flag in others]
    if setting.is_repeatable:
        facts.append("repeatable")
    default = shown_default(setting)
    if default is not None:
        facts.append(f"default: {default}")
    facts.append(f"env: {setting.variables[0]}")
    return Entry(names, setting.help, tuple(facts))


def _read(path: str) -> str:
    return Path(path).expanduser().read_text(encoding="utf-8")
