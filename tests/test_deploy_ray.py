"""The manifests for KubeRay: what they name exists, in Ray, in tfrobust and among themselves.

Pods, volumes and policies are held against the schemas of Kubernetes, and a cluster and a service
against Ray's own readers, where kubernetes-validate and Ray are installed. Schemas of KubeRay are
not to be had as packages: its fields are held against those that its version 1.1 has.
"""

from __future__ import annotations

import configparser
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import evaluate, train
from tfrobust.cli.plans import make_plan
from tfrobust.serving import again

FOLDER = Path(__file__).resolve().parents[1] / "deploy" / "kubernetes"
FILES = sorted((FOLDER / "ray").glob("*.yaml"))
KUBERNETES = "1.32"
CLUSTER = {
    "rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
    "workerGroupSpecs",
}  # fmt: skip
GROUP = {"rayStartParams", "template"}
FIELDS = {
    "RayCluster": CLUSTER,
    "RayJob": {"clusterSelector", "submissionMode", "entrypoint"},
    "RayService": {"serveConfigV2", "rayClusterConfig"},
}


def documents(*names: str) -> list[dict[str, Any]]:
    files = [file for file in FILES if not names or file.stem in names]
    assert files
    return [one for file in files for one in yaml.safe_load_all(file.read_text())]


def named(kind: str, *names: str) -> dict[str, Any]:
    [found] = [one for one in documents(*names) if one["kind"] == kind]
    return found


def clusters() -> list[dict[str, Any]]:
    """What KubeRay makes Ray clusters of."""
    service = named("RayService")
    return [named("RayCluster"), {
        "metadata": service["metadata"], "spec": service["spec"]["rayClusterConfig"],
    }]  # fmt: skip


def groups() -> Iterator[tuple[bool, dict[str, Any]]]:
    """(whether it is a head, the group)."""
    for cluster in clusters():
        yield True, cluster["spec"]["headGroupSpec"]
        yield from ((False, group) for group in cluster["spec"]["workerGroupSpecs"])


def test_fields_are_those_of_kuberay() -> None:
    for one in documents():
        if one["kind"] in FIELDS:
            assert one["apiVersion"] == "ray.io/v1" and set(one) == {
                "apiVersion", "kind", "metadata", "spec"
            }  # fmt: skip
            assert set(one["spec"]) <= FIELDS[one["kind"]]
    for cluster in clusters():
        assert set(cluster["spec"]) <= CLUSTER
        options = cluster["spec"].get("autoscalerOptions", {})
        assert set(options) <= {"idleTimeoutSeconds", "securityContext"}
    for head, group in groups():
        sizes = set() if head else {"groupName", "replicas", "minReplicas", "maxReplicas"}
        assert set(group) == GROUP | sizes | ({"serviceType"} if head else set())
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        if not head:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_pods_volumes_and_policies_are_kubernetes_s() -> None:
    validate = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    plain = [one for one in documents() if not one["apiVersion"].startswith("ray.io")]
    training = (FOLDER / "training.yaml").read_text()
    plain += list(yaml.safe_load_all(training))
    pods = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"},
             "spec": group["template"]["spec"]} for _, group in groups()]  # fmt: skip
    assert len(plain) == 7 and len(pods) == 4
    for one in [*plain, *pods]:
        validate.validate(one, KUBERNETES, strict=True)
    pods[0]["spec"]["containers"][0]["resorces"] = {}
    with pytest.raises(validate.ValidationError):
        validate.validate(pods[0], KUBERNETES, strict=True)


def test_pods_run_as_the_image_s_user_with_the_volume_of_the_cluster() -> None:
    user = int((FOLDER.parent / "Dockerfile").read_text().split("--uid ")[1].split()[0])
    claim = named("PersistentVolumeClaim", "cluster")["metadata"]["name"]
    policies = [one["spec"]["podSelector"]["matchLabels"] for one in documents()
                if one["kind"] == "NetworkPolicy"]  # fmt: skip
    for _, group in groups():
        pod = group["template"]["spec"]
        context, [container] = pod["securityContext"], pod["containers"]
        assert context["runAsUser"] == context["fsGroup"] == user and context["runAsNonRoot"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        # What Ray counts with is what a pod really has.
        assert container["resources"]["limits"] == container["resources"]["requests"]
        assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == claim
        mounted = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
        assert mounted == {"runs": "/runs", "memory": "/dev/shm"}
        # No pod of Ray is without a policy that closes it.
        labels = group["template"]["metadata"]["labels"].items()
        assert any(policy.items() <= labels for policy in policies)


def test_nothing_of_ray_is_reached_from_outside() -> None:
    assert all(group["serviceType"] == "ClusterIP" for head, group in groups() if head)
    cluster, service = (
        next(one["spec"] for one in documents(name) if one["kind"] == "NetworkPolicy")
        for name in ("cluster", "service")
    )
    own, operator = cluster["ingress"]
    assert own["from"] == [{"podSelector": cluster["podSelector"]}]
    assert {one["port"] for one in operator["ports"]} == {8265, 52365}
    opened = {one["port"] for rule in service["ingress"] for one in rule["ports"]}
    config = yaml.safe_load(named("RayService")["spec"]["serveConfigV2"])
    assert opened == {config["http_options"]["port"]}
    assert config["controller_options"] == again.settings()


@pytest.mark.parametrize(("name", "pipeline"), [("evaluate", evaluate), ("train", train)])
def test_jobs_are_commands_of_ours_for_the_cluster(name: str, pipeline: Any) -> None:
    job, cluster = named("RayJob", name)["spec"], named("RayCluster")
    assert job["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    # KubeRay hands it over itself: the policy lets nobody else in.
    assert job["submissionMode"] == "HTTPMode"
    python, m, module, *flags = shlex.split(job["entrypoint"])
    assert [python, m, module] == ["python", "-m", pipeline.__name__]
    args = pipeline.make_parser().parse_args(flags)
    assert args.resume and args.on == "ray"
    if name == "train":
        [group] = cluster["spec"]["workerGroupSpecs"]
        worker = group["template"]["spec"]["containers"][0]
        assert args.worker_cpus <= int(worker["resources"]["limits"]["cpu"])
        assert args.workers <= group["maxReplicas"]
        assert make_plan(args).config.training.batch_size % args.workers == 0


def test_the_job_evaluates_what_the_other_trains() -> None:
    words = {name: shlex.split(named("RayJob", name)["spec"]["entrypoint"])
             for name in ("evaluate", "train")}  # fmt: skip
    output = words["train"][words["train"].index("--output") + 1]
    assert words["evaluate"][3] == output and output.startswith("/runs/")


def test_versions_of_ray_are_one_and_in_the_extra_s_range() -> None:
    setup = configparser.ConfigParser()
    setup.read(FOLDER.parents[1] / "setup.cfg")
    [line] = [one for one in setup["options.extras_require"]["cluster"].splitlines()
              if one.startswith("ray[")]  # fmt: skip
    least = line.partition(">=")[2].split(",")[0]
    for cluster in clusters():
        assert cluster["spec"]["rayVersion"].startswith(f"{least}.")


def test_ray_s_autoscaler_reads_the_clusters() -> None:
    name = "ray.autoscaler._private.kuberay.autoscaling_config"
    reader = pytest.importorskip(name, reason="pip install 'tfrobust[cluster]'")
    for cluster in clusters():
        cluster["metadata"]["namespace"] = "default"
        found = reader._derive_autoscaling_config_from_ray_cr(cluster)
        types, [group] = found["available_node_types"], cluster["spec"]["workerGroupSpecs"]
        assert types["headgroup"]["resources"]["CPU"] == 0
        container = group["template"]["spec"]["containers"][0]
        assert types["workers"]["resources"]["CPU"] == int(container["resources"]["limits"]["cpu"])
        assert types["workers"]["max_workers"] == found["max_workers"] == group["maxReplicas"]


def test_ray_serve_reads_the_service() -> None:
    reason = "pip install 'tfrobust[cluster,serve]'"
    schema = pytest.importorskip("ray.serve.schema", reason=reason)
    from tfrobust.serving.on_ray import build

    service = named("RayService")["spec"]
    config = schema.ServeDeploySchema.model_validate(yaml.safe_load(service["serveConfigV2"]))
    [application] = config.applications
    assert application.import_path == f"{build.__module__}:{build.__name__}"
    assert build(application.args)
    [group] = service["rayClusterConfig"]["workerGroupSpecs"]
    cpus = group["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"]
    # So many replicas fit on so many workers.
    fit = group["maxReplicas"] * (int(cpus) // application.args["cpus"])
    assert application.args["most_replicas"] <= fit
