"""Which floor may know which: the table of ARCHITECTURE.md as data, and a walk over all imports.

Imports inside functions count as well; those under ``TYPE_CHECKING`` do not run, so they do not.
"""

import ast
import graphlib
import subprocess
import sys
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from modelport.runtimes.registry import RUNTIMES

SOURCE = Path(__file__).parents[1] / "src" / "modelport"


@dataclass(frozen=True)
class Floor:
    """What the modules of one floor may import, beside the root modules and their own floor.

    Attributes:
        ours: Modules of Modelport, with everything in them; one that ends with a dot is only that.
        libraries: What is neither ours nor of the standard library.
        refused: Modules of the standard library that a floor must do without.
    """

    ours: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ("numpy",)
    refused: frozenset[str] = frozenset()


def test_the_table_names_every_floor_that_there_is() -> None:
    packages = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert packages | {"root"} == set(FLOORS)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: module_of(path))
def test_a_module_imports_what_its_floor_may(path: Path) -> None:
    assert wrong_imports(module_of(path), path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("errors", "from modelport.wire import json"),
        ("errors", "import onnxruntime"),
        ("messages", "from msgspec import json"),
        ("wire.v2_rest", "import asyncio"),
        ("wire.v2_rest", "from time import monotonic"),
        ("wire.v2_rest", "from modelport.engine.engine import Engine"),
        ("runtimes.onnx", "from modelport.wire import json"),
        ("runtimes.onnx", "import sklearn"),
        ("runtimes.onnx", "from modelport.runtimes.sklearn_files import read_model"),
        ("runtimes.python_objects", "from modelport.runtimes import triton_python"),
        ("runtimes.arrays", "from modelport.runtimes.onnx import OnnxRuntime"),
        ("runtimes.base", "import onnxruntime"),
        ("repository.loading", "from modelport.wire import v2_rest"),
        ("repository.loading", "from modelport.runtimes.onnx import OnnxRuntime"),
        ("engine.engine", "from modelport.wire import json"),
        ("engine.engine", "import http"),
        ("protocols.v2_rest.infer", "from modelport.runtimes.base import Runtime"),
        ("protocols.v2_rest.infer", "from modelport.engine.batcher import decide"),
        ("protocols.v2_rest.infer", "from modelport.protocols import openai"),
        ("protocols.v2_rest.infer", "import modelport.server.http"),
        ("server.http", "from modelport.client.v2 import Server"),
        ("client.v2", "from modelport.engine.engine import Engine"),
        ("cli.serve", "import onnxruntime"),
        ("cli.serve", "from modelport.engine.engine import Engine"),
        ("server.build", "from modelport.testing.fakes import FakeHost"),
    ],
)
def test_an_import_across_floors_is_found(module: str, statement: str) -> None:
    """The walk itself works, inside functions too."""
    assert wrong_imports(module, statement)
    assert wrong_imports(module, f"def later():\n    if True:\n        {statement}")


def test_no_module_imports_itself_by_way_of_others() -> None:
    """A circle has no first file to read."""
    paths = {module_of(path): path for path in SOURCE.rglob("*.py")}
    graph = {
        module: {
            module_named(name, paths)
            for _, name in imports(ast.parse(path.read_text(encoding="utf-8")))
            if name.startswith("modelport.")
        }
        - {module}
        for module, path in paths.items()
    }
    # Names the circle, if there is one.
    graphlib.TopologicalSorter(graph).prepare()


def test_what_only_the_type_checker_reads_does_not_count() -> None:
    source = "if TYPE_CHECKING:\n    from modelport.engine.engine import Engine"
    assert wrong_imports("wire.v2_rest", source) == []


@pytest.mark.parametrize("statement", ["import modelport", "import modelport.client.v2_infer"])
def test_importing_the_package_or_the_client_loads_no_server_and_no_framework(
    statement: str,
) -> None:
    script = f"{statement}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    loaded = set(done.stdout.split())
    ours = {name for name in loaded if name.startswith("modelport.")}
    assert not {name for name in ours if name.split(".")[1] in ABOVE_THE_CLIENT}
    assert not loaded & (FRAMEWORKS | {"uvloop", "httptools", "google.protobuf", "yaml"})


def test_importing_the_package_loads_nothing_of_it() -> None:
    script = "import modelport, sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True, timeout=60
    )
    ours = {name for name in done.stdout.split() if name.startswith("modelport")}
    assert ours == {"modelport", "modelport._version"}
    assert "numpy" not in done.stdout.split()


def wrong_imports(module: str, source: str) -> list[str]:
    """Tell every import that the floor of a module does not allow.

    Args:
        module: Its name below ``modelport``.
        source: Its text.
    """
    floor = FLOORS[floor_of(module)]
    wrong = []
    for line, name in imports(ast.parse(source)):
        top = name.partition(".")[0]
        if top == "modelport":
            allowed = may_import_ours(module, name.removeprefix("modelport").lstrip("."))
        elif top in sys.stdlib_module_names:
            allowed = top not in floor.refused
        else:
            allowed = name in VALUES or is_below(
                name, (*floor.libraries, *FRAMEWORKS_BY_RUNTIME.get(runtime_of(module), ()))
            )
        if not allowed:
            wrong.append(f"line {line}: {module} imports {name}")
    return wrong


def may_import_ours(module: str, name: str) -> bool:
    here, there = floor_of(module), floor_of(name)
    if there == "root":
        return True
    if here == there == "runtimes":
        return runtime_of(name) in ("", runtime_of(module)) or (module, name) in READS_SOURCE
    if here == there == "protocols":
        package = module.split(".")[1]
        # V2 over REST and V2 over gRPC have their meaning in common, and V1 its ports and images.
        shared = ("v2",) if package.startswith(("v1", "v2_")) else ()
        return name.split(".")[1] in (package, "base", "threads", *shared)
    return here == there or is_below(name, FLOORS[here].ours)


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Give line and full name of everything imported, as ``package.module`` or ``package.name``."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        else:
            yield from imports(node)


def is_below(name: str, allowed: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in allowed)


def module_of(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def module_named(name: str, modules: Container[str]) -> str:
    """Name the module that an import is of, which may be of something in it."""
    name = name.removeprefix("modelport.")
    return name if name in modules else name.rpartition(".")[0]


def floor_of(module: str) -> str:
    first = module.partition(".")[0]
    if first == "__main__":
        return "cli"
    return first if first in FLOORS else "root"


def runtime_of(module: str) -> str:
    """Name the runtime that a file belongs to: ``onnx`` has ``onnx`` and ``onnx_options``.

    Files of the floor that belong to no runtime are what they share; for them it is "".
    """
    floor, _, rest = module.partition(".")
    stem = rest.partition(".")[0]
    if floor != "runtimes":
        return ""
    return next((name for name in RUNTIME_NAMES if stem == name or stem.startswith(f"{name}_")), "")


RUNTIME_NAMES = {row.target.partition(":")[0].split(".")[2] for row in RUNTIMES}

FRAMEWORKS_BY_RUNTIME = {
    "onnx": ("onnxruntime",),
    "sklearn": ("joblib", "sklearn", "skops"),
    "xgboost": ("xgboost",),
    "lightgbm": ("lightgbm",),
    "openvino": ("openvino",),
    "torch": ("torch",),
    "python": ("pydantic", "pydantic_core"),
}
FRAMEWORKS = {name for names in FRAMEWORKS_BY_RUNTIME.values() for name in names}

READS_SOURCE = {
    # Looks into a .py file without running it, and needs nothing of what runs it.
    ("runtimes.registry", "runtimes.python_files.PythonModel"),
    ("runtimes.registry", "runtimes.python_files.models_in_file"),
    ("runtimes.registry", "runtimes.python_files.typed_functions"),
}

ABOVE_THE_CLIENT = {
    "cli",
    "documents",
    "engine",
    "protocols",
    "repository",
    "runtimes",
    "server",
    "services",
    "stores",
    "testing",
}

VALUES = {
    "msgspec.Struct",
    "msgspec.field",
    "msgspec.structs",
    "msgspec.structs.asdict",
    "msgspec.structs.replace",
}
"""How every floor declares values; what reads and writes JSON is for the wire."""

FLOORS = {
    "root": Floor(),
    "wire": Floor(
        libraries=(
            "PIL",
            "google.protobuf",
            "hpack",
            "httptools",
            "msgspec",
            "numpy",
            "orjson",
            "python_multipart",
            "wsproto",
            "yaml",
        ),
        # Bytes know neither sockets nor time: now is an argument, the environment is not theirs.
        refused=frozenset(
            {
                "asyncio",
                "logging",
                "os",
                "selectors",
                "signal",
                "socket",
                "ssl",
                "threading",
                "time",
            }
        ),
    ),
    # Types of values and how they are declared; the kinds of values import their libraries.
    "services": Floor(
        libraries=(
            "PIL",
            "a2wsgi",
            "numpy",
            "orjson",
            "pandas",
            "pydantic",
            "pydantic_core",
            "tensorflow",
            "torch",
            "uvloop",
        ),
    ),
    # service, because its models are declared there.
    "runtimes": Floor(ours=("services",)),
    "stores": Floor(),
    "repository": Floor(
        # base, because a repository brings runtimes up and down by their contract.
        ours=("runtimes.base", "runtimes.registry", "wire.model_config"),
    ),
    "engine": Floor(
        ours=("repository", "runtimes.base", "runtimes.registry", "stores.base"),
        # Models whose execute is async get a loop of their own, of the quick kind.
        libraries=("numpy", "uvloop"),
        refused=frozenset({"http", "socket", "ssl", "urllib"}),
    ),
    "protocols": Floor(
        ours=("documents", "engine.engine", "engine.tasks", "stores.base", "wire"),
        refused=frozenset({"http", "socket", "ssl"}),
    ),
    "server": Floor(
        ours=("engine", "protocols", "repository", "runtimes", "services", "stores", "wire"),
        libraries=("numpy", "uvloop"),
    ),
    # Results become objects of these, if the caller's own code has them: client/values.py alone.
    "client": Floor(ours=("wire",), libraries=("PIL", "numpy", "pandas", "torch")),
    "cli": Floor(ours=("client", "server")),
    # Ships to others what our own tests use; nothing that is served may know it.
    "testing": Floor(
        ours=(
            "client",
            "engine",
            "protocols",
            "repository",
            "runtimes",
            "server",
            "services",
            "stores",
            "wire",
        ),
        libraries=("numpy", "pytest"),
    ),
}
