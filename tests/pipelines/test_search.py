"""`pipelines.search` as a stranger uses it."""

from __future__ import annotations

import csv

import numpy as np
import optuna
import pytest
import yaml

from pipelines import search, train
from tfrobust.cli.plans import make_plan
from tfrobust.cli.search import SPACE_HELP, section_of
from tfrobust.jobs.searching import make_search
from tfrobust.search.results import read_table
from tfrobust.search.storage import storage_of

TINY = [
    "--recipe", "digits_standard", "--backbone", "simplenet", "--limit-train", "60",
    "--batch-size", "30", "--epochs", "2", "--select-limit", "20", "--select-steps", "2",
]  # fmt: skip


@pytest.mark.slow
def test_a_trial_is_what_an_independent_evaluation_says(tmp_path, capfd):
    """The one real training here; in a process of its own, as is the default."""
    from tfrobust.run import RunFolder

    rng = np.random.default_rng(0)
    x, y = rng.random((30, 32, 32, 3), np.float32), (np.arange(30) % 10).astype(np.int32)
    np.savez(tmp_path / "set.npz", x=x, y=y)
    folder = tmp_path / "search"
    more = ["--perturbed-train", str(tmp_path / "set.npz"), "--objective", "perturbed-train"]
    assert (
        search.main([*TINY, "--space", "learning_rate=0.003", *more, "--output", str(folder)]) == 0
    )
    out = capfd.readouterr().out
    (row,) = read_table(folder / "trials.csv")
    assert row.state == "complete" and row.point == {"learning_rate": 0.003}
    assert f"perturbed train {row.metrics['perturbed_train']:.3f}" in out

    run = RunFolder(folder / "trials" / row.run)
    check_metrics(row, run, x, y)
    check_leftovers(row, run, folder)

    # --output alone goes on with the search, which is complete.
    assert search.main(["--output", str(folder)]) == 0
    assert "1 complete" in capfd.readouterr().out
    assert search.main([*TINY, "--space", "batch_size=31", "--output", str(folder)]) == 2
    assert "has other settings" in capfd.readouterr().err


def check_metrics(row, run, x, y):
    """What the table says is what the kept model does on 'select' and on the given set."""
    from tfrobust.jobs.images import load_splits
    from tfrobust.runtime import keras
    from tfrobust.search.objective import robust_accuracy

    config = run.read_config()
    model = keras.models.load_model(run.best_model, compile=False)
    select = load_splits(config.data, config.seed).select

    def accuracy(images, labels):
        return np.mean(np.argmax(model(images, training=False), axis=1) == labels)

    assert row.metrics["clean"] == pytest.approx(
        accuracy(select.images / np.float32(255), select.labels)
    )
    assert row.metrics["perturbed_train"] == pytest.approx(accuracy(x, y))
    # Taken from the history of the epoch that was kept; measured here on what was kept.
    assert row.metrics["robust"] == pytest.approx(robust_accuracy(model, select, config), abs=1e-6)


def check_leftovers(row, run, folder):
    """The history, what Optuna was told, the best settings, and nothing else of a trial."""
    # Same images, ball, steps, seed and batches as after the epoch that was kept.
    history = list(csv.DictReader(run.history.open()))
    assert row.metrics["best_epoch"] == int(history[row.metrics["best_epoch"] - 1]["epoch"])
    kept = float(history[row.metrics["best_epoch"] - 1]["select_pgd"])
    assert row.metrics["robust"] == pytest.approx(kept, abs=1e-6)

    # Optuna was told of every epoch, which is what it prunes by.
    (trial,) = optuna.load_study(study_name="search", storage=storage_of(folder, None)).trials
    told = {int(line["epoch"]): float(line["select_pgd"]) for line in history}
    assert trial.intermediate_values == pytest.approx(told, abs=1e-6) and len(told) == 2

    # The best settings train the same network again.
    args = train.make_parser().parse_args(["--recipe", str(folder / "best.yaml")])
    assert make_plan(args).config == run.read_config()
    # Nothing but the kept model is left of the checkpoints; the trial's output is in its log.
    assert [path.name for path in run.checkpoints.iterdir()] == ["best.keras"]
    assert "epoch   2" in (run.path / "log.txt").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--space is missing"),
        (["--space", "batchsize=1"], "Did you mean 'batch_size'"),
        (["--space", "batch_size=0,1"], "expected at least 1"),
        (["--space", "steps=1,2", "--objective", "perturbed-train"], "needs --perturbed-train"),
        (["--space", "batch_size=1,2", "--perturbed-train", "no.npz"], "found no file no.npz"),
        (["--space", "batch_size=1,2", "--sampler", "tpe", "--refine", "1"], "--sampler grid"),
        (["--space", "batch_size=1,2", "--trials", "0"], "trials: expected a whole number from 1"),
        (["--space", "batch_size=1,2", "--trials", "9"], "--trials is for --sampler random"),
        (["--space", "batch_size=1,2", "--sampler", "best"], "invalid choice: 'best'"),
        (["--space", "batch_size=1,2", "--storage", "nonsense"], "expected an address such as"),
        (["--space", "learning_rate=1,2", "--recipe", "tiny_imagenet"], "recipe of one stage"),
        (["--space", "weights=none,no.h5"], "found no no.h5"),
        (["--space", "batch_size=1,2", "--prune", "--objective", "perturbed-train",
          "--perturbed-train", __file__], "--prune compares trials epoch by epoch"),
    ],
)  # fmt: skip
def test_wrong_use_is_exit_code_2_in_one_sentence(args, message, tmp_path, capsys):
    try:
        code = search.main([*args, "--output", str(tmp_path / "search")])
    except SystemExit as stop:
        code = stop.code
    err = capsys.readouterr().err
    assert code == 2 and message in err and "Traceback" not in err
    assert not (tmp_path / "search" / "trials").exists()


def test_a_recipe_holds_the_search_and_flags_override_it(tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    section = {"space": {"batch_size": [8, 16], "eps": "0.01..0.1:log"}, "sampler": "random",
               "trials": 7}  # fmt: skip
    recipe.write_text(yaml.safe_dump({"threat": {"eps": 0.2}, "search": section}))

    def made(*more):
        args = search.make_parser().parse_args(
            ["--recipe", str(recipe), "--output", str(tmp_path / "out"), *more]
        )
        found, _ = make_search(section_of(args), make_plan(args).config)
        return found

    plain = made()
    assert (plain.sampler, plain.trials, plain.objective) == ("random", 7, "clean")
    assert [f.name for f in plain.space] == ["batch_size", "eps"] and plain.config.threat.eps == 0.2
    changed = made("--trials", "3", "--objective", "robust", "--space", "steps=1,2", "--eps", "0.3")
    assert (changed.trials, changed.objective, changed.config.threat.eps) == (3, "robust", 0.3)
    assert [f.name for f in changed.space] == ["steps"]
    # The trainer leaves the section alone.
    args = train.make_parser().parse_args(["--recipe", str(recipe)])
    assert make_plan(args).config.threat.eps == 0.2
    recipe.write_text(yaml.safe_dump({"search": {"spaces": {}}}))
    assert search.main(["--recipe", str(recipe), "--output", str(tmp_path / "out")]) == 2
    assert "search: expected some of space, sampler" in capsys.readouterr().err


def test_the_names_in_the_help_are_those_of_the_library():
    from tfrobust.search.space import NAMED

    for name in NAMED:
        assert name in SPACE_HELP
