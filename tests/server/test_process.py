"""Open files, on a system that lets a process have few of them."""

import http.client
import json
import resource
import socket
import subprocess
import sys
from pathlib import Path
from unittest.mock import ANY

import pytest

from modelport.server.process import SPARE_FILES
from tests.served import serving

IDENTITY = Path(__file__).parents[2] / "examples" / "models" / "identity"
REQUEST = {"inputs": [{"name": "INPUT0", "datatype": "FP32", "shape": [1], "data": [2]}]}
ASK = """
import resource, sys
from modelport.server.process import allow_connections
resource.setrlimit(resource.RLIMIT_NOFILE, (256, int(sys.argv[1])))
print(allow_connections(int(sys.argv[2])), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("hard", "wanted", "allowed", "files"),
    [
        (8192, 4096, 4096, 4096 + SPARE_FILES),
        (4096, 4096, 4096 - SPARE_FILES, 4096),
        (1024, 4096, 512, 1024),
        (256, 4096, 128, 256),
        (8192, 10, 10, 10 + SPARE_FILES),
    ],
)
def test_the_system_is_asked_for_as_many_files_as_it_lets_us_have(
    hard: int, wanted: int, allowed: int, files: int
) -> None:
    """In a process of its own: a hard limit cannot be taken back."""
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(hard), str(wanted)], capture_output=True, text=True
    )
    assert (done.stdout.split(), done.stderr) == ([str(allowed), str(files)], "")


@pytest.mark.slow
def test_connections_leave_the_models_their_files() -> None:
    """By 1024 files and no more, the soft limit of most systems, clients could take them all."""
    limited = ("sh", "-c", 'ulimit -n 128; exec "$@"', "sh")
    command = (*limited, sys.executable, "-m", "modelport", "serve")
    with serving(
        str(IDENTITY), "--model-control-mode=explicit", "--load-model=*", command=command
    ) as served:
        assert any("--max-connections is 21, not 4096" in line for line in served.lines)
        host, _, port = served.address.partition(":")
        first = http.client.HTTPConnection(host, int(port), timeout=30)
        first.connect()
        held = [socket.create_connection((host, int(port))) for _ in range(200)]
        for path in ("/v2/repository/models/identity/load", "/v2/models/identity/infer"):
            first.request("POST", path, json.dumps(REQUEST if path.endswith("infer") else {}))
            with first.getresponse() as reply:
                assert (reply.status, reply.read()) == (200, ANY)
        first.close()
        for one in held:
            one.close()


@pytest.mark.slow
def test_a_soft_limit_is_no_limit() -> None:
    """More connections than its soft limit are served, each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 4096:
        pytest.skip("this system lets no process have many files")
    limited = ("sh", "-c", 'ulimit -Sn 64; exec "$@"', "sh")
    command = (*limited, sys.executable, "-m", "modelport", "serve")
    with serving(str(IDENTITY), command=command) as served:
        host, _, port = served.address.partition(":")
        held = [socket.create_connection((host, int(port))) for _ in range(150)]
        for one in held:
            one.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert all(one.recv(15) == b"HTTP/1.1 200 OK" for one in held)
        for one in held:
            one.close()
