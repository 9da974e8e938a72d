"""The image: its versions, what is in it, and whom it runs as."""

from __future__ import annotations

import re
import tomllib

from tests.infra.manifests import INFRA, README, ROOT, containers, pods, the, version_of

TEXT = (INFRA / "Dockerfile").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_versions_are_those_of_the_project():
    assert the("RayCluster")["spec"]["rayVersion"] == version_of("ray")
    ours, image = set(), f"attribution-sweeps:{PROJECT['project']['version']}"
    for _, container in containers():
        name, _, tag = container["image"].partition(":")
        assert re.fullmatch(r"\d+(\.\d+)+", tag), container["image"]
        ours |= {container["image"]} if name == "attribution-sweeps" else set()
    assert ours == {image}
    assert set(re.findall(r"attribution-sweeps:[\d.]+\d", README)) == {image}
    assert image in TEXT


def test_image_is_pinned_and_runs_as_nobody_special():
    lines = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE)).splitlines()
    steps = [(line.split()[0], line) for line in lines if line.strip()]
    (base,) = (line for word, line in steps if word == "FROM")
    python = re.fullmatch(r"FROM python:(\d+\.\d+)\.\d+-slim-\w+", base)
    assert python
    assert f'python-version: "{python[1]}"' in (ROOT / ".github/workflows/ci.yml").read_text()
    assert "latest" not in TEXT
    assert {word for word, _ in steps} <= {"FROM", "ARG", "ENV", "RUN", "COPY", "WORKDIR", "USER"}
    installs = [line for word, line in steps if word == "RUN" and " install " in line]
    pinned = (
        r"(-c|--build-constraints) infra/constraints\.txt|pip install --no-cache-dir uv==[\d.]+"
    )
    assert [line for line in installs if not re.search(pinned, line)] == []
    assert len(installs) == 3
    extras = {extra for line in installs for extra in re.findall(r"--extra (\w+)", line)}
    assert extras == PROJECT["project"]["optional-dependencies"].keys() - {"dev"}
    users = [line.split()[1] for word, line in steps if word == "USER"]
    ids = {pod["securityContext"]["runAsUser"] for name, _, pod in pods() if name != "postgres"}
    assert users == [f"{uid}:{uid}" for uid in ids]
    assert steps[-1][0] == "USER"
    assert any("ATTRIBUTION_SWEEPS_COMMIT=${COMMIT}" in line for _, line in steps)


def test_image_holds_what_is_copied_into_it():
    copied = {
        w for line in re.findall(r"^COPY (.+) \S+$", TEXT, re.MULTILINE) for w in line.split()
    }
    kept = re.findall(r"^!(\S+)$", (INFRA / "Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert copied == set(kept)
    for path in copied:
        assert (ROOT / path).exists()
    packages = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {package.rstrip("*") for package in packages} <= copied
