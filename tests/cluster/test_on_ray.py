"""On real Ray clusters of several nodes: results are those of one machine, whoever dies.

Ray starts in seconds and TensorFlow in each of its processes: python -m pytest -m slow
tests/cluster, with the extra [cluster].
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tfrobust.attacks.gradient import PGD
from tfrobust.attacks.spatial import spatial_accuracy
from tfrobust.attacks.square import Square
from tfrobust.cluster.pool import opened_workers
from tfrobust.errors import TFRobustError
from tfrobust.evaluation.checkpoint import Checkpoint
from tfrobust.evaluation.corrupted import corruption_accuracy
from tfrobust.evaluation.evaluate import evaluate
from tfrobust.radii.certify import certify
from tfrobust.radii.minimal_distance import minimal_distance
from tfrobust.report.comparison import accuracy_on
from tfrobust.threat_model import ThreatModel

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

BALL = ThreatModel("linf", 1 / 255)
ATTACKS = {"pgd": PGD(steps=8, restarts=2), "square": Square(queries=40)}


def facts(report):
    values = report.as_dict()
    values.pop("seconds")
    for attack in values["attacks"].values():
        attack.pop("seconds")
    return values, report.as_csv((), tuple("abcd"))


def measured(case, on=None, checkpoint=None):
    model, data = case
    return facts(evaluate(model, data, BALL, ATTACKS, batch_size=20, on=on, checkpoint=checkpoint))


def test_an_evaluation_finds_what_one_machine_finds(case, nodes):
    alone = measured(case)
    assert 0 < alone[0]["robust_accuracy"] < alone[0]["clean_accuracy"]
    assert measured(case, "ray") == alone


class Deadly(Checkpoint):
    """Does something to the cluster once, after so many batches."""

    def __init__(self, path, after, deed):
        super().__init__(path, "key", every=0)
        self.after, self.deed = after, deed

    def note(self):
        super().note()
        self.after -= 1
        if self.after == 0:
            self.deed()


@pytest.mark.parametrize(("after", "place"), [(1, 0), (9, 1)])
def test_a_node_that_dies_changes_nothing(case, nodes, after, place):
    alone = measured(case)
    checkpoint = Deadly(None, after, lambda: nodes.kill(place))
    assert measured(case, "ray", checkpoint) == alone
    assert checkpoint.after < 0 and len(nodes.nodes) == 1


class Killed(Exception):
    pass


def test_a_driver_that_dies_is_resumed(case, nodes, tmp_path):
    def die():
        raise Killed

    path = tmp_path / "progress.npz"
    with pytest.raises(Killed):
        measured(case, "ray", Deadly(path, 5, die))
    resumed = Checkpoint(path, "key", resume=True)
    assert resumed.resumed and measured(case, "ray", resumed) == measured(case)


def test_certificates_and_corruptions_are_those_of_one_machine(case, nodes):
    model, data = case
    few = data.subset(np.arange(12))
    here, there = (certify(model, few, 0.05, samples=200, on=on) for on in (None, "ray"))
    assert (here.radii == there.radii).all() and here.radii.any()
    assert (here.predictions == there.predictions).all()
    how = {"names": ("shot_noise", "contrast"), "batch_size": 40}
    with opened_workers("ray") as workers:
        found = corruption_accuracy(model, data, workers=workers, **how)
    assert found == corruption_accuracy(model, data, **how)


def test_distances_turns_and_accuracies_are_those_of_one_machine(case, nodes):
    model, data = case
    few = data.subset(np.arange(60))
    how = {"batch_size": 16, "attack": "fmn:steps=5", "norm": "linf"}
    here, there = (minimal_distance(model, few, on=on, **how) for on in (None, "ray"))
    assert (here.distances == there.distances).all() and np.isfinite(here.distances).any()
    for settings in ({"grid": (3, 3)}, {"draws": 4}):
        here, there = (spatial_accuracy(model, few, batch_size=16, on=on, **settings)
                       for on in (None, "ray"))  # fmt: skip
        assert (here.robust == there.robust).all() and not here.robust.all()
        assert (here.broken_at == there.broken_at).all()
    with opened_workers("ray") as workers:
        assert accuracy_on(model, few, 16, workers) == accuracy_on(model, few, 16)


def test_a_set_ends_where_it_ends_on_one_machine(case, nodes):
    from tfrobust.data.perturbed import Source
    from tfrobust.sets.perturbed import Perturber, SetPlan

    model, data = case
    plan = SetPlan(name="s", split="test", size=7, attack_name="pgd", attack=PGD(steps=20),
                   threat_model=ThreatModel("linf", 2 / 255))  # fmt: skip
    digests = tuple(map(str, range(len(data))))
    source = Source("test", data, np.arange(len(data)), digests, {})
    with opened_workers("ray") as workers:
        sets = [Perturber(model, batch_size=16, workers=who).make(plan, source)
                for who in (None, workers)]  # fmt: skip
    here, there = sets
    assert here.rows == there.rows and here.end == there.end and len(here.rows) == 7
    assert (here.images.images == there.images.images).all()


def test_what_a_worker_raises_is_told(case, nodes):
    model, data = case

    class Broken(PGD):
        def __call__(self, model, x, y, threat_model, seed):
            raise KeyError("an attack of my own")

    with pytest.raises(TFRobustError):
        evaluate(model, data, BALL, {"broken": Broken()}, on="ray")


def test_functions_and_saved_models_travel(case, nodes, tmp_path):
    import tfrobust as tr

    model, data = case
    scale = np.float32(2)
    pgd = {"pgd": PGD(steps=3)}
    saved = tr.export(model, tmp_path / "saved", data.label_names)
    for one in (lambda x: model(x) * scale, saved):
        here, there = (facts(evaluate(one, data, BALL, pgd, on=on)) for on in (None, "ray"))
        assert here == there


# ---- clusters of its own ----


CLIENT = """
import sys
import tfrobust as tr

def run(on):
    ball = tr.Linf(1 / 255)
    return tr.evaluate(sys.argv[1], sys.argv[2], ball, "pgd:steps=8", batch_size=20, on=on)

def known(config, run, report):
    report(1, {"select_clean": 0.5})
    return {"clean": 0.5}

def trial(on):
    from pathlib import Path
    from tfrobust.cluster import as_ray, connected
    from tfrobust.config import RunConfig
    from tfrobust.run import RunFolder
    from tfrobust.search.on_ray import OnRay
    run, told = RunFolder(Path(sys.argv[1]).parent / "trial"), []
    run.create()
    with connected(as_ray(on)) as ray:
        found = OnRay(known, ray, as_ray(on))(
            RunConfig(), run, lambda epoch, row: told.append(epoch))
    assert found == {"clean": 0.5} and told == [1], (found, told)

here, there = run(None), run(sys.argv[3])
assert (here.robust == there.robust).all() and 0 < here.robust.mean() < here.clean_accuracy
trial(sys.argv[3])
"""


def test_a_cluster_is_reached_from_outside(case, nodes, tmp_path):
    model, data = case
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", x=data.images, y=data.labels)
    command = [sys.executable, "-c", CLIENT, str(tmp_path / "model.keras"),
               str(tmp_path / "x.npz"), f"ray://127.0.0.1:{nodes.client_port}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


PORTS = """
import os, sys
from pathlib import Path
from tfrobust.cluster.pool import opened_workers
with opened_workers("ray"):
    owners = {}
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            owners[os.readlink(link)] = link.parts[2]
        except OSError:
            pass
    rays = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            cells = line.split()
            pid = owners.get(f"socket:[{cells[9]}]")
            if cells[3] != "0A" or pid is None:
                continue
            name = Path(f"/proc/{pid}/cmdline").read_bytes()
            if pid == str(os.getpid()) or b"ray" in name:
                rays.add(cells[1].rpartition(":")[0])
    print("found", *sorted(rays))
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs Linux's /proc")
def test_a_cluster_of_our_own_listens_on_the_loopback_device_alone():
    env = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", PORTS], env=env, capture_output=True, text=True,
                          timeout=180, check=True)  # fmt: skip
    found = done.stdout.split("found ")[1].split()
    assert found and all(one.endswith("0100007F") for one in found), found


def test_the_command_does_it(case, tmp_path):
    model, data = case
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "x.npz", x=data.images, y=data.labels)
    found = []
    for output, more in (("one", []), ("two", ["--on", "ray"])):
        command = [
            sys.executable, "-m", "tfrobust", "evaluate", str(tmp_path / "model.keras"),
            "--data", str(tmp_path / "x.npz"), "--eps", "1/255", "--attack", "pgd:steps=8",
            "--eval-batch-size", "20", "--no-figures", "--output", str(tmp_path / output), *more,
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=300)
        values = json.loads((tmp_path / output / "evaluation.json").read_text())
        del values["seconds"], values["attacks"]["pgd"]["seconds"]
        found.append((values, (tmp_path / output / "predictions.csv").read_text()))
    assert found[0] == found[1]
