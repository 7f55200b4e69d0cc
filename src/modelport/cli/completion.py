"""``modelport completion``: scripts for shells, made from the tables of options.

The scripts are static: completing asks no Python process, so it costs nothing to press tab.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from modelport.cli import VERBS
from modelport.cli.options import Option, UsageError, asks_for_help
from modelport.server.config import CONFIG_FLAG
from modelport.server.settings import SETTINGS

__all__ = ["SHELLS", "run", "script"]

SHELLS = ("bash", "zsh", "fish")

_HELP = """Usage: modelport completion bash|zsh|fish

Print a script that completes verbs and options.

  bash   source <(modelport completion bash)
  zsh    source <(modelport completion zsh)
  fish   modelport completion fish | source"""


def run(argv: Sequence[str]) -> int:
    """Print the script for one shell."""
    if asks_for_help(argv):
        print(_HELP)
        return 0
    if len(argv) != 1 or argv[0] not in SHELLS:
        login = os.path.basename(os.environ.get("SHELL", ""))
        remedy = f"modelport completion {login if login in SHELLS else 'bash'}"
        raise UsageError(f"SHELL: expected one of {', '.join(SHELLS)}; write {remedy}")
    sys.stdout.write(script(argv[0]))
    return 0


def script(shell: str) -> str:
    """Give the script for one of :data:`SHELLS`."""
    return _fish() if shell == "fish" else _bash(is_zsh=shell == "zsh")


def _flags_by_verb() -> Mapping[str, Sequence[tuple[str, str]]]:
    """Every option of every verb with its help."""
    from modelport.cli import infer, models, tasks

    settings = [(flag, setting.help) for setting in SETTINGS for flag in setting.flags]
    settings.append((CONFIG_FLAG, "Read settings from this TOML file"))
    return {
        "serve": settings,
        "config": [*settings, ("--json", "Print JSON")],
        "models": _rows(models.OPTIONS),
        "infer": _rows(infer.OPTIONS),
        "tasks": _rows(tasks.OPTIONS),
    }


def _rows(options: Sequence[Option]) -> list[tuple[str, str]]:
    return [(option.flag, option.help) for option in options]


def _bash(*, is_zsh: bool) -> str:
    cases = "\n".join(
        f'    {verb}) words="{" ".join(flag for flag, _ in rows)} --help" ;;'
        for verb, rows in _flags_by_verb().items()
    )
    prologue = "autoload -U bashcompinit && bashcompinit\n" if is_zsh else ""
    return f"""{prologue}_modelport() {{
  local words="" current="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{" ".join(VERBS)}" -- "$current"))
    return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
    completion) words="{" ".join(SHELLS)}" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _modelport modelport
"""


def _fish() -> str:
    lines = [
        f"complete -c modelport -n __fish_use_subcommand -f -a {verb} -d '{_quoted(summary)}'"
        for verb, summary in VERBS.items()
    ]
    for verb, rows in _flags_by_verb().items():
        lines += [
            f"complete -c modelport -n '__fish_seen_subcommand_from {verb}'"
            f" -l {flag.removeprefix('--')} -d '{_quoted(text)}'"
            for flag, text in rows
        ]
    shells = " ".join(SHELLS)
    lines.append(
        f"complete -c modelport -n '__fish_seen_subcommand_from completion' -f -a '{shells}'"
    )
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
