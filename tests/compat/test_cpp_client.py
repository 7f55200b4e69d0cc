"""A client in C++, built from our .proto files with Debian's compiler and libraries.

``apt-get install g++ libgrpc++-dev protobuf-compiler-grpc`` brings what it takes. Compiling the
stubs takes a minute, so what was built stays in ``build/`` until its sources change.
"""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "src" / "modelport" / "wire" / "proto"
CLIENT = Path(__file__).parent / "cpp" / "client.cc"
SOURCES = (PROTO / "model_config.proto", PROTO / "grpc_service.proto", CLIENT)
TOOLS = ("g++", "protoc", "grpc_cpp_plugin", "pkg-config")

pytestmark = [pytest.mark.compat, pytest.mark.slow]


@pytest.fixture(scope="module")
def client() -> Path:
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.skip(
            f"no {', '.join(missing)}: apt-get install g++ libgrpc++-dev protobuf-compiler-grpc"
        )
    if subprocess.run(["pkg-config", "--exists", "grpc++"], check=False).returncode:
        pytest.skip("no libgrpc++: apt-get install libgrpc++-dev")
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in SOURCES)).hexdigest()
    built = ROOT / "build" / "cpp-client" / digest[:16]
    if not (built / "client").exists():
        shutil.rmtree(built.parent, ignore_errors=True)
        build(built)
    return built / "client"


def build(into: Path) -> None:
    into.mkdir(parents=True)
    plugin = shutil.which("grpc_cpp_plugin")
    run(
        "protoc", f"--proto_path={PROTO}", f"--cpp_out={into}", f"--grpc_out={into}",
        f"--plugin=protoc-gen-grpc={plugin}", "model_config.proto", "grpc_service.proto",
    )  # fmt: skip
    flags = run("pkg-config", "--cflags", "--libs", "grpc++", "protobuf").split()
    stubs = sorted(map(str, into.glob("*.cc")))
    # Under another name until it is whole.
    run("g++", "-std=c++17", "-O0", "-o", str(into / "part"), str(CLIENT), *stubs, f"-I{into}",
        *flags)  # fmt: skip
    (into / "part").rename(into / "client")


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr}"
    return done.stdout


def test_a_client_in_another_language_is_served(client: Path, addresses: dict[str, str]) -> None:
    told = run(str(client), addresses["SERVER_ADDRESS"]).splitlines()
    assert told[-1] == "all is well"
    assert "typed: the sums are right" in told
    assert "raw: the bytes are the same" in told
    assert "stream: the words come one by one" in told
