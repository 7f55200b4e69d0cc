"""The help of the verbs that take every setting, ``serve`` and ``config``.

Apart from reading the settings, because laying out text takes modules that serving does not need.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from modelport.cli.help import Entry, Section, render
from modelport.cli.terminal import columns, is_coloured
from modelport.server.config import CONFIG_VARIABLE
from modelport.server.setting_display import shown_default
from modelport.server.setting_values import SWITCH
from modelport.server.settings import SETTINGS, Group, Setting

__all__ = ["print_help", "sections"]


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
