"""The base of every plug-point: coercion, refusals, keys, the canonical form."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import pytest

import trainables.models.probed  # noqa: F401  registers
from data_pipelines.configuration import (
    Configuration,
    coerce,
    default_of,
    import_files_of,
    outside_identity,
)
from trainables.models.network import Network


@dataclass(frozen=True, kw_only=True)
class Tool(Configuration, family=True):
    """A family of its own, so that these tests register nothing elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Saw(Tool):
    name: ClassVar[str] = "saw"

    teeth: int = field(default=20, metadata={"short": "t"})
    pitch: float = 2.5
    hardened: bool = False
    grip: str = "oak"


@dataclass(frozen=True, kw_only=True)
class Plane(Tool):
    name: ClassVar[str] = "plane"

    teeth: int = field(default=20, metadata={"short": "t"})
    pitch: float = 2.5
    hardened: bool = False
    grip: str = "oak"


@dataclass(frozen=True, kw_only=True)
class Box(Tool):
    name: ClassVar[str] = "box"

    first: Tool = Saw()
    rest: tuple[Tool, ...] = ()
    label: str | None = None
    sizes: tuple[float, ...] = ()
    corner: tuple[int, str] = (1, "a")
    lid: Literal["flat", "round"] = "flat"
    limit: float | Literal["none"] = 1.0
    shelf: str = outside_identity(default="")


@pytest.mark.parametrize(
    ("value", "hint", "expected"),
    [
        (1, float, 1.0),
        (-0.0, float, 0.0),
        (3, int, 3),
        (True, bool, True),
        ("x", str, "x"),
        (None, int | None, None),
        (2, int | None, 2),
        (0.5, float | Literal["tuned"], 0.5),
        ("tuned", float | Literal["tuned"], "tuned"),
        ([1, 2], tuple[float, ...], (1.0, 2.0)),
        ((), tuple[int, ...], ()),
        ([1, "a"], tuple[int, str], (1, "a")),
        ("b", Literal["a", "b"], "b"),
        (Saw(), Tool, Saw()),
    ],
)
def test_values_are_coerced_to_their_annotation(value, hint, expected):
    result = coerce(value, hint)
    assert result == expected
    assert type(result) is type(expected)
    assert str(result) == str(expected)  # -0.0 is equal to 0.0 but has another canonical form


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (float("nan"), float, "expected a finite number"),
        (float("inf"), float, "expected a finite number"),
        (np.float64(1.0), float, "expected float, got float64"),
        (np.int64(1), int, "expected int, got int64"),
        (np.bool_(True), bool, "expected bool"),
        (np.array([1.0]), tuple[float, ...], "expected a sequence"),
        (True, int, "expected int, got bool"),
        (True, float, "expected float, got bool"),
        (1, bool, "expected bool, got int"),
        (1.0, int, "expected int, got float"),
        ("1", int, "expected int, got str"),
        (None, int, "expected int, got NoneType"),
        ("abc", tuple[str, ...], "expected a sequence"),
        ([1, 2, 3], tuple[int, int], "expected 2 values"),
        (["a"], tuple[int, ...], "expected int, got str"),
        ("c", Literal["a", "b"], "expected one of 'a', 'b'"),
        ("x", int | None, "expected one of int, None"),
        ("saw", Tool, "expected Tool, got str"),
        ({"a": 1}, str, "expected str, got dict"),
    ],
)
def test_values_that_do_not_fit_are_refused(value, hint, message):
    with pytest.raises(ValueError, match=message):
        coerce(value, hint)


def test_a_refusal_names_class_field_value_and_what_is_allowed():
    with pytest.raises(ValueError, match=r"Saw.teeth = 2.5: expected int, got float"):
        Saw(teeth=2.5)
    with pytest.raises(ValueError, match=r"Box.lid = 'oval': expected one of 'flat', 'round'"):
        Box(lid="oval")
    with pytest.raises(TypeError, match="tooth"):
        Saw(tooth=3)


def test_configurations_are_values():
    assert Saw(pitch=3) == Saw(pitch=3.0)
    assert hash(Saw(pitch=3)) == hash(Saw(pitch=3.0))
    assert Saw() != Plane()
    assert pickle.loads(pickle.dumps(Box(rest=[Saw()]))) == Box(rest=(Saw(),))  # our own bytes
    with pytest.raises(FrozenInstanceError):
        Saw().teeth = 3


@pytest.mark.parametrize(
    ("one", "key"),
    [
        (Saw(), "saw"),
        (Saw(teeth=32), "saw_t32"),
        (Saw(pitch=3, hardened=True), "saw_pitch3_hardened"),
        (Saw(pitch=1e-3), "saw_pitch0.001"),
        (Saw(grip="ash"), "saw_ash"),
        (Box(), "box"),
        (Box(shelf="/left"), "box"),
        (Box(first=Plane(teeth=8)), "box_plane_t8"),
        (Box(rest=(Saw(), Plane())), "box_restsaw_plane"),
        (Box(limit="none"), "box_none"),
        (Box(label="x", lid="round"), "box_x_round"),
    ],
)
def test_a_key_is_the_name_and_what_differs_from_the_defaults(one, key):
    assert one.key == key


def test_booleans_are_named_in_keys_also_where_they_are_off():
    @dataclass(frozen=True, kw_only=True)
    class Kept(Configuration):
        name: ClassVar[str] = "kept"
        dry: bool = True

    assert Kept(dry=False).key == "kept_no_dry"


def test_the_canonical_form_holds_differences_and_every_nested_configuration():
    assert Saw().canonical() == {"name": "saw", "revision": 1}
    assert Saw(teeth=32).canonical() == {"name": "saw", "revision": 1, "teeth": 32}
    assert Box().canonical() == {
        "name": "box",
        "revision": 1,
        "first": {"name": "saw", "revision": 1},
    }
    assert Box(rest=(Plane(),), sizes=(1, 2)).canonical() == {
        "name": "box",
        "revision": 1,
        "first": {"name": "saw", "revision": 1},
        "rest": [{"name": "plane", "revision": 1}],
        "sizes": [1.0, 2.0],
    }


def test_ids_are_16_hex_digits_of_the_canonical_form():
    ids = [one.result_id for one in (Saw(), Plane(), Saw(teeth=32), Box(), Box(first=Plane()))]
    assert len(set(ids)) == 5
    assert all(len(i) == 16 and int(i, 16) >= 0 for i in ids)
    assert Box(shelf="/left").result_id == Box().result_id
    assert Saw(pitch=-0.0).result_id == Saw(pitch=0).result_id
    assert json.loads(json.dumps(Box(rest=[Saw()]).canonical())) == Box(rest=[Saw()]).canonical()


def test_a_field_that_is_added_with_a_default_changes_no_id():
    @dataclass(frozen=True, kw_only=True)
    class Longer(Saw):
        spare: int = 0

    assert Longer().result_id == Saw().result_id
    assert Longer(spare=1).result_id != Saw().result_id


def test_a_raised_revision_changes_the_ids_of_all_that_hold_the_class(monkeypatch):
    holders: list[Any] = [Saw(), Box(), Box(first=Plane(), rest=(Box(first=Saw()),))]
    others: list[Any] = [Plane(), Box(first=Plane())]
    before = [one.result_id for one in holders + others]
    monkeypatch.setattr(Saw, "revision", 2)
    after = [one.result_id for one in holders + others]
    assert [a != b for a, b in zip(before, after, strict=True)] == [True] * 3 + [False] * 2


def test_classes_are_found_by_name():
    assert Tool.registered == {"saw": Saw, "plane": Plane, "box": Box}
    assert Tool.class_named("saw") is Saw
    assert Tool.named("saw", teeth=3) == Saw(teeth=3)
    with pytest.raises(ValueError, match="unknown tool 'axe'; known: box, plane, saw"):
        Tool.named("axe")


def test_two_classes_of_one_name_are_refused():
    with pytest.raises(TypeError, match=r"test_configuration.Saw and .*Other are both named 'saw'"):

        @dataclass(frozen=True, kw_only=True)
        class Other(Tool):
            name: ClassVar[str] = "saw"

    assert Tool.registered["saw"] is Saw


def test_families_do_not_see_each_other():
    @dataclass(frozen=True, kw_only=True)
    class Wood(Configuration, family=True):
        """Another family."""

    @dataclass(frozen=True, kw_only=True)
    class WoodSaw(Wood):
        name: ClassVar[str] = "saw"

    assert Wood.registered == {"saw": WoodSaw}
    assert Tool.registered["saw"] is Saw


def test_checks_of_a_subclass_see_coerced_values():
    @dataclass(frozen=True, kw_only=True)
    class Checked(Configuration):
        name: ClassVar[str] = "checked"
        sizes: tuple[float, ...] = ()

        def __post_init__(self) -> None:
            super().__post_init__()
            if any(type(size) is not float for size in self.sizes):
                raise AssertionError

    assert replace(Checked(), sizes=[1, 2]).sizes == (1.0, 2.0)


def test_defaults_made_by_a_factory_are_known():
    @dataclass(frozen=True, kw_only=True)
    class Made(Configuration):
        name: ClassVar[str] = "made"
        sizes: tuple[int, ...] = field(default_factory=lambda: (1, 2))

    assert Made().key == "made"
    assert default_of(Made.__dataclass_fields__["sizes"]) == (1, 2)
    assert Made().canonical() == {"name": "made", "revision": 1}


def test_a_package_imports_its_own_files(tmp_path, monkeypatch):
    package = tmp_path / "toolshed"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "hammer.py").write_text("imported = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    import_files_of("toolshed", [str(package)])
    assert sys.modules.pop("toolshed.hammer").imported
    sys.modules.pop("toolshed")


def test_a_name_that_needs_more_says_what():
    with pytest.raises(ValueError, match=r"network 'probed' is none .* it needs network, probe"):
        Network.named("probed")
