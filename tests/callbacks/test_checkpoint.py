"""A `fit` that ends early, is called again as before, and ends with the same weights."""

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
from robust_cases import IN_KERAS_3, assert_same, data, small

import tfrobust as tr

ROOT = Path(__file__).resolve().parents[2]
# Of the slow test; fewer for a look in between.
KILLS = int(os.environ.get("TFROBUST_KILLS", "20"))
TRADES = tr.Trades(attack=tr.PGD(steps=1))


class Stop(Exception):
    """Stands for the end of the process."""


def callbacks_of(folder):
    """All of the room; the checkpoint comes first, which is no different."""
    return [
        tr.callbacks.RobustCheckpoint(folder, tr.PGD(steps=2), resume=True),
        tr.callbacks.StagedUnfreezing("head:2:0.02,all:3:0.01"),
        tr.callbacks.WeightAveraging(0.9),
        tr.callbacks.OverfittingGuard(every=3, images=32),
        tr.callbacks.KeepElbow(folder),
        tr.callbacks.RobustHistory(folder),
        tr.callbacks.TimeBudget(minutes=60),
    ]


def stopping(library, at):
    class Stopping(library.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if (self.epoch, batch) == at:
                raise Stop

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch = epoch

    return Stopping()


@IN_KERAS_3
def test_all_callbacks_go_on_where_they_were(library, tmp_path):
    x, y = data()
    given = {"batch_size": 16, "epochs": 9, "shuffle": False, "validation_data": (x, y),
             "verbose": 0}  # fmt: skip
    models, kept = [small(library, tr.Fast(), tr.Linf(0.05)) for _ in range(3)], []
    whole = callbacks_of(tmp_path / "whole")
    models[0].fit(x, y, callbacks=whole, **given)
    with pytest.raises(Stop):
        models[1].fit(x, y, callbacks=[*callbacks_of(tmp_path / "killed"),
                                       stopping(library, (3, 2))], **given)  # fmt: skip
    resumed = callbacks_of(tmp_path / "killed")
    history = models[2].fit(x, y, callbacks=resumed, **given)
    assert history.epoch == [3, 4]
    assert_same(models[0].base_model, models[2].base_model)
    kept = [tr.load_any(folder / name) for name in ("best.keras", "elbow.keras")
            for folder in (tmp_path / "whole", tmp_path / "killed")]  # fmt: skip
    assert_same(*kept[:2])
    assert_same(*kept[2:])
    for one, other in zip(whole, resumed, strict=True):
        mine, theirs = (
            {k: v for k, v in c.state().items() if k != "elapsed"} for c in (one, other)
        )
        untimed = [json.dumps([{k: v for k, v in row.items() if k not in ("seconds", "elapsed")}
                               for row in state.get("rows", [state])])
                   for state in (mine, theirs)]  # fmt: skip
        assert untimed[0] == untimed[1]
    assert len((tmp_path / "killed" / "history.csv").read_text().splitlines()) == 6
    assert (tmp_path / "killed" / "curves.png").stat().st_size > 10_000
    assert [row["stage"] for row in resumed[5].rows] == [1, 1, 2, 2, 2]
    # A `fit` that is over has nothing left to do.
    again = small(library, tr.Fast(), tr.Linf(0.05))
    assert again.fit(x, y, callbacks=callbacks_of(tmp_path / "killed"), **given).epoch == []
    assert_same(models[0].base_model, again.base_model)


def test_a_file_of_another_model_or_a_damaged_one_is_refused(library, tmp_path):
    x, y = data(16)
    keep = tr.callbacks.RobustCheckpoint(tmp_path, tr.PGD(steps=1), resume=True)
    small(library).fit(x, y, validation_data=(x, y), verbose=0, callbacks=[keep])
    other = small(library, optimizer=library.optimizers.SGD(0.1))
    with pytest.raises(tr.TFRobustError):
        other.fit(x, y, validation_data=(x, y), verbose=0, callbacks=[keep])
    whole = (tmp_path / "resume.npz").read_bytes()
    (tmp_path / "resume.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(tr.TFRobustError):
        small(library).fit(x, y, validation_data=(x, y), verbose=0, callbacks=[keep])


@IN_KERAS_3
def test_backup_and_restore_of_keras_resumes_bit_equal(library, tmp_path):
    x, y = data()
    given = {"batch_size": 16, "epochs": 4, "shuffle": False, "verbose": 0}
    whole, killed, resumed = (small(library, TRADES, tr.L2(0.3)) for _ in range(3))
    whole.fit(x, y, **given)
    with pytest.raises(Stop):
        killed.fit(x, y, callbacks=[library.callbacks.BackupAndRestore(str(tmp_path)),
                                    stopping(library, (2, 1))], **given)  # fmt: skip
    history = resumed.fit(x, y, callbacks=[library.callbacks.BackupAndRestore(str(tmp_path))],
                          **given)  # fmt: skip
    assert history.epoch == [2, 3]
    assert_same(whole.base_model, resumed.base_model)


SCRIPT = """
import sys
from pathlib import Path
import numpy as np
import tfrobust as tr
from tfrobust.runtime import keras as library, tf
tf.config.experimental.enable_op_determinism()
name, folder, epochs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
if name == "keras":
    import keras as library
else:
    library.backend.experimental.enable_tf_random_generator()
library.utils.set_random_seed(0)
rng = np.random.default_rng(0)
y = np.arange(64) % 3
x = (0.3 * np.eye(3)[y][:, None, None] + rng.uniform(0.2, 0.6, (64, 8, 8, 3))).astype("float32")
image = z = library.Input((8, 8, 3))
z = library.layers.Conv2D(6, 3, strides=2)(z)
z = library.layers.ReLU()(library.layers.BatchNormalization()(z))
z = library.layers.Dropout(0.2)(library.layers.Flatten()(z))
model = library.Model(image, library.layers.Dense(3)(z))
robust = tr.robust(model, tr.Trades(attack=tr.PGD(steps=2)), tr.Linf(0.05))
robust.compile(library.optimizers.Adam(0.01))
keep = tr.callbacks.RobustCheckpoint(folder, tr.PGD(steps=2), resume=True)
averages = tr.callbacks.WeightAveraging(0.9)
stages = tr.callbacks.StagedUnfreezing(f"head:2:0.02,all:{epochs - 2}:0.01")
class Told(library.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        print("epoch", epoch, flush=True)
robust.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, validation_data=(x, y), verbose=0,
           callbacks=[keep, stages, averages, Told()])
np.savez(folder / "end.npz", *model.get_weights())
"""


def script(name, folder, epochs):
    return subprocess.Popen([sys.executable, "-c", SCRIPT, name, str(folder), str(epochs)],
                            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True)  # fmt: skip


def finished(process, told):
    """Waits for its end; `told` is given the moments in which its epochs began."""
    for line in process.stdout:
        if line.startswith("epoch"):
            told.append(time.monotonic())
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors[-2000:]


def ends(folder):
    with np.load(folder / "end.npz") as file:
        return [file[name] for name in file.files]


def struck_after(process, seconds):
    """Ends it by signal 9 so long after its first epoch began; whether it was still running."""
    while process.poll() is None and "epoch" not in process.stdout.readline():
        pass
    time.sleep(seconds)
    running = process.poll() is None
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors[-2000:]
    return running


def check_kills(name, folder, epochs, kills, seed):
    """So many kills at random moments, and each training that ends compared with the whole."""
    finished(script(name, folder / "whole", epochs), told := [])
    whole, rng, struck, home = ends(folder / "whole"), np.random.default_rng(seed), 0, 0
    takes = told[-1] - told[0]
    while struck < kills:
        killed = struck_after(script(name, folder / f"{home}", epochs), rng.uniform(0, takes / 2))
        struck += killed
        if killed and struck < kills:
            continue
        if killed:
            finished(script(name, folder / f"{home}", epochs), [])
        for one, other in zip(whole, ends(folder / f"{home}"), strict=True):
            np.testing.assert_array_equal(one, other)
        home += 1
    print(f"{name}: {struck} kills of {home} trainings, all equal", flush=True)


# Without a process of its own: `test_all_callbacks_go_on_where_they_were`, above.
@pytest.mark.slow
def test_killed_by_signal_9_it_goes_on_to_the_same_weights(tmp_path):
    check_kills("tf_keras", tmp_path, 6, 1, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("name", ["tf_keras", "keras"])
def test_killed_at_random_moments_it_goes_on_each_time(name, tmp_path):
    check_kills(name, tmp_path, 30, KILLS, seed=1)
