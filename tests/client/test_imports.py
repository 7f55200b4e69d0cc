import subprocess
import sys

FOREIGN = {
    "PIL", "google", "hpack", "msgspec", "onnxruntime", "pandas", "pydantic", "sklearn", "torch",
    "uvloop", "wsproto", "yaml",
}  # fmt: skip
OURS = {"cli", "engine", "protocols", "repository", "runtimes", "server", "services", "stores"}


def test_the_client_brings_no_server_and_no_framework() -> None:
    names = "AsyncHTTPClient, SyncHTTPClient"
    program = f"from modelport.client.bentoml import {names}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    modules = done.stdout.split()
    assert "modelport.client.bentoml" in modules, done.stderr
    assert not {name.partition(".")[0] for name in modules} & FOREIGN
    assert not {name for name in modules if name.startswith("modelport.")} & {
        f"modelport.{floor}" for floor in OURS
    }


def test_who_waits_for_answers_pays_for_no_event_loop() -> None:
    program = "from modelport.client.bentoml import SyncHTTPClient; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    modules = set(done.stdout.split())
    assert "modelport.client.bentoml.blocking" in modules, done.stderr
    assert not modules & {"asyncio", "email", "mimetypes", "numpy.ma", "python_multipart"}
