"""A small MLflow store as a sweep leaves it, and frames as the analysis makes them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from analysis.runs import OF_A_RUN, Runs
from analysis.scores import REFERENCE_LINES, Scores

LAMBDAS = {
    "energy": (5e-4, 5e-3),
    "l1": (1e-3, 1e-2),
    "ppce": (1e-4, 1e-3),
    "rrr_star": (5e-6, 5e-5),
}
GAINS = {"energy": (0.30, 0.05), "l1": (0.15, 0.20), "ppce": (0.02, 0.08), "rrr_star": (0.10, 0.01)}
"""What a loss adds to EPG and IoU at its larger lambda in the last epoch."""


@dataclass
class Writer:
    """Writes runs with the tags, parameters and metrics that a launch writes."""

    client: MlflowClient
    experiment_id: str
    results: list[str] = field(default_factory=list)

    def run(
        self,
        result_id: str,
        kind: str,
        parameters: Mapping[str, Any],
        epochs: Mapping[int, Mapping[str, float]] | None = None,
        status: str = "FINISHED",
        **tags: str,
    ) -> str:
        """One child run; ``epochs`` maps a step to its metrics. Its run id."""
        tags = {"result_id": result_id, "kind": kind, "label": result_id, **tags}
        run = self.client.create_run(
            self.experiment_id, tags=tags, start_time=1000 + len(self.results)
        )
        metrics = [
            Metric(key, value, 1000 + step, step)
            for step, row in (epochs or {}).items()
            for key, value in row.items()
        ]
        self.client.log_batch(
            run.info.run_id,
            metrics=[*metrics, Metric("seconds", 12.5, 2000, 0)],
            params=[Param(name, str(value)) for name, value in parameters.items()],
        )
        if status != "RUNNING":
            self.client.set_terminated(run.info.run_id, status)
        self.results.append(result_id)
        return run.info.run_id

    def launch(self, results: Sequence[str]) -> str:
        """The parent run of a launch. Its run id."""
        run = self.client.create_run(
            self.experiment_id, tags={"kind": "launch"}, start_time=5000 + len(self.results)
        )
        self.client.log_dict(run.info.run_id, {"results": list(results)}, "sweep.json")
        self.client.set_terminated(run.info.run_id)
        return run.info.run_id


def scores(f1: float, epg: float, iou: float, splits: Sequence[str] = ("val",)) -> dict[str, float]:
    """Metrics of one epoch; test lies a point below validation."""
    values = {"f1": f1, "map": f1 + 0.05, "epg": epg, "box_iou": iou / 2, "box_iou_tuned": iou}
    return {
        f"{split}/{name}": value - (0.01 if split == "test" else 0.0)
        for split, (name, value) in product(splits, values.items())
    }


def examples(seed: int, size: int = 16) -> dict[str, np.ndarray]:
    """What ``examples.npz`` holds: three images, of which the second has two boxes."""
    random = np.random.default_rng(seed)
    return {
        "image_ids": np.array(["a", "b", "c"]),
        "images": np.random.default_rng(0).integers(0, 256, (3, size, size, 3), dtype=np.uint8),
        "maps": random.normal(size=(3, size, size)).astype(np.float32),
        "targets": np.array([0, 4, 9]),
        "class_names": np.array(["cat", "dog", "eel"]),
        "boxes": np.array([[2, 2, 8, 8], [0, 0, 4, 4], [8, 8, 15, 15], [5, 5, 9, 12]], np.int32),
        "box_offsets": np.array([0, 1, 3, 4]),
    }


def write_sweep(
    writer: Writer,
    folder: Path,
    seeds: Sequence[int] = (0, 1),
    layers: Sequence[str] = ("input", "final"),
    epochs: int = 3,
    noise: float = 0.004,
) -> str:
    """A guidance sweep in which Energy leads EPG, L1 leads IoU, and one training has failed.

    The run id of its launch.
    """
    random = np.random.default_rng(7)
    for seed in seeds:
        start = {
            "name": "classifier_training",
            "network.name": "small_resnet",
            "data.name": "digit_scenes",
            "data.layout": "voc",
            "epochs": 4,
            "seed": seed,
        }
        nested = {f"start.{name}": value for name, value in start.items()}
        f1 = 0.82 + 0.01 * seed
        history = {step: scores(f1 - 0.02 * (4 - step), 0, 0) for step in range(1, 5)}
        history = {
            k: {n: v for n, v in r.items() if n in ("val/f1", "val/map")}
            for k, r in history.items()
        }
        writer.run(f"baseline-{seed}", "classifier_training", start, history)
        control = {"name": "guided_training", **nested, "loss": "none", "attribution": "none"}
        control |= {"lambda_loc": 0.0, "epochs": epochs, "seed": seed}
        writer.run(f"control-{seed}", "guided_training", control, {}, start=f"baseline-{seed}")
        for layer in layers:
            base = (0.40, 0.25) if layer == "input" else (0.55, 0.40)
            attribution = {"attribution.name": "input_x_gradient", "attribution.layer": layer}
            for subject, step in (("baseline", 4), ("control", epochs)):
                drift = random.normal(0, noise, 3)
                values = scores(
                    f1 + drift[0], base[0] + drift[1], base[1] + drift[2], ("val", "test")
                )
                run_id = writer.run(
                    f"evaluation-{subject}-{layer}-{seed}",
                    "attribution_evaluation",
                    {"name": "attribution_evaluation", **attribution, "seed": 0},
                    {step: {**values, "iou_threshold": 0.3}},
                    start=f"{subject}-{seed}",
                )
                _log_examples(writer, run_id, folder, examples(len(layer)))
            for loss, lambdas in LAMBDAS.items():
                for i, weight in enumerate(lambdas):
                    gains = np.array(GAINS[loss]) * (i + 1) / len(lambdas)
                    history = {}
                    for step in range(1, epochs + 1):
                        share = step / epochs
                        drift = random.normal(0, noise, 3)
                        history[step] = scores(
                            f1 - 0.03 * share * (i + 1) + 0.01 * i + drift[0],
                            base[0] + gains[0] * share + drift[1],
                            base[1] + gains[1] * share + drift[2],
                            ("val", "test"),
                        )
                        history[step] |= {"train/loss": 0.5 - 0.1 * share}
                    parameters = {"name": "guided_training", **nested, **attribution}
                    parameters |= {
                        "loss.name": loss,
                        "lambda_loc": weight,
                        "epochs": epochs,
                        "seed": seed,
                    }
                    name = f"{loss}-{weight:g}-{layer}-{seed}"
                    run_id = writer.run(
                        name, "guided_training", parameters, history, start=f"baseline-{seed}"
                    )
                    _log_examples(writer, run_id, folder, examples(len(name) + seed))
    failed = {"name": "guided_training", **nested, **attribution, "attribution.layer": "mid1"}
    failed |= {"loss.name": "energy", "lambda_loc": 1.0, "epochs": epochs, "seed": seed}
    reason = "loss is nan at epoch 1, step 3; lower the learning rate or lambda"
    writer.run(
        "failed",
        "guided_training",
        failed,
        status="FAILED",
        start=f"baseline-{seed}",
        reason=reason,
    )
    return writer.launch(writer.results)


def _log_examples(writer: Writer, run_id: str, folder: Path, arrays: dict[str, np.ndarray]) -> None:
    path = folder / "examples.npz"
    np.savez_compressed(path, **arrays)
    writer.client.log_artifact(run_id, str(path))


@dataclass(frozen=True)
class Store:
    """Where a written store lies."""

    uri: str
    launch: str


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A sweep of two seeds, two layers, four losses of two lambdas each, and one failure.

    Beside it stand an experiment with one result that a second launch shares, one that only runs,
    and one that is empty.
    """
    folder = tmp_path_factory.mktemp("mlflow")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)

    def experiment(name: str) -> Writer:
        artifacts = (folder / name).as_uri()
        return Writer(client, client.create_experiment(name, artifact_location=artifacts))

    writer = experiment("guidance_lambda")
    launch = write_sweep(writer, folder)
    elsewhere = experiment("elsewhere")
    tags = {"start": "first", "backbone": "small_resnet", "loss": "ce"}
    elsewhere.run("shared", "classifier_training", {"seed": 3}, {1: {"val/f1": 0.5}}, **tags)
    elsewhere.run("first", "classifier_training", {"seed": 4}, {1: {"val/f1": 0.4}})
    experiment("running").run("unfinished", "classifier_training", {"seed": 0}, status="RUNNING")
    experiment("empty")
    return Store(uri, launch)


METHODS = {
    "grad_cam": (0.30, {"name": "grad_cam"}),
    "xgrad_cam": (0.30, {"name": "xgrad_cam"}),
    "integrated_gradients_uniform": (0.20, {"name": "integrated_gradients"}),
    "saliency": (0.00, {"name": "saliency"}),
    "grad_cam_idsds_as_run_normalize": (0.25, {"name": "grad_cam", "of_set": "idsds_as_run"}),
    "rise_idsds_as_run": (
        0.15,
        {"name": "rise", "of_set": "idsds_as_run", "baseline.name": "zero"},
    ),
    "integrated_gradients_abs_idsds_as_run": (
        0.05,
        {
            "name": "integrated_gradients",
            "of_set": "idsds_as_run",
            "baseline.name": "zero",
            "absolute": True,
        },
    ),
    "uniform": (np.nan, {"name": "uniform"}),
    "random": (0.02, {"name": "random"}),
}
"""Methods with their true IDSDS, and their parameters; xgrad_cam's maps are grad_cam's."""
DIRECTIONS = {"direction.idsds": "max", "direction.ids": "max", "direction.entropy": "min"}


def score_rows(method: str, explanations: int = 120) -> pd.DataFrame:
    """What ``rows.parquet`` of a method holds: two explanations of every image."""
    level = METHODS[method][0]
    name = "grad_cam" if method == "xgrad_cam" else method
    random = np.random.default_rng([*name.encode()])
    shared = np.random.default_rng(3).normal(0, 0.15, explanations)
    images = [f"image{i // 2:03d}" for i in range(explanations)]
    parts = []
    for protocol in ("entropy", "ids", "idsds"):
        score = level + shared + random.normal(0, 0.1, explanations)
        if protocol == "entropy":
            score = 9 - score if level == level else np.full(explanations, 12.0)
        elif protocol == "ids":
            score = np.nan_to_num(0.4 + 0.5 * score, nan=0.2)
        elif name == "grad_cam":
            score[::20] = np.nan
        part = pd.DataFrame({"image_id": images, "target": np.arange(explanations) % 2})
        parts.append(part.assign(method_key=method, protocol_key=protocol, score=score))
    rows = pd.concat(parts, ignore_index=True).astype({"target": "int32"})
    return rows.assign(box_area_fraction=np.float32(0.2))


def write_evaluations(writer: Writer, folder: Path) -> str:
    """An evaluation of METHODS on one network, and one that failed. The run id of the launch."""
    data = {"name": "digit_scenes", "layout": "imagenet"}
    network = {"network.name": "small_resnet", "epochs": 4, "seed": 0}
    of = network | {f"data.{k}": v for k, v in data.items()}
    writer.run("baseline-0", "classifier_training", {"name": "classifier_training", **of})
    common = {f"of.{name}": value for name, value in of.items()}
    common |= {"name": "protocol_evaluation", "split": "val", "images": 60, "seed": 0}
    common |= {"explained_class": "ground_truth", "protocols.0.name": "idsds"}
    x = np.arange(4) / 4
    for method, (level, fields) in METHODS.items():
        own = {"absolute": False, "of_set": "", **fields}
        parameters = common | {f"attribution.{name}": value for name, value in own.items()}
        metrics = {"val/idsds": level, "images": 60.0, "skipped_images": 0.0}
        run_id = writer.run(
            f"evaluation-{method}",
            "protocol_evaluation",
            {name: value for name, value in parameters.items() if value != ""},
            {1: {name: value for name, value in metrics.items() if value == value}},
            start="baseline-0",
            label=f"{method} of baseline small_resnet seed 0",
            **DIRECTIONS,
        )
        score_rows(method).to_parquet(folder / "rows.parquet", index=False)
        mean = 0.8 - (0.6 - np.nan_to_num(level)) * x
        np.savez(folder / "curves.npz", ids=np.stack([x, mean, mean - 0.02, mean + 0.02], 1))
        for name in ("rows.parquet", "curves.npz"):
            writer.client.log_artifact(run_id, str(folder / name))
        _log_examples(writer, run_id, folder, examples(len(method)))
    writer.run(
        "evaluation-lime",
        "protocol_evaluation",
        common | {"attribution.name": "lime"},
        status="FAILED",
        start="baseline-0",
        label="lime of baseline small_resnet seed 0",
        reason="ValueError: lime needs at least 4 segments",
        **DIRECTIONS,
    )
    return writer.launch(writer.results)


@pytest.fixture(scope="session")
def ranked_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Nine methods and reference lines on one network under three protocols, and one failure."""
    folder = tmp_path_factory.mktemp("ranked")
    uri = f"sqlite:///{folder / 'mlflow.db'}"
    client = MlflowClient(uri)
    place = (folder / "idsds_methods").as_uri()
    experiment_id = client.create_experiment("idsds_methods", artifact_location=place)
    return Store(uri, write_evaluations(Writer(client, experiment_id), folder))


@pytest.fixture(scope="session")
def make_scores() -> Callable[..., Scores]:
    """Builds the scores of methods by hand: a column of explanations for each method's key."""

    def build(
        columns: Mapping[str, Sequence[float] | np.ndarray],
        images: Sequence[int] | np.ndarray | None = None,
        *,
        protocol: str = "idsds",
        higher_is_better: bool = True,
        paper: Mapping[str, str] | None = None,
    ) -> Scores:
        values = np.stack([np.asarray(c, dtype=np.float64) for c in columns.values()], axis=1)
        methods = pd.DataFrame({"method": list(columns), "label": list(columns)})
        methods["paper"] = [(paper or {}).get(key, "") for key in columns]
        methods["reference_line"] = methods["method"].isin(REFERENCE_LINES)
        methods["result_id"] = "result-" + methods["method"]
        return Scores(
            setting="network",
            protocol=protocol,
            higher_is_better=higher_is_better,
            methods=methods,
            images=np.arange(len(values)) if images is None else np.asarray(images),
            values=values,
        )

    return build


@pytest.fixture(scope="session")
def make_runs() -> Callable[..., Runs]:
    """Builds Runs by hand: rows of runs, and (result_id, epoch, metrics of both splits) rows."""

    def build(
        rows: Sequence[Mapping[str, Any]], epochs: Sequence[tuple[str, int, Mapping[str, float]]]
    ) -> Runs:
        blank = dict.fromkeys(OF_A_RUN, "") | {
            "status": "FINISHED",
            "started": pd.Timestamp(0, tz="UTC"),
        }
        frame = pd.DataFrame([{**blank, **row} for row in rows])
        history = [
            (result_id, *key.split("/"), epoch, value)
            for result_id, epoch, metrics in epochs
            for key, value in metrics.items()
        ]
        return Runs(
            experiment="by_hand",
            tracking_uri="sqlite:///by_hand.db",
            runs=frame,
            parameters=tuple(c for c in frame if c not in OF_A_RUN),
            history=pd.DataFrame(
                history, columns=["result_id", "split", "metric", "step", "value"]
            ),
        )

    return build


@pytest.fixture(scope="session")
def curve() -> Callable[..., dict[str, Any]]:
    """Builds a row of a frame of candidates, references or choices, usual but for the changes."""

    def build(
        f1: float = 0.8, epg: float = 0.5, iou: float = 0.4, **changes: Any
    ) -> dict[str, Any]:
        metrics = {
            key.replace("/", "_"): v for key, v in scores(f1, epg, iou, ("val", "test")).items()
        }
        usual = {
            "dataset": "digits",
            "network": "net",
            "attribution": "ixg",
            "layer": "final",
            "annotated_fraction": 1.0,
            "dilation": 0.0,
            "variant": "",
        }
        usual |= {"loss": "energy", "seed": 0, "lambda_loc": 0.005, "epoch": 1, "result_id": "r"}
        return {**usual, **metrics, **changes}

    return build
