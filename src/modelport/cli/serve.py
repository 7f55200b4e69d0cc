"""``modelport serve``: read the settings, hand them to the server."""

import gc
from collections.abc import Sequence

from modelport.cli.options import UsageError, asks_for_help
from modelport.cli.server_settings import read_settings
from modelport.server.config import SettingsError

__all__ = ["NOTES", "SUMMARY", "USAGE", "run"]

USAGE = "modelport serve TARGET... [options]"
SUMMARY = (
    "Serve models over every protocol. A target is a model repository in Triton's layout, a model"
    " file or folder, or a .py file."
)
NOTES = (
    "Every option --x-y is also MODELPORT_X_Y in the environment and x_y in modelport.toml; flags"
    " win over the environment, that over the file. modelport config shows the result.",
    "Switches take true, on or 1, and false, off or 0; alone they mean true. Options of"
    " tritonserver are understood in its spelling.",
    "Exit codes: 0 stopped as asked; 1 a model or a port failed, or requests were cut off at the"
    " exit timeout; 2 a setting is wrong; 130 interrupted.",
)


def run(argv: Sequence[str]) -> int:
    """Serve until asked to stop."""
    if asks_for_help(argv):
        from modelport.cli.settings_help import print_help

        print_help(USAGE, SUMMARY, NOTES)
        return 0
    resolved = read_settings(argv)
    if not resolved.targets:
        raise UsageError(
            "TARGET: nothing to serve; name a model repository, a model file or a .py file"
        )
    if resolved.settings.reload:
        from modelport.cli.reloading import serve_again

        return serve_again(argv, resolved.targets)
    # Only now: help and errors above should not wait for numpy and the event loop.
    # And without the garbage collector, which would look through all that is imported again and
    # again and find nothing; the server turns it on when it is ready.
    gc.disable()
    from modelport.server.build import serve

    try:
        return serve(resolved.settings)
    except SettingsError as exc:
        # What only shows when it is used, such as a log file that cannot be written.
        raise UsageError(str(exc)) from exc
