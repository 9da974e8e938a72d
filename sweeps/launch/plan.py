"""Which results are missing, which run together, and in which order."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from trainables.checkpoint import sha256_of
from trainables.result import Result
from trainables.training import weights_path


@dataclass(frozen=True)
class Plan:
    """What a launch has to do.

    Attributes:
        wanted: every result of the sweep with all it depends on, by id, dependencies first.
        missing: those that must be computed, by id, dependencies first.
        stages: lists of bundles; a bundle is computed by one trial, its results in order. Bundles
            of a stage
            depend only on earlier stages and come longest first.
    """

    wanted: dict[str, Result]
    missing: dict[str, Result]
    stages: list[list[list[Result]]]


def make_plan(
    results: Iterable[Result],
    is_finished: Callable[[Result], bool],
    storage: Path,
    images: Mapping[str, int],
) -> Plan:
    """Close the results under dependency, drop what is finished, bundle and order the rest.

    A finished result counts as missing again only where a missing one needs its files and they are
    gone.

    Args:
        results: what the sweep asks for.
        is_finished: whether a result's run is FINISHED.
        storage: folder of weights and summaries.
        images: images by split, for the cost of a bundle.
    """
    wanted = {result.result_id: result for result in closure(results)}
    missing: dict[str, Result] = {}

    def need(result: Result, files: bool) -> None:
        if result.result_id in missing or (
            is_finished(result) and not (files and not has_files(result, storage))
        ):
            return
        for dependency in result.dependencies:
            need(dependency, files=True)
        missing[result.result_id] = result

    for result in wanted.values():
        need(result, files=False)
    return Plan(wanted, missing, _stages(missing, dict(images)))


def _stages(missing: dict[str, Result], images: dict[str, int]) -> list[list[list[Result]]]:
    bundles: dict[str, list[Result]] = {}
    for result in missing.values():
        bundles.setdefault(result.bundle, []).append(result)
    depth: dict[str, int] = {}

    def depth_of(bundle: str) -> int:
        if bundle not in depth:
            before = {
                missing[d.result_id].bundle
                for r in bundles[bundle]
                for d in r.dependencies
                if d.result_id in missing
            } - {bundle}
            depth[bundle] = 1 + max((depth_of(b) for b in before), default=-1)
        return depth[bundle]

    stages: list[list[list[Result]]] = []
    for bundle in bundles:
        while len(stages) <= depth_of(bundle):
            stages.append([])
        stages[depth_of(bundle)].append(bundles[bundle])
    for stage in stages:
        stage.sort(key=lambda results: -sum(r.cost(images) for r in results))
    return stages


def has_files(result: Result, storage: Path) -> bool:
    """Whether what dependents read is there and is what was written."""
    folder = storage / result.result_id
    if not (folder / "result.json").exists():
        return False
    summary = json.loads((folder / "result.json").read_text())
    weights = summary.get("weights", {})
    files = {weights_path(folder, int(epoch)): sha for epoch, sha in weights.items()}
    files |= {folder / name: sha for name, sha in summary.get("files", {}).items()}
    return all(path.exists() and sha256_of(path) == sha for path, sha in files.items())


def closure(results: Iterable[Result]) -> Iterator[Result]:
    """The results and all they depend on, dependencies first; one may come several times."""
    for result in results:
        yield from closure(result.dependencies)
        yield result
