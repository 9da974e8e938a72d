"""Which code this process runs."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@cache
def source_fingerprint() -> str:
    """12 hex digits over the packages that a worker imports; driver and workers must agree."""
    digest = hashlib.sha256()
    for package in ("data_pipelines", "trainables"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:12]
