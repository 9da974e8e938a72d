"""The arrows of the house: who may import whom, and what is said in one place only.

sweeps -> trainables -> data_pipelines; sweeps -> analysis, which reads MLflow and nothing of ours.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("analysis", "data_pipelines", "sweeps", "trainables")
FILES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))
TREES = {str(path.relative_to(ROOT)): ast.parse(path.read_text()) for path in FILES}


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every imported module by its full name, wherever the import stands, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                yield f"{node.module}.{alias.name}", node.lineno


def breaches(forbidden: tuple[str, ...], where: str, allowed: tuple[str, ...] = ()) -> list[str]:
    """Imports of forbidden modules below a path, but for the allowed files."""
    return [
        f"{name}:{line} imports {module}"
        for name, tree in TREES.items()
        if name.startswith(where) and not name.startswith(allowed or ("-",))
        for module, line in imports(tree)
        if any(module == one or module.startswith(f"{one}.") for one in forbidden)
    ]


def test_the_walk_sees_the_whole_house():
    assert len(TREES) > 50
    seen = [module for tree in TREES.values() for module, _ in imports(tree)]
    assert "trainables.passes.Passes" in seen
    assert "ray.tune" in seen  # imported within a function


@pytest.mark.parametrize(
    ("where", "forbidden"),
    [
        ("analysis/", ("data_pipelines", "sweeps", "trainables", "torch", "torchvision", "ray")),
        ("data_pipelines/", ("analysis", "sweeps", "trainables", "torch", "torchvision")),
        ("trainables/", ("analysis", "sweeps")),
        ("trainables/losses/", ("trainables.models", "trainables.attribution")),
        ("trainables/metrics/", ("trainables.models", "trainables.attribution")),
        (
            "trainables/models/",
            ("trainables.attribution", "trainables.losses", "trainables.metrics"),
        ),
        ("trainables/attribution/", ("trainables.losses", "trainables.metrics")),
        ("", ("tests",)),
    ],
)
def test_nothing_is_imported_from_above_or_beside(where, forbidden):
    assert breaches(forbidden, where) == []


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("mlflow", ("trainables/tracking.py", "analysis/runs.py")),
        (
            "ray",
            (
                "sweeps/launch/",
                "trainables/trial.py",
                "trainables/streamed_evaluation.py",
                "trainables/worker_group.py",
                "data_pipelines/streaming.py",
                "data_pipelines/streamed_set.py",
                "data_pipelines/survey.py",
                "data_pipelines/shards.py",
                "data_pipelines/command.py",
            ),
        ),
        ("moocore", ("analysis/", "trainables/guided_training.py")),
    ],
)
def test_an_engine_is_imported_in_its_places_only(module, allowed):
    assert breaches((module,), "", allowed) == []


def test_losses_and_metrics_are_reached_without_models_or_methods():
    """Also through what they import, but for annotations."""
    for package in ("losses", "metrics"):
        start = [name for name in TREES if name.startswith(f"trainables/{package}/")]
        reached, waiting = set(start), list(start)
        while waiting:
            for module, _ in imports(without_annotations(TREES[waiting.pop()])):
                for path in (module, module.rpartition(".")[0]):
                    name = f"{path.replace('.', '/')}.py"
                    if name in TREES and name not in reached:
                        reached.add(name)
                        waiting.append(name)
        assert not [
            n for n in reached if n.startswith(("trainables/models", "trainables/attribution"))
        ]


def without_annotations(tree: ast.Module) -> ast.Module:
    """The module without its ``if TYPE_CHECKING:`` blocks."""
    kept = [
        node
        for node in tree.body
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    ]
    return ast.Module(kept, [])


def test_nothing_is_unpickled():
    unsafe = ("torch.load", "pickle.load", "pickle.loads", "joblib.load", "yaml.load")
    found = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                call = ast.unparse(node.func)
                said = {k.arg: ast.unparse(k.value) for k in node.keywords}
                if call == "torch.load" and said.get("weights_only") == "True":
                    continue  # reads tensors and plain containers; refuses everything else
                if call.endswith(unsafe) or said.get("allow_pickle", "False") != "False":
                    found.append(f"{name}:{node.lineno} {ast.unparse(node)}")
    assert found == []


def test_only_the_trial_names_a_device():
    found = []
    for name, tree in TREES.items():
        if name == "trainables/trial.py":
            continue
        for node in ast.walk(tree):
            said = isinstance(node, ast.Constant) and str(node.value).split(":")[0] == "cuda"
            called = isinstance(node, ast.Attribute) and node.attr == "cuda"
            if said or called:
                found.append((name, ast.unparse(node)))
    # how many there are is the cluster's business; which one is used is the trial's
    assert [f for f in found if f != ("sweeps/launch/cluster.py", "torch.cuda")] == []


def test_only_the_trial_and_the_training_seed_globally():
    seeders = ("manual_seed", "manual_seed_all", "random.seed")
    found = [
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(seeders)
        # a generator of one's own is nobody else's
        if not ast.unparse(node.func).startswith("torch.Generator()")
    ]
    assert set(found) <= {"trainables/trial.py", "trainables/training.py"}


def test_every_file_has_a_subject():
    banned = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
    assert [str(path) for path in FILES if banned & {path.stem, path.parent.stem}] == []


def test_sweep_files_hide_no_installed_module():
    """Ray puts the script's folder on the workers' path: sweeps/optuna.py would be found first."""
    stems = [path.stem for path in (ROOT / "sweeps").glob("*.py") if path.stem != "__init__"]
    assert stems
    assert [stem for stem in stems if importlib.util.find_spec(stem) is not None] == []


def test_no_test_is_imported_by_the_name_of_another():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_nothing_is_swallowed():
    """What catches everything raises it again or tells its trace."""
    found = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and not any(isinstance(part, ast.Raise) for part in ast.walk(node))
        and not any(ast.unparse(part).startswith("traceback.") for part in ast.walk(node))
    ]
    assert found == []


def test_asserts_stay_in_tests():
    found = [
        f"{name}:{node.lineno}"
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assert)
    ]
    assert found == []


def test_people_are_told_by_commands_only():
    found = {
        name
        for name, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
    }
    commands = (
        "sweeps/launch/",
        "analysis/report.py",
        "trainables/attribution/__main__.py",
        "data_pipelines/command.py",
    )
    assert [n for n in found if not n.startswith(commands)] == []
