"""Jobs start sweeps that exist, with flags that they have; so do the commands of the README."""

from __future__ import annotations

import importlib
import re
import shlex

import pytest
import tyro
import yaml

from sweeps.launch import Sweep
from tests.infra.manifests import INFRA, README, ROOT, the

SWEEPS = (
    *("guidance_annotations", "guidance_lambda", "idsds_methods", "idsds_models", "pretraining"),
    *("probe_depth", "probe_objective", "waterbirds"),
)
JOBS = {path.stem: yaml.safe_load(path.read_text()) for path in INFRA.glob("jobs/*.yaml")}


def parsed(command: str) -> Sweep:
    """The sweep that a command line starts, with its flags read as the sweep reads them."""
    words = shlex.split(command)
    assert words[0] == "python"
    file = ROOT / words[1]
    assert file.is_file(), f"{words[1]} does not exist"
    module = importlib.import_module(f"sweeps.{file.stem}")
    (sweep,) = (c for c in vars(module).values() if getattr(c, "question", "") == file.stem)
    read: Sweep = tyro.cli(sweep, args=words[2:])
    return read


@pytest.mark.parametrize("name", SWEEPS)
def test_jobs_start_a_sweep_that_exists_with_flags_that_it_has(name):
    job = JOBS[name]
    sweep = parsed(job["spec"]["entrypoint"])
    assert sweep.question == name
    assert sweep.data()  # its dataset is known, and its flags suffice for it
    assert job["metadata"]["name"] == name.replace("_", "-")
    assert job["spec"]["clusterSelector"] == {
        "ray.io/cluster": the("RayCluster")["metadata"]["name"]
    }
    service = the("Service", "mlflow")
    (port,) = service["spec"]["ports"]
    assert sweep.tracking_uri == f"http://{service['metadata']['name']}:{port['port']}"
    assert sweep.address == "auto"
    assert sweep.storage_path.startswith("/shared/")
    assert sweep.data_root.startswith("/shared/")


def test_every_job_has_its_sweep():
    assert sorted(JOBS) == sorted(SWEEPS)


@pytest.mark.parametrize(
    "command", re.findall(r"^ray job submit .*-- (python sweeps.*)$", README, re.MULTILINE)
)
def test_commands_of_the_readme_exist(command):
    assert parsed(command).data_root.startswith("/shared/")


def test_files_of_the_readme_exist():
    for path in re.findall(r"infra/[\w/.]+", README):
        assert path.startswith("infra/mine") or (ROOT / path).exists(), path
