"""What is deployed fits the code: the flags exist, and TF_CONFIG is one that workers take."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines import train
from tfrobust.distribution import worker_of

DEPLOY = Path(__file__).resolve().parents[1] / "deploy"


def manifests() -> dict[str, dict]:
    text = (DEPLOY / "kubernetes" / "training.yaml").read_text()
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def test_the_workers_find_each_other_by_the_service() -> None:
    found = manifests()
    service, job = found["Service"], found["Job"]
    pod = job["spec"]["template"]["spec"]
    assert pod["subdomain"] == service["metadata"]["name"] == job["metadata"]["name"]
    assert service["spec"]["selector"] == {"job-name": job["metadata"]["name"]}
    claim = pod["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert found["PersistentVolumeClaim"]["metadata"]["name"] == claim
    workers = pod["containers"][0]["env"][0]
    assert workers == {"name": "WORKERS", "value": str(job["spec"]["completions"])}


@pytest.mark.parametrize("index", [0, 3])
def test_the_manifest_s_command_makes_each_pod_a_worker(index: int, tmp_path: Path) -> None:
    container = manifests()["Job"]["spec"]["template"]["spec"]["containers"][0]
    # In the place of Python, what it would have been given.
    fake = tmp_path / "python"
    fake.write_text('#!/bin/sh\nprintf "%s\\n" "$TF_CONFIG" > config\nprintf "%s\\n" "$*" > args\n')
    fake.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "WORKERS": "4",
           "JOB_COMPLETION_INDEX": str(index)}  # fmt: skip
    command = [*container["command"], *container["args"]]
    subprocess.run(command, env=env, cwd=tmp_path, check=True)
    worker = worker_of((tmp_path / "config").read_text())
    assert (worker.index, worker.count) == (index, 4)
    _, module, *flags = shlex.split((tmp_path / "args").read_text())
    assert module == "pipelines.train"
    args = train.make_parser().parse_args(flags)
    assert args.strategy == "multiworker" and args.resume


def test_compose_mounts_what_its_command_names() -> None:
    service = yaml.safe_load((DEPLOY / "serving" / "compose.yaml").read_text())["services"][
        "serving"
    ]
    assert any(volume.endswith(":/etc/tfrobust:ro") for volume in service["volumes"])
    named = [part.split("/")[-1] for part in service["command"] if "/etc/tfrobust/" in part]
    assert len(named) == 2 and all((DEPLOY / "serving" / name).is_file() for name in named)
