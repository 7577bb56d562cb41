"""The five perturbed sets, as a user builds, resumes, evaluates and trains with them."""

from __future__ import annotations

import hashlib
import json
import shutil

import numpy as np
import pytest

from pipelines import evaluate, perturb, train
from tfrobust.config import DataConfig
from tfrobust.data import load_all
from tfrobust.jobs.images import load_splits
from tfrobust.runtime import keras
from tfrobust.sets import manifest as set_files

SIDE = 8
SIZES = {"augmented_train": 12, "perturbed_train": 6, "perturbed_validation": 5, "hold_out": 4,
         "pixel": 3}  # fmt: skip
EPS = 8 / 255


def make_images(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Red against blue, by 2, 10 or 40 levels; green is random, and means nothing.

    eps of 8/255 moves an image by 16 levels: it turns the first two kinds. One recoloured
    pixel of 64 moves it by no more than 4: it turns the first kind. The tenth part has
    the wrong label.
    """
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    half = np.array([1, 5, 20])[np.arange(count) // 2 % 3] * (2 * labels - 1)
    images = np.full((count, SIDE, SIDE, 3), 120) + half[:, None, None, None] * [1, 0, -1]
    images[..., 1] = random.integers(0, 256, (count, SIDE, SIDE))
    labels[9::10] ^= 1
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(model, images): the model tells red from blue; four test images are in train too."""
    folder = tmp_path_factory.mktemp("perturb")
    image = keras.Input((SIDE, SIDE, 3))
    logits = keras.layers.Dense(2)
    model = keras.Model(image, logits(keras.layers.Flatten()(image)))
    weights = np.tile([[-1, 1], [0, 0], [1, -1]], (SIDE * SIDE, 1)) / SIDE**2 * 20
    logits.set_weights([weights, np.zeros(2)])
    model.save(folder / "model.keras")
    x_train, y_train = make_images(0, 120)
    x_test, y_test = make_images(1, 90)
    x_train[[0, 1, 30, 31]] = x_test[[0, 1, 6, 7]]
    np.savez(folder / "images.npz", x_train=x_train, y_train=y_train, x_test=x_test,
             y_test=y_test, classes=np.array(["blue", "red"]))  # fmt: skip
    return folder / "model.keras", folder / "images.npz"


def command(files, output, *more: str) -> list[str]:
    model, images = map(str, files)
    sizes = [part for name, n in SIZES.items() for part in (f"--{name.replace('_', '-')}", str(n))]
    return [
        model, "--data", images, "--output", str(output), "--attack", "pgd:steps=5:restarts=1",
        "--pixel-attack", "pixel:step_size=0.5", "--batch-size", "16", *sizes, *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def built(files, tmp_path_factory):
    output = tmp_path_factory.mktemp("sets")
    assert perturb.main(command(files, output)) == 0
    return output


def manifest(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def digest(image: np.ndarray) -> str:
    return hashlib.sha256(image.tobytes()).hexdigest()


def test_each_set_holds_verified_adversarial_images_of_its_split(files, built):
    raw = np.load(files[1])
    model = keras.models.load_model(files[0], compile=False)
    for name, size in SIZES.items():
        data = load_all(str(built / f"{name}.npz"))
        rows = [row for row in manifest(built) if row["set"] == name]
        split = "train" if name.endswith("_train") else "test"
        assert len(data) == len(rows) == size
        assert data.images.dtype == np.float32 and data.label_names == ("blue", "red")
        places = {digest(image): i for i, image in enumerate(raw[f"x_{split}"])}
        index = [places[row["source_sha256"]] for row in rows]
        clean = raw[f"x_{split}"][index].astype(np.float32) / 255
        labels = raw[f"y_{split}"][index]
        np.testing.assert_array_equal(data.labels, labels)
        assert (model(clean).numpy().argmax(1) == labels).all()
        assert (model(data.images).numpy().argmax(1) != labels).all()
        change = np.abs(data.images - clean)
        if name == "pixel":
            assert ((change > 0).any(axis=3).sum(axis=(1, 2)) == 1).all()
        else:
            assert change.max() <= EPS + 1e-6
            # A change of less than one level is kept: nothing is rounded.
            assert not np.allclose(data.images * 255, np.rint(data.images * 255), atol=1e-3)


def test_no_two_sets_share_an_image_and_no_test_image_is_in_a_train_set(files, built):
    raw = np.load(files[1])
    rows = manifest(built)
    digests = [row["source_sha256"] for row in rows]
    assert len(set(digests)) == len(digests) == sum(SIZES.values())
    in_test = {digest(image) for image in raw["x_test"]}
    for row in rows:
        assert (row["source_sha256"] in in_test) == (not row["set"].endswith("_train"))
    left_out = json.loads((built / "sets.json").read_text())["sets"]["augmented_train"]["left_out"]
    # The four may have been cut off into 'select' by the split: there they do no harm.
    splits = load_splits(DataConfig(dataset=str(files[1])), 42)
    copies = sum(digest(image) in in_test for image in splits.train.images)
    assert copies and left_out == {"in_test": copies, "in_select": 0, "repeated": 0}


def test_the_manifest_says_of_each_image_how_it_was_made(files, built):
    rows = manifest(built)
    for name in SIZES:
        own = [row for row in rows if row["set"] == name]
        assert [row["index"] for row in own] == list(range(SIZES[name]))
        for row in own:
            assert row["model"] == str(files[0]) and row["seed"] == 42
            assert row["model_sha256"] == hashlib.sha256(files[0].read_bytes()).hexdigest()
            pixel = name == "pixel"
            assert row["attack"] == ("pixel" if pixel else "pgd")
            assert row["parameters"]["steps"] == (20 if pixel else 5)
            assert (row["norm"], row["eps"]) == (("l0", 1.0) if pixel else ("linf", EPS))
            assert row["linf"] <= (1 if pixel else EPS + 1e-6) and row["l0"] >= 1
            assert row["prediction"] == row["label"] != row["adversarial_prediction"]
            assert 0.5 <= row["confidence"] <= 1 and row["source"].startswith("x_t")


def test_too_few_images_are_used_up_and_told(files, tmp_path, capsys):
    """By the levels: of 90 test images 81 have their label, two thirds of them can be turned."""
    sizes = ["--augmented-train", "0", "--perturbed-train", "0", "--hold-out", "0",
             "--perturbed-validation", "500", "--pixel", "0"]  # fmt: skip
    assert perturb.main([*command(files, tmp_path), *sizes]) == 0
    (entry,) = json.loads((tmp_path / "sets.json").read_text())["sets"].values()
    raw = np.load(files[1])
    level = np.abs(raw["x_test"][:, 0, 0, 0].astype(int) - 120)
    right = np.arange(90) % 10 != 9
    assert (entry["asked"], entry["misclassified"]) == (500, 9)
    assert entry["images"] == (right & (level < 8)).sum() < entry["attacked"] == right.sum() == 81
    assert "of 500: test has no more images" in capsys.readouterr().out


@pytest.mark.parametrize(
    "moment", [pytest.param("write_text", marks=pytest.mark.slow), "write_json"]
)
def test_killed_between_two_files_and_resumed_it_ends_with_the_same_sets(
    files, built, tmp_path, monkeypatch, moment, capsys
):
    """The second set's arrays are there, but not its manifest, or not its entry."""
    write, calls = getattr(set_files, moment), []

    def killed(*args):
        calls.append(args)
        if len(calls) == 2:
            raise KeyboardInterrupt
        write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(set_files, moment, killed)
        assert perturb.main(command(files, tmp_path)) == 1
    assert list(json.loads((tmp_path / "sets.json").read_text())["sets"]) == ["augmented_train"]
    before = (tmp_path / "augmented_train.npz").stat().st_mtime_ns
    capsys.readouterr()
    assert perturb.main(command(files, tmp_path, "--resume")) == 0
    assert capsys.readouterr().out.count("(kept)") == 1
    assert (tmp_path / "augmented_train.npz").stat().st_mtime_ns == before
    assert manifest(tmp_path) == manifest(built)
    for name in SIZES:
        one, other = (np.load(folder / f"{name}.npz") for folder in (tmp_path, built))
        for key in ("x", "y", "classes", "source_sha256"):
            np.testing.assert_array_equal(one[key], other[key])


def test_a_damaged_set_is_built_anew(files, built, tmp_path, capsys):
    shutil.copytree(built, tmp_path, dirs_exist_ok=True)
    whole = (tmp_path / "hold_out.npz").read_bytes()
    (tmp_path / "hold_out.npz").write_bytes(whole[:-100])
    capsys.readouterr()
    assert perturb.main(command(files, tmp_path, "--resume")) == 0
    assert capsys.readouterr().out.count("(kept)") == 4
    found = np.load(tmp_path / "hold_out.npz")["x"]
    np.testing.assert_array_equal(found, np.load(built / "hold_out.npz")["x"])
    assert len(manifest(tmp_path)) == sum(SIZES.values())


@pytest.mark.parametrize("more, message", [
    ([], "add --resume"),
    (["--resume", "--eps", "4/255"], "found others"),
    (["--resume", "--seed", "7"], "found others"),
    (["--resume", "--hold-out", "0"], "found others"),
])  # fmt: skip
def test_a_folder_with_other_sets_is_left_alone(files, built, capsys, more, message):
    before = {path: path.read_bytes() for path in built.iterdir()}
    assert perturb.main(command(files, built, *more)) == 2
    assert message in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in built.iterdir()}


@pytest.mark.parametrize("more, message", [
    (["--pixel", "-1"], "sizes of 0 or more"),
    (["--attack", "nonsense"], "Unknown attack 'nonsense'"),
    (["--attack", "autoattack"], "has its published|Expected one attack"),
    (["--attack", "pgd:step=3"], "unknown setting 'step'"),
])  # fmt: skip
def test_wrong_use_is_told_in_a_sentence_with_exit_code_2(files, tmp_path, capsys, more, message):
    assert perturb.main(command(files, tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert any(part in error for part in message.split("|")) and "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_an_attack_that_turns_nothing_is_a_failure(files, tmp_path, capsys):
    one = [flag for name in SIZES if name != "hold_out"
           for flag in (f"--{name.replace('_', '-')}", "0")]  # fmt: skip
    assert perturb.main(command(files, tmp_path, "--eps", "0", *one)) == 1
    assert "No image was turned" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.npz"))
    # It leaves nothing in the way of another try.
    assert perturb.main(command(files, tmp_path, *one)) == 0
    assert len(manifest(tmp_path)) == SIZES["hold_out"]


def test_a_set_is_evaluated_on_like_any_images(files, built, tmp_path):
    arguments = [str(files[0]), "--data", str(built / "hold_out.npz"), "--attack", "fgsm"]
    assert evaluate.main([*arguments, "--output", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["num_examples"] == SIZES["hold_out"] and report["clean_accuracy"] == 0


def test_training_splits_hold_the_set_and_measuring_does_not_need_it(files, built, tmp_path):
    plain = DataConfig(dataset=str(files[1]))
    path = built / "augmented_train.npz"
    config = DataConfig(dataset=str(files[1]), augment_with=str(path))
    clean, both = load_splits(plain, 42), load_splits(config, 42)
    assert len(both.train) == len(clean.train) + SIZES["augmented_train"]
    np.testing.assert_array_equal(both.train.images[len(clean.train) :], np.load(path)["x"])
    assert len(both.select) == len(clean.select) and len(both.test) == len(clean.test)
    gone = DataConfig(dataset=str(files[1]), augment_with=str(tmp_path / "gone.npz"))
    assert len(load_splits(gone, 42, augmented=False).train) == len(clean.train)


def test_training_on_what_is_measured_on_is_refused(files, built, tmp_path, capsys):
    code = train.main(["--data", str(files[1]), "--augment-with", str(built / "hold_out.npz"),
                       "--output", str(tmp_path / "run"), "--seed", "42"])  # fmt: skip
    assert code == 1
    error = capsys.readouterr().err
    source = next(row["source"] for row in manifest(built) if row["set"] == "hold_out")
    assert f"x[0] is made from the test image {source}" in error and "Traceback" not in error
    assert not (tmp_path / "run" / "checkpoints" / "state.json").exists()
