"""Every module says what it offers, and what it says is true."""

import ast
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

WITHOUT = {
    "modelport/__main__.py": "runs, and is not imported",
    "modelport/_version.py": "holds one name, read by the build",
    "triton_python_backend_utils.py": "is another name for modelport's module",
}
MODULES = sorted(
    path
    for path in SOURCE.rglob("*.py")
    # A package may have nothing to say but what is in it.
    if len(ast.parse(path.read_text(encoding="utf-8")).body) > 1
    and not path.stem.endswith("_pb2")
    and path.relative_to(SOURCE).as_posix() not in WITHOUT
)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_module_has_what_it_offers(path: Path) -> None:
    offered = exports(path)
    assert offered is not None, "no __all__"
    assert sorted(set(offered)) == sorted(offered)
    assert set(offered) <= names_of(path) | lazy_names(path)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_module_takes_from_others_what_they_offer(path: Path) -> None:
    hidden = [
        f"{node.module}.{alias.name}"
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if is_hidden(node.module or "", alias.name)
    ]
    assert hidden == []


def is_hidden(module: str, name: str) -> bool:
    path = SOURCE / f"{module.replace('.', '/')}.py"
    if not path.exists():
        path = path.with_suffix("") / "__init__.py"
    offered = exports(path) if path in MODULES else None
    return offered is not None and name not in offered and not (path.parent / f"{name}.py").exists()


def exports(path: Path) -> list[str] | None:
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            offered: list[str] = ast.literal_eval(node.value)
            return offered
    return None


def names_of(path: Path) -> set[str]:
    """Names that a module defines or imports at its top."""
    names: set[str] = set()
    for node in tree(path).body:
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                names.add(node.name)
            case ast.Assign():
                names |= {ast.unparse(target) for target in node.targets}
            case ast.AnnAssign():
                names.add(ast.unparse(node.target))
            case ast.Import() | ast.ImportFrom():
                names |= {alias.asname or alias.name for alias in node.names}
            case _:
                pass
    return names


def lazy_names(path: Path) -> set[str]:
    """Names that a package imports when they are first used."""
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULE_BY_NAME":
            return set(ast.literal_eval(node.value))
    return set()


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
