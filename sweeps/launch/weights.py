"""Which weights outlive a launch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from trainables.result import Result
from trainables.training import weights_path


def prune(results: Iterable[Result], front: Mapping[str, set[int]], storage: Path) -> None:
    """Keep the best, the last and the pooled front's epochs of every training; drop the rest.

    Call it when all results of the launch are finished: what an unfinished one starts from must
    stay.

    Args:
        results: of the launch, all finished.
        front: epochs on the pooled Pareto-dominant set, by result id.
        storage: folder of the results.
    """
    for result in results:
        folder = storage / result.result_id
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
        if not (folder / "result.json").exists():
            continue
        summary = json.loads((folder / "result.json").read_text())
        last = max(map(int, summary.get("weights", {})), default=0)
        keep = {summary.get("epoch"), last} | front.get(result.result_id, set())
        kept = {weights_path(folder, epoch) for epoch in keep if epoch}
        for path in (folder / "weights").glob("*"):  # what a crash left behind too
            if path not in kept:
                path.unlink()
