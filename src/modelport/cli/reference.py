"""Write the reference pages that are made from the tables: settings, and every verb's help.

``python -m modelport.cli.reference docs/reference``; a test compares the pages with the tables.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

from modelport.cli import config as config_verb
from modelport.cli import infer, models, serve, tasks
from modelport.cli.help import options_section, render
from modelport.cli.settings_help import sections
from modelport.server.setting_display import shown_default
from modelport.server.setting_values import SWITCH
from modelport.server.settings import SETTINGS, Group, Setting
from modelport.server.tritonserver import REMEDY_BY_FLAG

__all__ = ["pages"]

_MADE_BY = "<!-- Made by `python -m modelport.cli.reference docs/reference`; edit the tables. -->"


def pages() -> Mapping[str, str]:
    """Give the text of each page, by its file name."""
    return {"settings.md": _settings_page(), "command-line.md": _command_line_page()}


def _settings_page() -> str:
    parts = [
        _MADE_BY,
        "# Settings",
        "Each setting can be given in four places; a later one wins over an earlier one, and a"
        " list is replaced as a whole:\n\n"
        "1. the default,\n"
        "2. a TOML file: `--config FILE`, `MODELPORT_CONFIG`, or `modelport.toml` in the working"
        " directory: `http_port = 8000`,\n"
        "3. the environment: `MODELPORT_HTTP_PORT=8000`; an empty variable counts as absent,\n"
        "4. options: `--http-port 8000` or `--http-port=8000`.",
        "`modelport config` prints the result and where each value came from. Switches take"
        " `true`, `on` or `1`, and `false`, `off` or `0`; as an option, alone, they mean true."
        " Sizes are bytes, or have a unit: `64MiB`. Repeatable settings are arrays in the file;"
        " in the environment they are words between spaces, or a JSON array of strings."
        " Paths are relative to the working directory.",
    ]
    for group in Group:
        rows = [_row(setting) for setting in SETTINGS if setting.group is group]
        heading = "| option | environment | default | |\n|---|---|---|---|"
        parts += [f"## {group}", "\n".join([heading, *rows])]
    rows = [f"| `{flag}` | {remedy} |" for flag, remedy in REMEDY_BY_FLAG.items()]
    parts += [
        "## Options of tritonserver that Modelport lacks",
        "Each is an error at start, except where its value asks for what happens anyway"
        " (`--allow-gpu-metrics=false`).",
        "\n".join(["| option | what to do |", "|---|---|", *rows]),
    ]
    return "\n\n".join(parts) + "\n"


def _row(setting: Setting) -> str:
    value = "" if setting.kind is SWITCH else f" {setting.kind.metavar}"
    options = ["`TARGET...`"] if setting.name == "targets" else []
    options += [f"`{flag}{value}`".replace("|", "\\|") for flag in setting.flags]
    facts = [setting.help]
    if setting.is_repeatable:
        facts.append("repeatable")
    if setting.splits_at_commas:
        facts.append("several may stand between commas")
    default = shown_default(setting)
    cells = [
        "<br>".join(options),
        f"`{setting.variables[0]}`",
        f"`{default}`" if default else "",
        "; ".join(facts).replace("|", "\\|"),
    ]
    return f"| {' | '.join(cells)} |"


def _command_line_page() -> str:
    helps = {
        "serve": render(serve.USAGE, serve.SUMMARY, sections(), notes=serve.NOTES),
        "models": render(models.USAGE, models.SUMMARY, [options_section(models.OPTIONS)]),
        "infer": render(
            infer.USAGE, infer.SUMMARY, [options_section(infer.OPTIONS)], notes=infer.NOTES
        ),
        "tasks": render(
            tasks.USAGE, tasks.SUMMARY, [options_section(tasks.OPTIONS)], notes=tasks.NOTES
        ),
        "config": f"Usage: {config_verb.USAGE}\n\n{config_verb.SUMMARY}",
    }
    parts = [
        _MADE_BY,
        "# Command line",
        "Exit codes of every verb: 0 done; 1 it could not be done; 2 the command line, the"
        " environment or a file is wrong; 130 interrupted; 141 the reader of the output has gone"
        " away. Colour appears on terminals only, and not with `NO_COLOR`.",
    ]
    for verb, text in helps.items():
        parts.append(f"## modelport {verb}\n\n```text\n{text}\n```")
    return "\n\n".join(parts) + "\n"


def _write(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
