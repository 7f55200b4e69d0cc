"""A smoke test of ``make run``: it starts, answers the README's calls, starts again quickly, stops.

What it runs is taken from README.md: every ``sh`` block that calls the server.
"""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
READY = re.compile(r"is ready on http://(?P<address>[^\s,]+)")
START_TIMEOUT_S = 300  # the first one installs
STOP_TIMEOUT_S = 40
SECOND_START_S = 2.0
"""What a user is promised on a machine that does nothing else."""
SLOWEST_START_S = 6.0
"""What a busy machine may make of it."""
TRIES = 3
"""Starts that may be timed: another tenant of the machine can make one of them slow."""


class Failed(Exception):
    """Something does not work; the text says what."""


def main() -> int:
    """Run the test and give the exit status."""
    try:
        with_server(call_everything)
        seconds = min(with_server(lambda address: None) for _ in range(TRIES))
        print(f"smoke: a second make run was ready after {seconds:.2f} s", flush=True)
        if seconds > SLOWEST_START_S:
            raise Failed(f"a second make run took {seconds:.2f} s, more than {SLOWEST_START_S} s")
        if seconds > SECOND_START_S:
            print(f"smoke: that is more than the {SECOND_START_S} s promised", flush=True)
    except Failed as exc:
        print(f"smoke: FAILED: {exc}", file=sys.stderr)
        return 1
    print("smoke: passed", flush=True)
    return 0


def with_server(talk) -> float:
    """Run ``make run``, talk to it, stop it, and give the seconds until it was ready."""
    started = time.monotonic()
    process = subprocess.Popen(
        ["make", "run", "HTTP_PORT=0", "GRPC_PORT=0", "METRICS_PORT=0"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        address = wait_until_ready(process, started)
        seconds = time.monotonic() - started
        talk(address)
        # To the server alone: make then ends with the status of what it ran.
        os.kill(server_of(process.pid), signal.SIGTERM)
        rest, _ = process.communicate(timeout=STOP_TIMEOUT_S)
        if process.returncode != 0:
            raise Failed(f"after SIGTERM it ended with {process.returncode}:\n{rest}")
        return seconds
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until_ready(process, started: float) -> str:
    """Read what it writes until the greeting, and give host and port."""
    lines = []
    for line in process.stdout:
        lines.append(line)
        print(f"  {line}", end="", flush=True)
        found = READY.search(line)
        if found:
            return found["address"]
        if time.monotonic() - started > START_TIMEOUT_S:
            break
    raise Failed(f"make run did not become ready:\n{''.join(lines)}")


def call_everything(address: str) -> None:
    """Run what README.md says to run; nothing may fail or answer with an error."""
    calls = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S)
    calls = [call for call in calls if "localhost:8000" in call or "modelport " in call]
    if len(calls) < 4:
        raise Failed("README.md shows fewer calls than it should")
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    for call in calls:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", call.replace("localhost:8000", address)],
            cwd=ROOT,
            env=os.environ | {"PATH": path, "MODELPORT_URL": f"http://{address}"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        answer = done.stdout + done.stderr
        if done.returncode != 0 or '"error"' in answer:
            raise Failed(f"{call}gave {done.returncode}:\n{answer}")
        print(f"smoke: {call.splitlines()[0][:70]} -> {done.stdout.strip()[:200]}", flush=True)


def server_of(make: int) -> int:
    """Find the process that ``make`` waits for."""
    children = Path(f"/proc/{make}/task/{make}/children").read_text().split()
    if len(children) != 1:
        raise Failed(f"make has {len(children)} children where the server should be the only one")
    return int(children[0])


if __name__ == "__main__":
    sys.exit(main())
