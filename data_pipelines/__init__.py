"""Read: published datasets as plain rows, Parquet shards, Ray Data feeds, boxes and masks."""

import importlib
import pkgutil

ENGINE = ("command", "conversion", "shards", "streamed_set", "streaming", "survey")
# A dataset added as one file is known by name at once. Those that run on Ray define none.
for _module in pkgutil.iter_modules(__path__):
    if _module.name not in ENGINE:
        importlib.import_module(f"{__name__}.{_module.name}")
