"""Text that a model gives, which may be bytes.

Elements of BYTES tensors are ``bytes``, and Triton takes them wherever it takes text: a model may
ask the model whose name a caller has sent.
"""

from modelport.runtimes.triton_python.errors import TritonModelException

__all__ = ["text_of"]


def text_of(given: str | bytes, what: str) -> str:
    """Give text as ``str``.

    Args:
        given: Text, or its UTF-8.
        what: Is told if it is neither.

    Raises:
        TritonModelException: If it is something else.

    >>> text_of(b"add_sub", "the name of a model"), text_of("add_sub", "the name of a model")
    ('add_sub', 'add_sub')
    """
    if isinstance(given, str):
        return given
    if isinstance(given, bytes):
        try:
            return given.decode()
        except UnicodeDecodeError as exc:
            raise TritonModelException(f"{what} is no UTF-8: {given!r}") from exc
    raise TritonModelException(f"{what} has to be text, not {type(given).__name__}")
