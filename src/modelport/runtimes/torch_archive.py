"""Looks into PyTorch's archives before PyTorch reads them, and refuses what could run code.

What PyTorch 2.13 does when it reads them, as its sources show:

**TorchScript** (``torch.jit.save``). The pickles in the archive are read by a reader in C++, which
makes tensors, containers and TorchScript classes, and imports no Python. But a TorchScript class
may have a ``__setstate__``, and that program runs while the file is read. TorchScript's operators
cannot reach Python or start programs; two of them reach files (``from_file``, ``save``), and some
reach other machines. So the text of the programs is searched for these.

**torch.export** (``torch.export.save``). The graph is JSON, but Python is made of it: expressions
for sizes go through ``sympy.sympify``, which evaluates them; guards and the names of nodes become
source that is executed; the names of operators are looked up from ``torch`` downwards and called;
tree specifications may import modules by name. Weights and constants may say of themselves that
they are pickles, and example inputs are unpickled if they are not plain tensors. So every one of
these is held against what an export really writes.

**Anything else** in a ``.pt`` file, a state or a module saved by ``torch.save``, is a pickle.
"""

import ast
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from modelport.errors import LoadFailed

__all__ = ["ArchiveKind", "check_export", "check_script", "kind_of", "sample_inputs"]

ArchiveKind = Literal["script", "export"]

MOST_JSON_BYTES = 256 << 20
"""Of a graph; one of a hundred thousand nodes has some 100 MiB."""


def kind_of(file: Path) -> ArchiveKind:
    """Tell the two kinds of programs apart, and what is none from both.

    Raises:
        LoadFailed: If it is no program, with what to do instead.
    """
    names = [name for name, _ in _records(file)]
    if any(name.startswith("code/") for name in names) and "constants.pkl" in names:
        return "script"
    if any(name.startswith("data/aotinductor/") for name in names):
        raise LoadFailed(
            f"'{file.name}' holds a library that AOTInductor compiled, which is not loaded; save "
            "the program itself with torch.export.save"
        )
    if any(name.startswith("models/") for name in names):
        return "export"
    if "serialized_exported_program.json" in names:
        raise LoadFailed(
            f"'{file.name}' was exported by a PyTorch before 2.8, whose weights are a pickle; "
            "export it again with torch.export.save"
        )
    raise LoadFailed(_no_program(file))


def check_script(file: Path) -> None:
    """Refuse a TorchScript archive whose program reaches files or other machines.

    Raises:
        LoadFailed: Naming the operator.
    """
    with zipfile.ZipFile(file) as archive:
        for name, member in _records(file):
            if not (name.startswith("code/") and name.endswith(".py")):
                continue
            found = _REACHING_OUT.search(archive.read(member).decode("utf-8", "replace"))
            if found is not None:
                raise LoadFailed(
                    f"the TorchScript program in '{file.name}' uses {found[0]}, which reaches "
                    "beyond the model, and is refused; for programs that nobody but you could "
                    "have written there is --allow-pickle-models"
                )


def check_export(file: Path) -> None:
    """Refuse an exported program that holds anything but numbers and a graph of known operators.

    Raises:
        LoadFailed: Naming what it holds.
    """
    with zipfile.ZipFile(file) as archive:
        for name, member in _records(file):
            for problem in _record_problems(archive, name, member):
                raise LoadFailed(
                    f"'{file.name}' holds {problem}, which could run code while it is read, and is "
                    "refused; for programs that nobody but you could have written there is "
                    "--allow-pickle-models"
                )


def sample_inputs(file: Path) -> Iterator[bytes]:
    """Give the example inputs of an exported program, each a pickle."""
    with zipfile.ZipFile(file) as archive:
        for name, member in _records(file):
            if name.startswith("data/sample_inputs/"):
                yield archive.read(member)


def _records(file: Path) -> list[tuple[str, zipfile.ZipInfo]]:
    """The members of an archive, by their names below its one top directory."""
    try:
        with zipfile.ZipFile(file) as archive:
            return [(info.filename.partition("/")[2], info) for info in archive.infolist()]
    except (OSError, zipfile.BadZipFile):
        raise LoadFailed(_no_program(file)) from None


def _no_program(file: Path) -> str:
    return (
        f"'{file.name}' is no program that PyTorch saved; it may hold weights or a pickled module "
        "(torch.save), or have been cut off. Save the model with torch.export.save(program, "
        "'model.pt2'), or with torch.jit.save(module, 'model.pt')"
    )


def _record_problems(archive: zipfile.ZipFile, name: str, member: zipfile.ZipInfo) -> Iterator[str]:
    if _RECORD.fullmatch(name) is None:
        yield f"a record '{name}'"
        return
    if not name.endswith(".json"):
        return
    if member.file_size > MOST_JSON_BYTES:
        yield f"{member.file_size} bytes of '{name}'"
        return
    try:
        document = json.loads(archive.read(member))
    except ValueError:
        yield f"no JSON in '{name}'"
        return
    if name.startswith("models/"):
        yield from _graph_problems(document)
    else:
        yield from _payload_problems(document)


def _payload_problems(document: Any) -> Iterator[str]:
    payloads = document.get("config", {}) if isinstance(document, dict) else {"": None}
    for name, payload in payloads.items():
        match payload:
            case {"use_pickle": False, "path_name": str(path)} if _PAYLOAD.fullmatch(path):
                continue
        yield f"'{_shown(name)}' as a pickle"


def _graph_problems(value: Any, key: str = "") -> Iterator[str]:
    """What of a graph's JSON is not as an export writes it."""
    match value:
        case dict():
            for name, each in value.items():
                if _NAME.fullmatch(name) is None:
                    yield f"the name '{_shown(name)}'"
                elif name == "metadata" and isinstance(each, dict):
                    # Where a node comes from; shown, looked up, and never called.
                    continue
                else:
                    yield from _graph_problems(each, name)
        case list():
            for each in value:
                yield from _graph_problems(each, key)
        case str():
            if not _IS_PLAIN_BY_KEY.get(key, _is_name)(value):
                yield f"'{_shown(value)}' as its {key}"


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _is_any_text(text: str) -> bool:
    # Written into the generated source as a literal.
    return True


def _is_operator(text: str) -> bool:
    return _OPERATOR.fullmatch(text) is not None and _FILES.search(text) is None


def _is_size(text: str) -> bool:
    """Whether it is arithmetic over symbols, as SymPy prints it."""
    return _is_arithmetic(text, _SIZE_FUNCTIONS, methods=frozenset())


def _is_guard(text: str) -> bool:
    """Whether it compares sizes of inputs; it is written into source between double quotes."""
    if any(mark in text for mark in '"\\\n'):
        return False
    return _is_arithmetic(text, _SIZE_FUNCTIONS, methods=_GUARD_METHODS)


def _is_arithmetic(text: str, functions: frozenset[str], methods: frozenset[str]) -> bool:
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name)):
                if name not in functions:
                    return False
            case ast.Call(func=ast.Attribute(attr=name)):
                if name not in methods:
                    return False
            case ast.Call():
                return False
            case ast.Attribute(attr=name):
                if name not in methods:
                    return False
            case ast.Subscript() if not methods:
                return False
            case ast.Name(id=name):
                if "__" in name:
                    return False
            case ast.Constant(value=str(word)):
                if _NAME.fullmatch(word) is None:
                    return False
            case _ if not isinstance(node, _ARITHMETIC):
                return False
    return True


def _is_tree(text: str) -> bool:
    """Whether it describes tuples, lists and dicts of tensors."""
    try:
        document = json.loads(text)
    except ValueError:
        return False
    return text == "" or (
        isinstance(document, list) and len(document) == 2 and _is_tree_node(document[1])
    )


def _is_tree_node(node: Any) -> bool:
    if not isinstance(node, dict) or node.get("type") not in _TREE_TYPES:
        return False
    context = node.get("context")
    keys = json.loads(context) if isinstance(context, str) else context
    is_plain = keys is None or (
        isinstance(keys, list)
        and all(isinstance(each, str) and _KEY.fullmatch(each) for each in keys)
    )
    return is_plain and all(_is_tree_node(child) for child in node.get("children_spec", []))


def _shown(text: str) -> str:
    return text if len(text) <= 60 and text.isprintable() else ascii(text[:60])[1:-1] + "..."


_NAME = re.compile(r"[\w.:@+\-]*")
"""Of nodes, arguments, weights: nothing that could be a call, a string or a second statement."""

_KEY = re.compile(r"[\w.:@+\-/ ]*")
"""Of a dict that a program takes or gives; shown in messages alone."""

_RECORD = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/[\w.]+|\.format_version"
    r"|models/[^/]+\.json"
    r"|data/weights/(weight_\d+|[^/]+_weights_config\.json)"
    r"|data/constants/(tensor_\d+|[^/]+_constants_config\.json)"
    r"|data/sample_inputs/[^/]+\.pt"
    r"|extra/.*"
)
_PAYLOAD = re.compile(r"weight_\d+|tensor_\d+")

_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|quantized|quantized_decomposed|_quantized|torchvision)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(cond|while_loop|scan|map_impl|associative_scan"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|getitem"
    r"|eq|ne|lt|le|gt|ge|and_|or_|xor|not_|lshift|rshift)"
    r"|math\.(ceil|floor|trunc|sqrt|pow|log|exp)"
    r"|torch\.sym_\w+"
)

_FILES = re.compile(r"\b(from_file|save)(?=[.(]|$)")
_REACHING_OUT = re.compile(
    _FILES.pattern + r"|\bops\.(?!(aten|prims?|quantized|_quantized|quantization"
    r"|mkldnn|mkldnn_prepacked|onednn|sparse|torchvision|inductor)\b)\w+|\brpc_\w+|\bc10d\w*"
)
"""Operators of files and of other machines, and whole families that nobody has looked at."""

_SIZE_FUNCTIONS = frozenset(
    (
        "Symbol",
        "Integer",
        "Float",
        "Rational",
        "Add",
        "Mul",
        "Pow",
        "Max",
        "Min",
        "Mod",
        "Abs",
        "And",
        "Or",
        "Not",
        "Eq",
        "Ne",
        "Lt",
        "Le",
        "Equality",
        "Unequality",
        "GreaterThan",
        "LessThan",
        "StrictGreaterThan",
        "StrictLessThan",
        "Gt",
        "Ge",
        "FloorDiv",
        "ModularIndexing",
        "Where",
        "PythonMod",
        "CleanDiv",
        "CeilToInt",
        "FloorToInt",
        "CeilDiv",
        "LShift",
        "RShift",
        "PowByNatural",
        "FloatPow",
        "FloatTrueDiv",
        "IntTrueDiv",
        "IsNonOverlappingAndDenseIndicator",
        "TruncToFloat",
        "TruncToInt",
        "RoundToInt",
        "RoundDecimal",
        "ToFloat",
        "Identity",
        "floor",
        "ceiling",
        "sqrt",
    )
)
_GUARD_METHODS = frozenset(("size", "stride", "storage_offset", "dim", "numel"))
_ARITHMETIC = (
    ast.Expression,
    ast.BinOp,
    ast.UnaryOp,
    ast.BoolOp,
    ast.Compare,
    ast.Constant,
    ast.Subscript,
    ast.Load,
    ast.keyword,
    ast.operator,
    ast.unaryop,
    ast.boolop,
    ast.cmpop,
)
_TREE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict")
_IS_PLAIN_BY_KEY = {
    "as_string": _is_any_text,
    "as_strings": _is_any_text,
    "expr_str": _is_size,
    "guards_code": _is_guard,
    "target": _is_operator,
    "as_operator": _is_operator,
    "in_spec": _is_tree,
    "out_spec": _is_tree,
    "treespec": _is_tree,
}
