"""What means harm: refused with a sentence, and the server goes on."""

from __future__ import annotations

import base64

import numpy as np
import pytest
from mutator import mutated
from servers import BLUE, RED, REST, SIDE, encoded, png_that_claims, rest, running

LARGE = {"b64": base64.b64encode(png_that_claims(4000, 4000)).decode()}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/predict", b"", 400, "found nothing"),
        ("/predict", b"no image at all", 400, "cannot be read"),
        ("/predict", RED[:60], 400, "cannot be read"),
        ("/predict", BLUE[: len(BLUE) // 2], 400, "cannot be read"),
        ("/predict", png_that_claims(20_000, 20_000), 400, "cannot be read"),
        ("/predict", b"\0" * (2**20 + 1), 413, "at most 1,048,576 bytes"),
        ("/predict", png_that_claims(4000, 4001), 400, "16,000,000"),
        # Of the model's width after the first pass: 16 times as many.
        ("/predict", png_that_claims(1, 1_000_001), 400, "16,000,000"),
        ("/explain", encoded((1, 2, 3), "GIF"), 400, "not an image of JPEG or PNG"),
        ("/predict", encoded((1, 2, 3), "TIFF"), 400, "not an image of JPEG or PNG"),
        ("/predict", encoded((1, 2, 3), "BMP"), 400, "not an image of JPEG or PNG"),
        ("/predict", encoded((1, 2, 3), "WEBP"), 400, "not an image of JPEG or PNG"),
        ("/attack?eps=-1", RED, 400, "eps: expected more than 0"),
        ("/attack?eps=nan", RED, 400, "eps: expected"),
        ("/attack?eps=1/0", RED, 400, "eps: expected a number"),
        (REST, b"[1", 400, "Expected JSON"),
        (REST, b"[" * 5000, 400, "Expected JSON"),
        (REST, b'{"instances": []}', 400, "a list of 1 to 128"),
        (REST, b'{"instances": [{"b64": "%%"}]}', 400, "base64"),
        (REST, b'{"instances": [[1, 2]]}', 400, r"[16, 16, 3]"),
        (REST, b'{"instances": [{"a": {}}]}', 400, "found []"),
        (REST, rest({"b64": "\u00e9"}), 400, "b64: expected base64"),
        (REST, rest(10**400), 400, "neither base64 nor numbers"),
        (REST, rest([[[1e300] * 3] * SIDE] * SIDE), 400, "in [0, 1]"),
        (REST, rest(*[0] * 129), 413, "a list of 1 to 128 images, found 129"),
        (REST, b'{"instances": [' + b"[]," * 200_000 + b"0]}", 413, "more values than these have"),
        (REST, rest(*[LARGE] * 5), 413, "at most 64,000,000 pixels in all images"),
        (REST, rest(LARGE, signature_name="other"), 400, '"signature_name": expected'),
        (REST, rest(LARGE, signature_name=["a"]), 400, '"signature_name": expected'),
        (REST, rest(LARGE, signature_name="serving_default"), 400, "instances of floats"),
        (REST, b'"instances"', 400, "Expected JSON"),
        ("/v1/models/others:predict", rest(LARGE), 404, "version 1 of colours"),
        ("/v1/models/colours/versions/2:predict", rest(LARGE), 404, "version 1 of colours"),
    ],
    ids=range(33),
)  # fmt: skip
def test_what_is_wrong_is_told_and_the_server_goes_on(hostile, path, body, status, message) -> None:
    found = hostile.ask(path, body)
    assert found[0] == status and message in found[1]["error"], found
    assert hostile.ask("/predict", RED)[0] == 200


@pytest.fixture(scope="module")
def hostile(exported):
    with running(exported, body=2**20) as found:
        yield found


def test_nan_and_values_out_of_range_are_told(client) -> None:
    for value in ("NaN", "7.5", "-0.1", "1e999"):
        row = ", ".join([f"[{value}, 0, 0]"] * SIDE)
        image = ", ".join([f"[{row}]"] * SIDE)
        body = f'{{"instances": [[{image}]]}}'.encode()
        status, found = client.ask(REST, body)
        assert status == 400 and "in [0, 1]" in found["error"]


def test_mutated_requests_are_answered_or_refused(hostile) -> None:
    rng = np.random.default_rng(0)
    encoded_ones = [{"b64": base64.b64encode(data).decode()} for data in (RED, BLUE)]
    seeds = (rest(*encoded_ones, signature_name="image_bytes"),
             rest({"image_bytes": encoded_ones[0]}), rest(np.ones((SIDE, SIDE, 3)).tolist()),
             rest({"images": [[[0, 0.5, 1]] * SIDE] * SIDE}, signature_name=""))  # fmt: skip
    found = [hostile.ask(REST, mutated(rng, seeds[i % len(seeds)]))[0] for i in range(300)]
    assert set(found) == {200, 400}, [i for i, status in enumerate(found) if status >= 500]
    assert hostile.ask("/predict", RED)[0] == 200
