"""The one idea behind every plug-point: a frozen dataclass, configuration and object at once.

It stands in the lowest package because everything above is made of it: datasets, networks,
attributions, losses, metrics, and the results that a sweep asks for.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import math
import pkgutil
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, Union, get_args, get_origin


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A thing with hyper-parameters: comparable, printable, picklable, with a key and an id.

    Subclasses are frozen, keyword-only dataclasses whose fields are str, bool, int, finite float,
    None, tuples of these, or other configurations. Values are coerced to the annotated type at
    construction, so that equal configurations have equal ids. Never a tensor, an array or a
    generator.

    A *family* (``class Loss(Configuration, family=True)``) remembers its subclasses by ``name``.

    Raises:
        ValueError: a value does not fit its annotation; names class, field, value and what fits.
        TypeError: two classes of one family bear the same name.
    """

    name: ClassVar[str]
    """What the class is called on the command line, in ids, metric names and tables."""
    revision: ClassVar[int] = 1
    """Raised by hand when results of the class would change."""
    registered: ClassVar[dict[str, type[Any]]]
    _hints: ClassVar[dict[str, Any]]

    def __init_subclass__(cls, *, family: bool = False, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if family:
            cls.registered = {}
        elif "name" in cls.__dict__ and hasattr(cls, "registered"):
            known = cls.registered.setdefault(cls.name, cls)
            if known.__qualname__ != cls.__qualname__ or known.__module__ != cls.__module__:
                raise TypeError(
                    f"{known.__module__}.{known.__qualname__} and "
                    f"{cls.__module__}.{cls.__qualname__} "
                    f"are both named {cls.name!r}"
                )
            cls.registered[cls.name] = cls

    def __post_init__(self) -> None:
        """Coerce and check every field; subclasses that add checks call this first."""
        for f, hint in annotated_fields(type(self)):
            value = getattr(self, f.name)
            try:
                object.__setattr__(self, f.name, coerce(value, hint))
            except ValueError as error:
                raise ValueError(f"{type(self).__name__}.{f.name} = {value!r}: {error}") from None

    @classmethod
    def class_named(cls, name: str) -> type[Self]:
        """The registered class of that name; ValueError lists the known names."""
        if name not in cls.registered:
            kind = cls.__name__.lower()
            raise ValueError(f"unknown {kind} {name!r}; known: {', '.join(sorted(cls.registered))}")
        return cls.registered[name]

    @classmethod
    def named(cls, name: str, **values: Any) -> Self:
        """Build the registered class of that name with these field values.

        Raises:
            ValueError: there is no such class, or it needs more than these; says what.
        """
        named = cls.class_named(name)
        missing = [
            f.name
            for f, _ in annotated_fields(named)
            if f.name not in values and isinstance(default_of(f), type(MISSING))
        ]
        if missing:
            raise ValueError(
                f"{cls.__name__.lower()} {name!r} is none by itself: it needs {', '.join(missing)}"
            )
        return named(**values)

    @property
    def key(self) -> str:
        """Name plus every field that differs from its default, short enough for tables.

        A field's metadata may hold ``short``, its abbreviation: ``sds_p64_blur``. Booleans go by
        name, strings and configurations by value. Fields outside the identity are left out.
        """
        parts = [self.name]
        for f, _ in annotated_fields(type(self)):
            value = getattr(self, f.name)
            if not is_identity(f) or value == default_of(f):
                continue
            short = f.metadata.get("short", f.name)
            if isinstance(value, bool):
                parts.append(short if value else f"no_{short}")
            elif isinstance(value, Configuration):
                parts.append(value.key)
            elif isinstance(value, str):
                parts.append(value)
            elif isinstance(value, tuple):
                parts.append(
                    short
                    + "_".join(v.key if isinstance(v, Configuration) else str(v) for v in value)
                )
            else:
                parts.append(f"{short}{value:g}" if isinstance(value, float) else f"{short}{value}")
        return "_".join(parts)

    def canonical(self) -> dict[str, Any]:
        """Plain JSON form that the id is made of.

        A nested configuration is always written; a plain value only where it differs from its
        default, so that a field added later with a default changes no id. Fields outside the
        identity are left out.
        """
        form: dict[str, Any] = {"name": self.name, "revision": self.revision}
        for f, _ in annotated_fields(type(self)):
            value = getattr(self, f.name)
            if is_identity(f) and (holds_configuration(value) or value != default_of(f)):
                form[f.name] = plain(value)
        return form

    @property
    def result_id(self) -> str:
        """16 hex digits of the canonical form's sha256: the identity of what this yields."""
        text = json.dumps(self.canonical(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def outside_identity(**kwargs: Any) -> Any:
    """A dataclass field that says where or how, not what (a path): part of no id and no key."""
    return field(metadata={"identity": False}, **kwargs)


def is_identity(f: Field[Any]) -> bool:
    """Whether the field belongs to ids and keys."""
    return bool(f.metadata.get("identity", True))


def default_of(f: Field[Any]) -> Any:
    """The field's default value, or MISSING.

    A plug-in's class goes to the workers by value, and with it a copy of MISSING.
    """
    if callable(f.default_factory):
        return f.default_factory()
    return MISSING if isinstance(f.default, type(MISSING)) else f.default


_annotated: dict[type, tuple[tuple[Field[Any], Any], ...]] = {}


def annotated_fields(cls: type[Configuration]) -> tuple[tuple[Field[Any], Any], ...]:
    """Each dataclass field of the class with its resolved annotation; resolved once a class."""
    if cls not in _annotated:
        if "_hints" not in vars(cls):
            # on the class itself: a plug-in's class goes to the workers by value, without the names
            # of the module that its annotations are written in
            cls._hints = typing.get_type_hints(cls)
        _annotated[cls] = tuple((f, cls._hints[f.name]) for f in fields(cls))
    return _annotated[cls]


def holds_configuration(value: Any) -> bool:
    """Whether the value is, or contains, a configuration."""
    return isinstance(value, Configuration) or (
        isinstance(value, tuple) and any(holds_configuration(v) for v in value)
    )


def plain(value: Any) -> Any:
    """Configurations and tuples as JSON objects and lists."""
    if isinstance(value, Configuration):
        return value.canonical()
    return [plain(v) for v in value] if isinstance(value, tuple) else value


def coerce(value: Any, hint: Any) -> Any:
    """The value as its annotated type: 1 becomes 1.0 for a float, a list becomes a tuple.

    Raises:
        ValueError: the value does not fit, or is a NaN, an infinity or a numpy scalar; says what
            is allowed.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        for choice in arguments:
            try:
                return coerce(value, choice)
            except ValueError:
                continue
        raise ValueError(f"expected one of {', '.join(type_name(a) for a in arguments)}")
    if origin is Literal:
        if value not in arguments:
            raise ValueError(f"expected one of {', '.join(map(repr, arguments))}")
        return value
    if origin is tuple:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise ValueError("expected a sequence")
        if arguments[-1] is Ellipsis:
            return tuple(coerce(v, arguments[0]) for v in value)
        if len(value) != len(arguments):
            raise ValueError(f"expected {len(arguments)} values")
        return tuple(coerce(v, a) for v, a in zip(value, arguments, strict=True))
    if hint is type(None):
        if value is not None:
            raise ValueError("expected None")
        return None
    if hint is float and type(value) in (int, float):
        if not math.isfinite(value):
            raise ValueError("expected a finite number")
        return float(value) + 0.0  # -0.0 + 0.0 is 0.0
    if hint in (bool, int, str) and type(value) is hint:
        return value
    if isinstance(hint, type) and issubclass(hint, Configuration) and isinstance(value, hint):
        return value
    raise ValueError(f"expected {type_name(hint)}, got {type(value).__name__}")


def type_name(hint: Any) -> str:
    """How an annotation is called in a message."""
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))


def import_file(path: Path) -> types.ModuleType:
    """Import a user's own file, so that its classes are registered.

    Raises:
        ValueError: there is no such file, or it is no Python file.
    """
    if not path.is_file():
        raise ValueError(f"--plugins {path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"--plugins {path}: expected a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def import_files_of(package: str, path: Sequence[str]) -> None:
    """Import every module of a plug-in package, so that its classes are registered."""
    for module in pkgutil.iter_modules(path):
        if module.name == "__main__":  # a command, which would run
            continue
        importlib.import_module(f"{package}.{module.name}")
