"""The cluster files hold together: schemas, names, ports, callers, volumes, secrets, users."""

from __future__ import annotations

import copy
import re
import warnings
from typing import Any

import pytest

from tests.infra.manifests import (
    INFRA,
    OBJECTS,
    README,
    SCHEMAS,
    Manifest,
    containers,
    documents,
    of_kind,
    patched,
    pods,
    problems,
    the,
)

API_VERSIONS = {
    "Namespace": "v1",
    "PersistentVolume": "v1",
    "PersistentVolumeClaim": "v1",
    "Service": "v1",
    "Deployment": "apps/v1",
    "StatefulSet": "apps/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
    "RayCluster": "ray.io/v1",
    "RayJob": "ray.io/v1",
}
NAMESPACE = "attribution-sweeps"
WITHOUT_NAMESPACE = ("Namespace", "PersistentVolume")
every_object = pytest.mark.parametrize(
    "manifest", [m for _, m in OBJECTS], ids=[place for place, _ in OBJECTS]
)


@every_object
def test_objects_say_what_they_are_and_where(manifest):
    assert manifest["apiVersion"] == API_VERSIONS[manifest["kind"]]
    metadata = manifest["metadata"]
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", metadata["name"])
    lives = metadata.get("namespace")
    assert lives == (None if manifest["kind"] in WITHOUT_NAMESPACE else NAMESPACE)


def test_objects_hold_to_the_schemas():
    """Where the schemas are not beside the project it says so: the other tests look at less."""
    if not SCHEMAS.is_dir():
        warnings.warn(f"{SCHEMAS} is not there: manifests not held to schemas", stacklevel=1)
        return
    found = {place: problems(m) for place, m in OBJECTS}
    found |= {f"local, {m['kind']}": problems(m) for m in patched()}
    assert {place: wrong for place, wrong in found.items() if wrong} == {}
    for kind, name, path in (
        ("RayJob", "waterbirds", ("entrypoints",)),
        ("RayCluster", "", ("workerGroupSpecs", 0, "minReplica")),
        ("RayCluster", "", ("headGroupSpec", "template", "spec", "containers", 0, "imagePull")),
        ("Deployment", "", ("template", "spec", "containers", 0, "readinesProbe")),
        ("NetworkPolicy", "ray", ("ingress", 0, "form")),
    ):
        misspelled = copy.deepcopy(the(kind, name))
        place: Any = misspelled["spec"]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = "x"
        assert any(str(path[-1]) in problem for problem in problems(misspelled)), path


def test_every_file_is_applied_by_its_folder():
    for folder in ("cluster", "local"):
        (kustomization,) = (m for _, m in documents(f"{folder}/kustomization.yaml"))
        files = {path.name for path in (INFRA / folder).glob("*.yaml")} - {"kustomization.yaml"}
        assert {name for name in kustomization["resources"] if "/" not in name} == files


def test_one_machine_needs_no_gpu_and_makes_its_own_volume():
    claim, cluster = patched()
    volume = the("PersistentVolume")
    assert claim["spec"]["volumeName"] == volume["metadata"]["name"]
    for field in ("storageClassName", "accessModes"):
        assert claim["spec"][field] == volume["spec"][field]
    replicas = {g["groupName"]: g["replicas"] for g in cluster["spec"]["workerGroupSpecs"]}
    assert replicas == {"data": 2, "gpu": 0}
    assert f" {volume['spec']['hostPath']['path']}\n" in README


def test_services_and_selectors_find_their_pods():
    for manifest in of_kind("Deployment", "StatefulSet"):
        spec = manifest["spec"]
        labels = spec["template"]["metadata"]["labels"].items()
        assert spec["selector"]["matchLabels"].items() <= labels
    for service in of_kind("Service"):
        selector = service["spec"]["selector"]
        (pod,) = (pod for _, labels, pod in pods() if selector.items() <= labels.items())
        names = {port["name"]: port["containerPort"] for port in pod["containers"][0]["ports"]}
        for port in service["spec"]["ports"]:
            assert names[port["targetPort"]] == port["port"]
    stateful = the("StatefulSet")
    assert the("Service", stateful["spec"]["serviceName"])["spec"]["clusterIP"] == "None"


def test_every_pod_is_closed_but_for_those_who_need_it():
    closed = the("NetworkPolicy", "closed")["spec"]
    assert (closed["podSelector"], closed["policyTypes"]) == ({}, ["Ingress"])
    assert "ingress" not in closed
    callers = {}
    for policy in (p["spec"] for p in of_kind("NetworkPolicy") if p["spec"] is not closed):
        answering = reached(policy["podSelector"])
        assert answering
        for rule in policy["ingress"]:
            ports = [port["port"] for port in rule.get("ports", [])]
            for who in rule["from"]:
                stranger = "namespaceSelector" in who
                calling = ("operator",) if stranger else reached(who["podSelector"])
                assert calling
                callers |= {(a, b): ports for a in calling for b in answering}
            for port in ports:
                assert any(port in port_names(name) for name in answering)
    ray = ("head", "data", "gpu")
    assert callers == {(a, b): [] for a in ray for b in ray} | {
        ("operator", b): ["dashboard"] for b in ray
    } | {("head", "mlflow"): ["http"], ("mlflow", "postgres"): ["postgres"]}


def reached(selector: Manifest) -> tuple[str, ...]:
    """Pods that a selector means."""
    wanted = selector["matchLabels"].items()
    return tuple(name for name, labels, _ in pods() if wanted <= labels.items())


def port_names(pod: str) -> set[str]:
    """Names of the ports of a pod."""
    return {p["name"] for name, c in containers() if name == pod for p in c.get("ports", [])}


def test_operator_is_let_in_from_where_the_readme_puts_it():
    rules = the("NetworkPolicy", "ray")["spec"]["ingress"]
    (operator,) = (w for rule in rules for w in rule["from"] if "namespaceSelector" in w)
    (namespace,) = operator["namespaceSelector"]["matchLabels"].values()
    assert f"--namespace {namespace} --create-namespace" in README


def test_volumes_are_claimed_and_mounted():
    claims = {claim["metadata"]["name"] for claim in of_kind("PersistentVolumeClaim")}
    templates = the("StatefulSet")["spec"]["volumeClaimTemplates"]
    made = {template["metadata"]["name"] for template in templates}
    used = set()
    for _, _, pod in pods():
        volumes = {volume["name"] for volume in pod.get("volumes", [])}
        used |= {
            v["persistentVolumeClaim"]["claimName"] for v in pod.get("volumes", [])
            if "persistentVolumeClaim" in v
        }  # fmt: skip
        for container in pod["containers"]:
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted <= volumes | made
            assert volumes <= mounted
    assert used == claims
    assert the("PersistentVolumeClaim", "shared")["spec"]["accessModes"] == ["ReadWriteMany"]
    for name in ("head", "data", "gpu"):
        (container,) = (c for pod, c in containers() if pod == name)
        assert {"name": "shared", "mountPath": "/shared"} in container["volumeMounts"]


def test_head_works_on_nothing_and_every_pod_has_its_bounds():
    head = the("RayCluster")["spec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    for _, container in containers():
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= container["resources"][bound].keys()
    gpus = {name: c["resources"]["limits"].get("nvidia.com/gpu") for name, c in containers()}
    assert {name for name, count in gpus.items() if count} == {"gpu"}


def test_server_accepts_the_name_that_sweeps_call_it_by():
    (mlflow,) = (c for name, c in containers() if name == "mlflow")
    (allowed,) = (w for w in mlflow["command"] if w.startswith("--allowed-hosts="))
    hosts = allowed.partition("=")[2].split(",")
    assert {"mlflow:5000", "localhost:*", "127.0.0.1:*"} == set(hosts)
    assert f"--port={mlflow['ports'][0]['containerPort']}" in mlflow["command"]


def test_secrets_are_named_never_written():
    made = {
        name: set(re.findall(r"--from-literal=(\w+)=", rest))
        for name, rest in re.findall(r"kubectl create secret generic (\S+) (.*)", README)
    }
    asked: dict[str, set[str]] = {}
    for _, container in containers():
        for variable in container.get("env", []):
            if "valueFrom" in variable:
                reference = variable["valueFrom"]["secretKeyRef"]
                asked.setdefault(reference["name"], set()).add(reference["key"])
            else:
                assert not re.search("PASS|TOKEN|SECRET|KEY", variable["name"])
                assert not re.search(r"//[^/@]*:[^/@]*@", variable["value"])
        for source in container.get("envFrom", []):
            asked.setdefault(source["secretRef"]["name"], set())
    assert asked.keys() == made.keys()
    for name, keys in asked.items():
        assert keys <= made[name]
    assert of_kind("Secret") == []


def test_clients_need_a_token():
    assert the("RayCluster")["spec"]["authOptions"] == {"mode": "token"}
    assert "RAY_AUTH_MODE=token" in README


@pytest.mark.parametrize("name", [name for name, _, _ in pods()])
def test_pods_run_as_nobody_special(name):
    """What the namespace's level `restricted` demands."""
    (pod,) = (spec for other, _, spec in pods() if other == name)
    user = pod["securityContext"]
    assert user["runAsNonRoot"]
    assert user["runAsUser"] > 0
    assert user["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        own = container["securityContext"]
        assert own == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
