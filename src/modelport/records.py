"""Records: frozen values whose fields say more than a name, a type and a default.

``@dataclass`` writes and compiles six methods for every class, 0.3 to 3 ms each time, and every
start of the server must wait for that. Plain values are ``msgspec.Struct`` for this reason, which
costs 15 µs; where the metadata of ``dataclasses.field`` is needed there is :class:`Record`.
"""

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field
from typing import Any, ClassVar, dataclass_transform

__all__ = ["Record"]


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class Record:
    """A frozen dataclass that costs little to define.

    The methods that ``@dataclass`` writes anew for every class are the same for all of them here.
    Fields are given by name, and may be hashed, compared, shown and replaced
    (``dataclasses.replace``) like those of any dataclass.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __init_subclass__(cls) -> None:
        dataclass(init=False, repr=False, eq=False, match_args=False)(cls)

    def __init__(self, **values: Any) -> None:
        own = self.__dict__
        for name, entry in self.__dataclass_fields__.items():
            if name in values:
                own[name] = values.pop(name)
            elif entry.default is not MISSING:
                own[name] = entry.default
            elif entry.default_factory is not MISSING:
                own[name] = entry.default_factory()
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.__dict__ == self.__dict__

    def __hash__(self) -> int:
        return hash((type(self), *self.__dict__.values()))

    def __repr__(self) -> str:
        fields = self.__dataclass_fields__
        shown = ", ".join(
            f"{name}={value!r}" for name, value in self.__dict__.items() if fields[name].repr
        )
        return f"{type(self).__name__}({shown})"
