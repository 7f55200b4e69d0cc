"""Which models a Python file holds, found without running it.

A file is read as a syntax tree, because looking at a repository must not start anybody's code:
that happens when a model is loaded, and only then.
"""

import ast
import threading
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from modelport.errors import LoadFailed

__all__ = ["PythonModel", "models_in_file", "typed_functions"]

TRITON_CLASS = "TritonPythonModel"


class PythonModel(Struct, frozen=True):
    """One model of a Python file.

    Attributes:
        name: What it is served as, if nobody gives it another name.
        attribute: The module's name for it.
        runtime: Name of the registry's row: ``python`` or ``triton_python``.
    """

    name: str
    attribute: str
    runtime: str


def models_in_file(path: Path) -> list[PythonModel]:
    """List the models that a Python file defines at its top level, in their order.

    That is a class ``TritonPythonModel``, defined or imported, and whatever is decorated with
    ``@modelport.model``, however that was imported: functions, classes, and methods of classes.

    Raises:
        LoadFailed: If the file cannot be read or is no Python.
    """
    statements = _statements(path)
    decorators = _decorator_names(statements)
    return [
        model for statement in statements for model in _models_of(statement, decorators, path.stem)
    ]


def typed_functions(path: Path) -> list[str]:
    """Names of the functions, not private ones, whose annotations could make them models.

    Raises:
        LoadFailed: If the file cannot be read or is no Python.
    """
    return [
        statement.name
        for statement in _statements(path)
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef)
        and not statement.name.startswith("_")
        and statement.returns is not None
        and all(each.annotation for each in (*statement.args.args, *statement.args.kwonlyargs))
    ]


def _statements(path: Path) -> list[ast.stmt]:
    try:
        source = path.read_bytes()
        with _parsing:
            tree = ast.parse(source)
    except SyntaxError as exc:
        raise LoadFailed(f"'{path.name}' line {exc.lineno}: {exc.msg}") from exc
    except OSError as exc:
        reason = (exc.strerror or type(exc).__name__).lower()
        raise LoadFailed(f"'{path.name}' cannot be read: {reason}") from exc
    except ValueError as exc:
        raise LoadFailed(f"cannot read '{path.name}' as Python: {exc}") from exc
    return list(_top_level(tree.body))


def _top_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run on import, those under ``if`` and ``try`` included."""
    for statement in body:
        yield statement
        match statement:
            case ast.If(body=then, orelse=otherwise):
                yield from _top_level(then)
                yield from _top_level(otherwise)
            case ast.Try(body=then, orelse=otherwise, handlers=handlers):
                yield from _top_level(then)
                for handler in handlers:
                    yield from _top_level(handler.body)
                yield from _top_level(otherwise)


def _decorator_names(statements: list[ast.stmt]) -> set[str]:
    """How this file spells ``modelport.model``."""
    names = set()
    for statement in statements:
        match statement:
            case ast.Import(names=aliases):
                for alias in aliases:
                    if alias.name == "modelport":
                        names.add(f"{alias.asname or alias.name}.model")
            case ast.ImportFrom(module="modelport", names=aliases):
                for alias in aliases:
                    if alias.name == "model":
                        names.add(alias.asname or alias.name)
    return names


def _models_of(statement: ast.stmt, decorators: set[str], stem: str) -> Iterator[PythonModel]:
    match statement:
        case ast.ClassDef(name=name) if name == TRITON_CLASS:
            yield PythonModel(stem, name, "triton_python")
        case ast.ImportFrom(names=aliases):
            if any((alias.asname or alias.name) == TRITON_CLASS for alias in aliases):
                yield PythonModel(stem, TRITON_CLASS, "triton_python")
        case (
            ast.FunctionDef(name=name, decorator_list=above)
            | ast.AsyncFunctionDef(name=name, decorator_list=above)
            | ast.ClassDef(name=name, decorator_list=above)
        ):
            for decorator in above:
                if ast.unparse(_called(decorator)) in decorators:
                    yield PythonModel(_given_name(decorator) or name, name, "python")
            if isinstance(statement, ast.ClassDef):
                for inner in statement.body:
                    for model in _models_of(inner, decorators, stem):
                        if model.runtime == "python" and "." not in model.attribute:
                            yield replace(model, attribute=f"{name}.{model.attribute}")
        # The decorator may also be applied by hand: affine = modelport.model(...)(function)
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Call() as call)):
            if ast.unparse(call.func) in decorators:
                yield PythonModel(_given_name(call) or name, name, "python")
        case ast.Assign(targets=[ast.Name(id=name)]) if name == TRITON_CLASS:
            yield PythonModel(stem, name, "triton_python")


def _called(decorator: ast.expr) -> ast.expr:
    """The function of ``@function(...)`` and of ``@function``."""
    return decorator.func if isinstance(decorator, ast.Call) else decorator


def _given_name(decorator: ast.expr) -> str:
    for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
        match keyword:
            case ast.keyword(arg="name", value=ast.Constant(value=str(name))):
                return name
    return ""


# Two threads that parse at once can confuse CPython before 3.12: "AST constructor recursion depth
# mismatch", https://github.com/python/cpython/issues/106905.
_parsing = threading.Lock()
