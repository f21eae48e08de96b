"""The files of deploy/ against what reads them: Docker, KubeRay, the shell. None of them is started here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from packaging.version import Version

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
MANIFESTS: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy/kuberay/rayjob.yaml").read_text()))
JOB = MANIFESTS[0]
CLUSTER = JOB["spec"]["rayClusterSpec"]
GROUPS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]

CONTAINER = {"name", "image", "args", "env", "ports", "readinessProbe", "resources", "volumeMounts"}
"""Fields of a container, of Kubernetes' core/v1, that are used."""


def copied() -> list[str]:
    """What the Dockerfile takes from the checkout."""
    lines = [line.split()[1:-1] for line in DOCKERFILE.splitlines() if re.match(r"COPY (?!--from)", line)]
    return [name for names in lines for name in names]


def test_copied_files_are_those_that_go_to_the_build() -> None:
    ignored = (ROOT / "deploy/docker/Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert {line[1:] for line in ignored if line.startswith("!")} == set(copied())
    assert [name for name in copied() if not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_copied_files_are_enough_to_build_the_package(tmp_path: Path) -> None:
    for name in copied():
        path = ROOT / name
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, tmp_path / name)
    installed = tmp_path / "installed"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target"]
    subprocess.run([*command, installed, tmp_path], check=True)
    assert len(list((installed / "pipeline/templates").glob("*.yaml"))) == 4
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-m", "pipeline", "--help"]
    done = subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Make a captioned training set" in done.stdout


def test_image_runs_as_a_user_without_rights() -> None:
    stages = DOCKERFILE.split("\nFROM ")
    assert len(stages) == 3
    assert re.search(r"^USER [1-9]\d*$", stages[-1], re.M)
    assert stages[-1].index("USER") < stages[-1].index("python -m pipeline --help")
    assert not re.search(r"(?i)^(ARG|ENV) .*(token|secret|password|api_key)", DOCKERFILE, re.M)


def fields(value: object, path: str = "") -> Iterator[str]:
    """The paths of a manifest's values, as kuberay_fields.txt writes them."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from fields(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and value:
        for inner in value:
            yield from fields(inner, f"{path}[]")
    else:
        yield path


def test_fields_of_the_job_are_those_of_the_resource() -> None:
    lines = (ROOT / "tests/compatibility/kuberay_fields.txt").read_text().splitlines()
    allowed = [line for line in lines if line and not line.startswith("#")]
    pods = [line.removesuffix(" Pod") for line in allowed if line.endswith(" Pod")]
    open_ = [line.removesuffix("*") for line in allowed if line.endswith(".*")]
    unknown = [
        path
        for path in fields(JOB)
        if path not in allowed
        and not any(path.startswith(f"{pod}.spec.") for pod in pods)
        and not any(path.startswith(prefix) and "." not in path.removeprefix(prefix) for prefix in open_)
    ]
    assert unknown == []
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")


def containers() -> list[dict[str, Any]]:
    pods = [group["template"]["spec"] for group in GROUPS] + [MANIFESTS[1]["spec"]["template"]["spec"]]
    for pod in pods:
        assert set(pod) <= {"securityContext", "containers", "volumes"}
        mounted = {mount["name"] for each in pod["containers"] for mount in each["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}
    return [each for pod in pods for each in pod["containers"]]


def test_containers_have_known_fields_and_no_secret_in_text() -> None:
    for container in containers():
        assert set(container) <= CONTAINER
        for variable in container["env"]:
            assert set(variable) in ({"name", "value"}, {"name", "valueFrom"})
            if re.search(r"KEY|TOKEN|SECRET", variable["name"]):
                assert set(variable.get("valueFrom", {})) == {"secretKeyRef"}


def test_parameters_of_the_nodes_are_options_of_ray() -> None:
    """Their values are texts: KubeRay refuses numbers."""
    done = subprocess.run([Path(sys.executable).parent / "ray", "start", "--help"], capture_output=True, text=True)
    for group in GROUPS:
        for name, value in group["rayStartParams"].items():
            assert f"--{name}" in done.stdout
            assert isinstance(value, str)
    assert CLUSTER["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_manifest_names_the_tested_version_of_ray() -> None:
    assert CLUSTER["rayVersion"] == ray.__version__
    assert Version(CLUSTER["rayVersion"]) >= Version("2.52")  # the first with tokens


def test_service_is_the_one_that_the_comment_names() -> None:
    _, deployment, service, claim = MANIFESTS
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels
    (port,) = service["spec"]["ports"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"containerPort": port["targetPort"]}]
    text = (ROOT / "deploy/kuberay/rayjob.yaml").read_text()
    assert f"http://{service['metadata']['name']}:{port['port']}/v1" in text
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in [*GROUPS, deployment["spec"]]
        for volume in pod["template"]["spec"]["volumes"]
        if "persistentVolumeClaim" in volume
    }
    assert claims == {claim["metadata"]["name"]}


def test_script_for_slurm_has_no_known_mistake() -> None:
    script = ROOT / "deploy/slurm/submit.sh"
    subprocess.run(["bash", "-n", script], check=True)
    checker = shutil.which("shellcheck", path=str(Path(sys.executable).parent))
    if checker is None:
        pytest.skip("no shellcheck: it comes with the extra `dev`")
    done = subprocess.run([checker, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
