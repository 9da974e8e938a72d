"""The cluster files as data, and KubeRay's schemas where they lie beside the project."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
INFRA = ROOT / "infra"
SCHEMAS = ROOT.parent / "shared" / "kuberay"
README = (INFRA / "README.md").read_text()

Manifest = dict[str, Any]


def documents(*patterns: str) -> list[tuple[str, Manifest]]:
    """Every object in the files, with where it stands: file and kind/name."""
    found = []
    for path in sorted(path for pattern in patterns for path in INFRA.glob(pattern)):
        for manifest in yaml.safe_load_all(path.read_text()):
            name = manifest.get("metadata", {}).get("name", "")
            found.append((f"{path.relative_to(INFRA)}:{manifest['kind']}/{name}", manifest))
    return found


OBJECTS = [
    (place, manifest)
    for place, manifest in documents("cluster/*.yaml", "jobs/*.yaml", "local/*.yaml")
    if manifest["kind"] != "Kustomization"
]


def patched() -> list[Manifest]:
    """The objects that ``local/`` changes, after the change.

    Raises:
        KeyError, IndexError: a patch meets nothing.
    """
    ((_, kustomization),) = documents("local/kustomization.yaml")
    changed = []
    for patch in kustomization["patches"]:
        changed.append(copy.deepcopy(the(**patch["target"])))
        for change in yaml.safe_load(patch["patch"]):
            *parents, last = change["path"].strip("/").split("/")
            place: Any = changed[-1]
            for step in parents:
                place = place[int(step)] if isinstance(place, list) else place[step]
            if change["op"] != "add" and last not in place:
                raise KeyError(change["path"])
            place[last] = change["value"]
    return changed


def of_kind(*kinds: str) -> list[Manifest]:
    """The objects of these kinds."""
    return [manifest for _, manifest in OBJECTS if manifest["kind"] in kinds]


def the(kind: str, name: str = "") -> Manifest:
    """The one object of a kind, by its name where there are several."""
    (found,) = [m for m in of_kind(kind) if name in ("", m["metadata"]["name"])]
    return found


def pods() -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    """Every kind of pod: what it is called, its labels, its specification.

    Ray's carry the labels that the operator gives them.
    """
    for manifest in of_kind("Deployment", "StatefulSet"):
        template = manifest["spec"]["template"]
        yield manifest["metadata"]["name"], template["metadata"]["labels"], template["spec"]
    for manifest in of_kind("RayCluster"):
        spec, label = manifest["spec"], {"ray.io/cluster": manifest["metadata"]["name"]}
        head = label | {"ray.io/node-type": "head"}
        yield "head", head, spec["headGroupSpec"]["template"]["spec"]
        for group in spec["workerGroupSpecs"]:
            worker = label | {"ray.io/node-type": "worker", "ray.io/group": group["groupName"]}
            yield group["groupName"], worker, group["template"]["spec"]


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every container, with the name of its pod."""
    for name, _, pod in pods():
        for container in pod["containers"]:
            yield name, container


def version_of(package: str) -> str:
    """The exact version in constraints.txt."""
    (found,) = re.findall(
        rf"^{re.escape(package)}==(.+)$", (INFRA / "constraints.txt").read_text(), re.MULTILINE
    )
    return str(found)


def problems(manifest: Manifest) -> list[str]:
    """What KubeRay's schemas find wrong; unknown keys are wrong.

    They hold the schemas of pods, volume claims, services and rules of networks too, so the
    objects that consist of those are checked by the same files. Others pass.
    """
    kind, spec = manifest["kind"], manifest.get("spec", {})
    if kind in ("RayCluster", "RayJob"):
        return _errors(manifest, _schema(kind))
    cluster = _schema("RayCluster")["properties"]["spec"]["properties"]
    pod = cluster["workerGroupSpecs"]["items"]["properties"]["template"]
    claim = _inside(pod, "spec", "volumes", "ephemeral", "volumeClaimTemplate")
    if kind in ("Deployment", "StatefulSet"):
        found = _errors(spec["template"], pod)
        return found + [e for c in spec.get("volumeClaimTemplates", []) for e in _errors(c, claim)]
    if kind == "PersistentVolumeClaim":
        return _errors(spec, _inside(claim, "spec"))
    if kind == "Service":
        return _errors(spec, _inside(cluster["headGroupSpec"], "headService", "spec"))
    if kind == "NetworkPolicy":
        rules = _inside(cluster["networkPolicy"], "head", "ingressRules")
        return [error for rule in spec.get("ingress", []) for error in _errors(rule, rules)]
    return []


@cache
def _schema(kind: str) -> dict[str, Any]:
    text = (SCHEMAS / f"ray.io_{kind.lower()}s.yaml").read_text()
    versions = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # a megabyte
    (served,) = (v for v in versions["spec"]["versions"] if v["name"] == "v1")
    return _strict(served["schema"]["openAPIV3Schema"])


def _strict(schema: Any) -> Any:
    """The schema with unknown keys forbidden wherever it lists the known ones."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {key: _strict(part) for key, part in schema.items()}
    listed = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if listed and not schema.get("x-kubernetes-preserve-unknown-fields"):
        strict["additionalProperties"] = False
    return strict


def _inside(schema: dict[str, Any], *names: str) -> dict[str, Any]:
    for name in names:
        schema = schema["properties"][name]
        schema = schema.get("items", schema)
    return schema


def _errors(value: Any, schema: dict[str, Any]) -> list[str]:
    found = Draft202012Validator(schema).iter_errors(value)
    return [f"{error.json_path}: {error.message[:200]}" for error in found]
