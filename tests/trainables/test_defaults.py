"""Defaults change only with a raised revision: an id must not come to mean other numbers.

tests/golden/defaults.json holds each registered class's revision and defaults. After a new class, a
new field or a raised revision: RECORD_DEFAULTS=1 pytest tests/trainables/test_defaults.py
"""

from __future__ import annotations

import json
import os
from copy import deepcopy
from dataclasses import MISSING
from pathlib import Path
from typing import Any

import pytest

from data_pipelines.configuration import (
    Configuration,
    annotated_fields,
    default_of,
    is_identity,
    plain,
)
from tests.trainables.registered import FAMILIES, registered_classes

DEFAULTS = Path(__file__).parent.parent / "golden" / "defaults.json"
Record = dict[str, dict[str, Any]]


def record() -> Record:
    """Revision and defaults of every registered class, by ``Family.name``."""
    return {
        f"{family_of(cls)}.{cls.name}": {
            "revision": cls.revision,
            "defaults": json.loads(json.dumps(defaults_of(cls))),
        }
        for cls in registered_classes()
    }


def family_of(cls: type[Configuration]) -> str:
    return next(family.__name__ for family in FAMILIES if issubclass(cls, family))


def defaults_of(cls: type[Configuration]) -> dict[str, Any]:
    fields = [f for f, _ in annotated_fields(cls) if is_identity(f)]
    return {
        f.name: "required" if default_of(f) is MISSING else plain(default_of(f)) for f in fields
    }


def silent_changes(recorded: Record, now: Record) -> list[str]:
    """Fields whose recorded default is another now, or gone, while the revision is the same."""
    return [
        f"{name}.{field}: {default!r} -> {now[name]['defaults'].get(field, 'no such field')!r}"
        for name in recorded.keys() & now.keys()
        if recorded[name]["revision"] >= now[name]["revision"]
        for field, default in recorded[name]["defaults"].items()
        if now[name]["defaults"].get(field, MISSING) != default
    ]


def test_no_default_changed_without_a_raised_revision():
    changed = silent_changes(json.loads(DEFAULTS.read_text()), record())
    assert changed == [], "raise the class's revision, then record"


def test_the_record_is_complete():
    now = record()
    if os.environ.get("RECORD_DEFAULTS") and not silent_changes(
        json.loads(DEFAULTS.read_text()), now
    ):
        DEFAULTS.write_text(json.dumps(now, indent=1, sort_keys=True) + "\n")
    recorded = json.loads(DEFAULTS.read_text())
    differing = [
        name for name in recorded.keys() | now.keys() if recorded.get(name) != now.get(name)
    ]
    assert sorted(differing) == [], f"record them: see the head of {Path(__file__).name}"


@pytest.mark.parametrize("value", [7, None])
def test_a_changed_or_removed_default_is_noticed(value):
    recorded = record()
    now = deepcopy(recorded)
    defaults = now["Result.guided_training"]["defaults"]
    if value is None:
        del defaults["epochs"]
    else:
        defaults["epochs"] = value
    (line,) = silent_changes(recorded, now)
    assert line.startswith("Result.guided_training.epochs: 50 -> ")
    now["Result.guided_training"]["revision"] += 1
    assert silent_changes(recorded, now) == []


def test_a_new_field_or_class_needs_no_revision():
    recorded = record()
    now = deepcopy(recorded)
    now["Loss.energy"]["defaults"]["sharpness"] = 1.0
    del recorded["Loss.l1"]
    assert silent_changes(recorded, now) == []
