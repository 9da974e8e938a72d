"""README's commands run, its flags exist, its tables list what is registered, its example works."""

import importlib
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tyro

import trainables.attribution
import trainables.losses
import trainables.metrics
import trainables.models  # noqa: F401  (each registers its classes)
from data_pipelines.command import Conversion, chosen
from data_pipelines.dataset import Dataset
from trainables.attribution.__main__ import Look
from trainables.attribution.attribution import Attribution
from trainables.losses.loss import Loss
from trainables.metrics.classification import ClassificationMetric
from trainables.metrics.metric import Metric
from trainables.models.network import Network

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
LONG = ("make demo", "make test")
SMOKE = {
    "sweeps/guidance_annotations.py": ["--smoke"],
    "sweeps/guidance_lambda.py": ["--smoke", "--baseline-epochs", "1"],
    "sweeps/idsds_methods.py": ["--smoke"],
    "sweeps/waterbirds.py": ["--smoke"],
    "trainables.attribution": ["--epochs", "1"],
}


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return [text for name, text in fenced if name == language]


def commands(language: str) -> list[str]:
    return [line for block in blocks(language) for line in block.splitlines() if line.strip()]


def test_readme_has_two_long_commands():
    assert [c for c in commands("") if c in LONG] == list(LONG)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> dict[str, str]:
    """The environment of one user, who types the commands in the order of the page."""
    return os.environ | {"XDG_DATA_HOME": str(tmp_path_factory.mktemp("home"))}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("command", [c for c in commands("") if c not in LONG])
def test_every_other_command_runs_on_shared_data(command, home):
    words = shlex.split(command)
    assert words[0] == "python"
    smoke = next((flags for place, flags in SMOKE.items() if place in words[:3]), [])
    done = subprocess.run(
        [sys.executable, *words[1:], *smoke],
        cwd=ROOT, env=home, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


@pytest.mark.parametrize("command", commands("sh"))
def test_flags_of_commands_that_need_a_cluster_or_data_exist(command):
    words = shlex.split(command)
    if words[:3] == ["python", "-m", "trainables.attribution"]:
        tyro.cli(Look, args=words[3:])
        return
    if words[:3] == ["python", "-m", "data_pipelines.shards"]:
        chosen(tyro.cli(Conversion, args=words[3:]))
        return
    start = next(i for i, word in enumerate(words) if word.startswith("sweeps/"))
    module = importlib.import_module(words[start].removesuffix(".py").replace("/", "."))
    (sweep,) = (
        c
        for c in vars(module).values()
        if getattr(c, "question", "") == module.__name__.split(".")[1]
    )
    tyro.cli(sweep, args=words[start + 1 :])


@pytest.mark.parametrize(
    "families",
    [(Network,), (Attribution,), (Loss,), (ClassificationMetric, Metric), (Dataset,)],
    ids=lambda families: families[0].__name__,
)
def test_table_lists_what_the_package_registers(families):
    (cells,) = (
        row.strip("|").split("|")
        for row in README.splitlines()
        if row.startswith("| `small_resnet`")
    )
    ours = {
        name
        for family in families
        for name, cls in family.registered.items()
        if cls.__module__.split(".")[0] in ("trainables", "data_pipelines")
    }
    assert ours in [set(re.findall(r"`(\w+)`", cell)) for cell in cells]


def test_example_of_a_loss_in_one_file_works(tmp_path):
    (example,) = (block for block in blocks("python") if block.startswith("# my_loss.py"))
    (tmp_path / "my_loss.py").write_text(example)
    done = subprocess.run(
        [
            sys.executable, "sweeps/guidance_lambda.py", "--dry-run", "--smoke",
            "--plugins", str(tmp_path / "my_loss.py"), "--losses", "energy", "outside",
        ],
        cwd=ROOT, env=os.environ | {"XDG_DATA_HOME": str(tmp_path)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "outside 0.005" in done.stdout
