"""The main job killed by signal 9 at random moments, from its start to its end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tfrobust.runtime import tf

ROOT = Path(__file__).resolve().parents[2]
# Fewer for a look in between.
KILLS = int(os.environ.get("TFROBUST_KILLS", "20"))
JOB = (
    "--backbone", "simplenet", "--limit-train", "160", "--epochs", "6", "--batch-size", "16",
    "--limit", "40", "--steps", "3", "--restarts", "1", "--sweep", "0.1", "--select-limit", "40",
    "--select-steps", "2", "--flip", "--gaussian-noise", "0.02", "--no-figures",
    "--export-anyway", "--resume", "--output",
)  # fmt: skip


def start(folder):
    return subprocess.Popen([sys.executable, "-m", "pipelines.train", *JOB, str(folder)], cwd=ROOT,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip


def finish(folder):
    begun = time.monotonic()
    _, errors = (process := start(folder)).communicate(timeout=600)
    assert process.returncode == 0, errors[-2000:]
    return time.monotonic() - begun


def outcome(folder):
    """The last weights, optimiser and all, and what was measured of the kept model."""
    reader = tf.train.load_checkpoint(str(folder / "checkpoints" / "epoch-0006" / "checkpoint"))
    held = {key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()
            if key != "_CHECKPOINTABLE_OBJECT_GRAPH"}  # fmt: skip
    report = json.loads((folder / "evaluation.json").read_text())
    return held, [report[name] for name in ("clean_accuracy", "robust_accuracy")]


@pytest.mark.slow
@pytest.mark.timeout(6000)
def test_killed_at_random_moments_the_command_ends_as_if_it_had_not_been(tmp_path):
    takes = finish(tmp_path / "whole")
    (expected, figures), rng = outcome(tmp_path / "whole"), np.random.default_rng(2)
    struck = home = 0
    while struck < KILLS:
        process, folder = start(tmp_path / f"{home}"), tmp_path / f"{home}"
        time.sleep(rng.uniform(0.2, 0.95) * takes)
        killed = process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
        struck += killed
        if killed and struck < KILLS:
            continue
        if killed:
            finish(folder)
        found, again = outcome(folder)
        assert found.keys() == expected.keys() and again == figures
        for key, value in expected.items():
            np.testing.assert_array_equal(value, found[key], err_msg=key)
        home += 1
    print(f"command: {struck} kills of {home} runs, all equal", flush=True)
