"""What is deployed fits the code: the flags exist, and TF_CONFIG is one that workers take."""

from __future__ import annotations

import configparser
import os
import shlex
import subprocess
from pathlib import Path

import pytest
import yaml

from pipelines import train
from tfrobust.cli.plans import make_plan
from tfrobust.distribution import worker_of
from tfrobust.runtime import tf

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
    policy = found["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == service["spec"]["selector"]
    assert policy["ingress"] == [{"from": [{"podSelector": policy["podSelector"]}]}]
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
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "JOB_COMPLETION_INDEX": str(index),
           **{one["name"]: one["value"] for one in container["env"]},
           "RUNS": f"{tmp_path}/runs", "HOME": f"{tmp_path}/home"}  # fmt: skip
    command = [*container["command"], *container["args"]]
    subprocess.run(command, env=env, cwd=tmp_path, check=True)
    worker = worker_of((tmp_path / "config").read_text())
    assert (worker.index, worker.count) == (index, 4)
    _, module, *flags = shlex.split((tmp_path / "args").read_text())
    assert module == "pipelines.train"
    args = train.make_parser().parse_args(flags)
    assert args.strategy == "multiworker" and args.resume
    assert args.output == f"{tmp_path}/runs/tiny-imagenet"
    # The same path for all, and behind it each one's own folder on the volume.
    own = tmp_path / "runs" / "workers" / str(index)
    data = make_plan(args).config.data
    assert [data.data_dir, data.cache_dir] == [f"{tmp_path}/home/data", f"{tmp_path}/home/cache"]
    assert (tmp_path / "home").resolve() == own and (own / "data").is_dir()


def test_the_volume_is_mounted_where_the_command_writes() -> None:
    container = manifests()["Job"]["spec"]["template"]["spec"]["containers"][0]
    runs = {one["name"]: one["value"] for one in container["env"]}["RUNS"]
    assert container["volumeMounts"][0]["mountPath"] == runs


def test_the_pods_run_as_the_image_s_user_who_may_write_to_the_volume() -> None:
    pod = manifests()["Job"]["spec"]["template"]["spec"]
    user = int((DEPLOY / "Dockerfile").read_text().split("--uid ")[1].split()[0])
    context = pod["securityContext"]
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == user
    assert context["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"]["allowPrivilegeEscalation"] is False


def test_wrong_use_ends_the_job_and_lost_workers_do_not() -> None:
    job = manifests()["Job"]["spec"]
    # Kubernetes takes a podFailurePolicy with this one only.
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    first, second = job["podFailurePolicy"]["rules"]
    assert first["action"] == "FailJob" and second["action"] == "Ignore"
    assert first["onExitCodes"]["containerName"] == job["template"]["spec"]["containers"][0]["name"]
    with pytest.raises(SystemExit) as error:
        train.main(["--no-such-flag"])
    assert first["onExitCodes"]["values"] == [error.value.code] == [2]
    # Each incident takes all workers with it.
    assert job["backoffLimit"] >= 50 * job["completions"]


@pytest.fixture
def serving() -> dict:
    found: dict = yaml.safe_load((DEPLOY / "serving" / "compose.yaml").read_text())
    return found["services"]["serving"]


def test_tensorflow_serving_is_no_older_than_what_it_reads(serving) -> None:
    """TensorFlow reads SavedModels of its own version and of earlier ones, and promises no more."""
    image, _, tag = serving["image"].partition(":")
    version = [int(part) for part in tag.split(".")]
    assert image == "tensorflow/serving" and len(version) == 3
    setup = configparser.ConfigParser()
    setup.read(DEPLOY.parent / "setup.cfg")
    lines = setup["options"]["install_requires"].splitlines()
    needs = dict(line.split(">=") for line in lines if line.startswith("tensorflow"))
    # The newest TensorFlow that exports may come from, and no later one: nothing is tested with it.
    minor = int(needs["tensorflow"].partition("<2.")[2]) - 1
    assert version[:2] == [2, minor]
    assert needs["tensorflow-serving-api"] == needs["tensorflow"]
    assert version[:2] >= [int(part) for part in tf.__version__.split(".")[:2]]


def test_compose_mounts_what_its_command_names(serving) -> None:
    assert any(volume.endswith(":/etc/tfrobust:ro") for volume in serving["volumes"])
    text = (DEPLOY / "serving" / "compose.yaml").read_text()
    named = [line.split("/")[-1] for line in text.splitlines() if "=/etc/tfrobust/" in line]
    assert named == ["monitoring.config", "batching.config"]
    assert all((DEPLOY / "serving" / name).is_file() for name in named)


def test_compose_is_for_this_machine_and_has_an_end(serving) -> None:
    assert all(port.startswith("${ADDRESS:-127.0.0.1}:") for port in serving["ports"])
    assert serving["mem_limit"] == "4g"
    threads = [part for part in serving["command"] if "threads=" in part]
    assert len(threads) == 2


def test_one_bad_request_fails_no_other(serving) -> None:
    """The graph's checks are for a whole batch: requests of strangers share none."""
    assert not any("batching" in part for part in serving["command"])
    parameters = dict(
        line.split(" { value: ") for line in
        (DEPLOY / "serving" / "batching.config").read_text().splitlines()
        if line and not line.startswith("#")
    )  # fmt: skip
    # TensorFlow Serving wants both, or refuses what is larger than a batch.
    assert parameters["enable_large_batch_splitting"] == "true }"
    assert parameters["max_execution_batch_size"] == "32 }"
