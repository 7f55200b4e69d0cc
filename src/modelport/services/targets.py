"""Which services a target holds: looked for in its text first, imported only when there are any."""

import ast
import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from modelport.errors import LoadFailed

if TYPE_CHECKING:
    from modelport.services.declaration import Service

__all__ = ["holds_services", "import_services"]

MODULES = ("modelport", "modelport.services.declaration")


def holds_services(target: str) -> bool:
    """Whether a target of ``modelport serve`` is Python code that declares services.

    No code of it is run: a file is read as a syntax tree.
    """
    found = _locate(target)
    if found is None:
        return False
    file, attribute = found
    try:
        tree = ast.parse(file.read_bytes())
    except (SyntaxError, OSError, ValueError):
        # Whoever reads it next says what is wrong with it.
        return False
    names = _decorator_names(tree)
    if not names:
        return False
    declared = [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and _is_decorated(node, names)
    ]
    declared += [
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and _calls(node.value, names)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    return attribute in declared if attribute else bool(declared)


def import_services(target: str) -> "list[Service[Any]]":
    """Import the code of a target and give its services.

    Without an attribute these are all that the file itself declares and no other one of them
    depends on; the others are part of those.

    Raises:
        LoadFailed: It cannot be imported, or has no such service.
    """
    from modelport.services.declaration import Service

    found = _locate(target)
    if found is None:
        raise LoadFailed(f"'{target}': there is no such Python file or module")
    file, attribute = found
    module = _import(file, target)
    if attribute:
        service = getattr(module, attribute, None)
        if not isinstance(service, Service):
            raise LoadFailed(
                f"'{target}': '{attribute}' is no service; put @modelport.service above it"
            )
        return [service]
    declared = {id(each): each for each in vars(module).values() if isinstance(each, Service)}
    own = [each for each in declared.values() if each.__module__ == module.__name__]
    candidates = own or list(declared.values())
    needed = {
        id(dependency.on)
        for each in candidates
        for dependency in each.dependencies.values()
        if isinstance(dependency.on, Service)
    }
    services = [each for each in candidates if id(each) not in needed]
    if not services:
        raise LoadFailed(f"'{target}' declares no service")
    return services


def _locate(target: str) -> tuple[Path, str] | None:
    """Give the file of a target, and the attribute where one is named."""
    path = Path(target)
    if path.is_dir():
        file = path / "service.py"
        return (file.resolve(), "") if file.is_file() else None
    if path.is_file():
        return (path.resolve(), "") if path.suffix == ".py" else None
    module, colon, attribute = target.rpartition(":")
    if not colon:
        module, attribute = target, ""
    elif not attribute.isidentifier():
        return None
    if Path(module).is_file() and module.endswith(".py"):
        return Path(module).resolve(), attribute
    if not all(part.isidentifier() for part in module.split(".")):
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin or not spec.origin.endswith(".py"):
        return None
    return Path(spec.origin).resolve(), attribute


def _decorator_names(tree: ast.Module) -> set[str]:
    """How a file spells ``modelport.service``."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == "modelport":
                    names.add(f"{alias.asname or alias.name}.service")
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            for alias in node.names:
                if alias.name == "service":
                    names.add(alias.asname or alias.name)
    return names


def _is_decorated(node: ast.ClassDef, names: set[str]) -> bool:
    return any(
        ast.unparse(each.func if isinstance(each, ast.Call) else each) in names
        for each in node.decorator_list
    )


def _calls(value: ast.expr, names: set[str]) -> bool:
    """``service(...)`` or ``service(...)(...)``."""
    while isinstance(value, ast.Call):
        value = value.func
        if ast.unparse(value) in names:
            return True
    return False


def _import(file: Path, target: str) -> ModuleType:
    """Import a file under its own name, with its neighbours importable as in any script."""
    directory = str(file.parent)
    name = file.stem
    loaded = sys.modules.get(name)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    if directory not in sys.path:
        sys.path.insert(0, directory)
    if loaded is not None:
        # Somebody else's module of the same name stays what it is.
        name = f"modelport_service_{name}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise LoadFailed(f"'{target}' cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as exc:
        del sys.modules[name]
        raise LoadFailed(
            f"importing '{file.name}' failed{_place(exc, file)}: {type(exc).__name__}: {exc}"
        ) from exc
    return module


def _place(exc: BaseException, file: Path) -> str:
    frames = traceback.extract_tb(exc.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(file)]
    return f" in line {lines[-1]}" if lines else ""
