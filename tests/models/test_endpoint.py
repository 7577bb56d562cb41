"""A model that is only an address: the same scores as its file's, and errors of one sentence."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import DEVNULL, PIPE

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1]))
from rest_server import Server

from tfrobust.attacks.gradient import PGD
from tfrobust.attacks.square import Square
from tfrobust.errors import TFRobustError, UsageError
from tfrobust.evaluation.checkpoint import Checkpoint
from tfrobust.evaluation.evaluate import evaluate
from tfrobust.export import export
from tfrobust.models.classifier import as_classifier
from tfrobust.models.endpoint import SCORE, Endpoint
from tfrobust.models.opening import load_any
from tfrobust.models.rest import Patience, as_address, is_address
from tfrobust.runtime import keras, tf
from tfrobust.threat_model import Linf

# The tests of serving start the server by a module of their own, `servers`.
SERVERS = Path(__file__).parents[1] / "serving"

BALL, SHORT = Linf(0.04), Patience(tries=2, wait=0.01, timeout=5)


WEIGHTS = np.random.default_rng(3).normal(size=(12, 3)).astype("float32")
X = np.random.default_rng(4).uniform(0.2, 0.8, (10, 2, 2, 3)).astype("float32")


def logits_of(x):
    return (np.asarray(x).reshape(len(x), -1) - 0.5) @ WEIGHTS


def softmax(z):
    powers = np.exp(z - z.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


Y = np.argmax(logits_of(X), axis=1).astype("int32")


def rows(function):
    return lambda x: {"predictions": function(x)}


@pytest.mark.parametrize(
    ("answer", "expected", "note"),
    [
        (lambda x: logits_of(x).tolist(), logits_of(X), None),
        (lambda x: [{"logits": z.tolist(), "label": 0} for z in logits_of(x)], logits_of(X), None),
        (lambda x: softmax(logits_of(x)).tolist(), np.log(softmax(logits_of(X))), "probabilities"),
        (lambda x: [{"scores": p.tolist()} for p in softmax(logits_of(x))],
         np.log(softmax(logits_of(X))), "probabilities"),
        (lambda x: np.argmax(logits_of(x), axis=1).tolist(), SCORE * np.eye(3)[Y], "labels"),
        (lambda x: [{"label": int(k)} for k in np.argmax(logits_of(x), axis=1)],
         SCORE * np.eye(3)[Y], "labels"),
    ],
)  # fmt: skip
def test_logits_probabilities_and_labels_are_logits(answer, expected, note):
    with Server(rows(answer)).running() as server:
        endpoint = Endpoint(server.address, classes=3, patience=Patience(batch=4))
        np.testing.assert_allclose(endpoint(tf.constant(X)), expected, rtol=1e-4, atol=1e-4)
        # In a graph, with a batch size that is not known, and for no image at all.
        graph = tf.function(endpoint, input_signature=[tf.TensorSpec([None, 2, 2, 3])])
        np.testing.assert_allclose(graph(X[:3]), expected[:3], rtol=1e-4, atol=1e-4)
        assert graph(X[:0]).shape == (0, 3)
        assert sorted(server.images) == [2, 3, 4, 4] and endpoint.queries == 13
        assert note is None or note in endpoint.notes[-1]
        made = as_classifier(endpoint, X)
        assert made.classes == 3 and not made.after[1:] and not made.has_gradient
        np.testing.assert_array_equal(np.argmax(made(tf.constant(X)), axis=1), Y)


def test_an_address_is_told_from_a_path():
    address = "http://host:8501/v1/models/m"
    assert is_address(address) and is_address(Path(address)) and not is_address("models/http")
    assert as_address(Path(address)) == as_address(f"{address}:predict") == address
    for wrong in ("http://host/m", "http://host:99999/v1/models/m", "http:///v1/models/m"):
        with pytest.raises(UsageError):
            as_address(wrong)
    for wrong in ({"batch": 0}, {"rate": 0.0}, {"wait": -1.0}, {"tries": 0}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            Patience(**wrong)


def test_the_score_is_that_of_the_file_to_the_image(exported_colours):
    folder, x, y = exported_colours
    attacks = {"square": Square(queries=40)}
    own = evaluate(folder / "1", (x, y), BALL, attacks, batch_size=16)
    with served_by_itself(folder) as address:
        model = load_any(f"{address}/v1/models/colours")
        assert model.batch_shape == (None, 16, 16, 3)
        served = evaluate(model, (x, y), BALL, attacks, batch_size=16)
        with pytest.raises(TFRobustError, match="not found"):
            load_any(f"{address}/v1/models/other")
        with pytest.raises(UsageError, match="gradient"):
            evaluate(model, (x, y), BALL, "pgd")
        with pytest.raises(UsageError, match="gradient"):
            PGD(steps=2).perturb(model, x, y, BALL)
    one, other = own.attacks[0], served.attacks[0]
    assert 0 < one.outcome.correct.sum() < own.clean.correct.sum()
    for field in ("predictions", "correct"):
        np.testing.assert_array_equal(getattr(one.outcome, field), getattr(other.outcome, field))
    assert one.forward_evaluations == other.forward_evaluations
    assert any("address" in note for note in served.extra["notes"])
    assert not {"zero_gradients", "never_falls_to_zero"} & {flag["name"] for flag in served.flags}


@contextlib.contextmanager
def served_by_itself(folder):
    """Our server in a process of its own: one that asks itself waits for its own threads."""
    pytest.importorskip("uvicorn", reason="serving needs the extra 'serve'")
    code = (
        f"import sys; sys.path.append({str(SERVERS)!r}); from servers import Path, running\n"
        "with running(Path(sys.argv[1])) as client: print(client.address, flush=True); input()"
    )
    command = [sys.executable, "-c", code, str(folder)]
    with subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=DEVNULL, text=True) as process:
        try:
            yield process.stdout.readline().strip()
        finally:
            process.communicate("\n", timeout=60)


@pytest.fixture
def exported_colours(tmp_path):
    """An exported model of which colour is the brightest, images near its boundaries, labels."""
    image = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(3, 1, use_bias=False, name="conv")(image)
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))
    model.get_layer("conv").set_weights([20 * np.eye(3, dtype="float32").reshape(1, 1, 3, 3)])
    rng = np.random.default_rng(0)
    x = np.clip(rng.normal(0.5, 0.05, (24, 1, 1, 3)) + rng.normal(0, 0.05, (24, 16, 16, 3)), 0, 1)
    x = x.astype("float32")
    export(model, tmp_path / "colours", ("red", "green", "blue"), check_images=x[:4])
    return tmp_path / "colours", x, np.argmax(model(x), axis=1).astype("int32")


def test_labels_alone_take_the_number_of_classes_from_the_images():
    def labels(x):
        return np.argmax(logits_of(x), axis=1).tolist()

    with Server(rows(labels)).running() as server:
        report = evaluate(server.address, (X, Y), BALL, {"square": Square(queries=3)})
        assert report.clean.correct.all() and report.classes == 3
        with pytest.raises(TFRobustError, match="classes"):
            Endpoint(server.address)(tf.constant(X))


@pytest.mark.parametrize("where", ["checks", "attack"])
def test_an_evaluation_that_meets_its_limit_goes_on_where_it_stopped(tmp_path, where):
    def work(endpoint, checkpoint):
        return evaluate(
            endpoint,
            (X, Y),
            BALL,
            {"square": Square(queries=20)},
            batch_size=2,
            checkpoint=checkpoint,
        )

    with Server(rows(lambda x: logits_of(x).tolist())).running() as server:
        whole = Endpoint(server.address)
        expected = work(whole, Checkpoint())
        path = tmp_path / "checkpoint.npz"
        in_attack = len(X) + expected.attacks[0].forward_evaluations
        limit = whole.queries - 10 if where == "checks" else in_attack - 10
        with pytest.raises(TFRobustError, match="limit") as failure:
            work(Endpoint(server.address, patience=Patience(most=limit)), Checkpoint(path, "key"))
        assert "\n" not in str(failure.value) and path.is_file()
        checkpoint, rest = Checkpoint(path, "key", resume=True), Endpoint(server.address)
        found = work(rest, checkpoint)
        assert checkpoint.resumed and rest.queries < whole.queries
    np.testing.assert_array_equal(
        found.attacks[0].outcome.predictions, expected.attacks[0].outcome.predictions
    )


def test_what_is_busy_is_asked_again_and_what_is_dead_is_told():
    busy = [(503, '{"error": "busy"}'), (429, "")]

    def answer(x):
        return busy.pop() if busy else {"predictions": logits_of(x).tolist()}

    with Server(answer).running() as server:
        endpoint = Endpoint(server.address, patience=Patience(wait=0.01, rate=1e5))
        np.testing.assert_allclose(endpoint(X), logits_of(X), rtol=1e-5, atol=1e-5)
        # Repeated tries are no further queries.
        assert server.requests == 3 and endpoint.queries == len(X)
    with pytest.raises(TFRobustError, match="no answer in 2 tries"):
        Endpoint(server.address, patience=SHORT)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}/v1/models/m"
        with pytest.raises(TFRobustError, match="no answer"):
            Endpoint(address, patience=Patience(tries=1, timeout=0.1))


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: (200, "<html>"),
        lambda x: [1, 2],
        lambda x: {"predictions": logits_of(x[:-1]).tolist()},
        lambda x: {"predictions": ["cat"] * len(x)},
        lambda x: {"predictions": [[1.0, 2.0], [1.0]] * (len(x) // 2)},
        lambda x: {"predictions": [{"a": [1.0], "b": [2.0]}] * len(x)},
        lambda x: {"predictions": [[[1.0, 2.0]]] * len(x)},
        lambda x: {"predictions": [7] * len(x)},
        lambda x: {"predictions": [None] * len(x)},
        lambda x: (400, '{"error": "no such signature"}'),
        lambda x: (500, ""),
    ],
)
def test_answers_that_are_none_are_told_in_one_sentence(answer):
    with Server(answer).running() as server:
        endpoint = Endpoint(server.address, classes=3, patience=SHORT)
        for ask in (lambda: endpoint(tf.constant(X)), lambda: as_classifier(endpoint, X)):
            with pytest.raises(TFRobustError) as failure:
                ask()
            assert server.address in str(failure.value) and "\n" not in str(failure.value)


def test_a_server_that_fails_later_is_told_as_plainly_from_inside_a_graph():
    def answer(x):
        return {"predictions": logits_of(x).tolist()} if server.requests < 9 else (400, "broken")

    with Server(answer).running() as server:
        endpoint = Endpoint(server.address, patience=SHORT)
        with pytest.raises(TFRobustError, match="400: broken") as failure:
            evaluate(endpoint, (X, Y), BALL, {"square": Square(queries=50)})
        assert "\n" not in str(failure.value)
        with pytest.raises(TFRobustError, match="400"):
            Square(queries=5).perturb(endpoint, X, Y, BALL)


def test_a_model_that_is_still_loading_is_refused():
    loading = {"model_version_status": [{"state": "LOADING"}]}
    for status in (loading, {"name": "m", "ready": False}):
        made = Server(None, status=status)
        with made.running(), pytest.raises(TFRobustError, match="not ready"):
            Endpoint(made.address, patience=SHORT)
