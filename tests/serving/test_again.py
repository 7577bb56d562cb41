"""A request whose replica dies is asked of another one; the proxy here is written out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tfrobust.serving import again
from tfrobust.serving.again import TRIES, Again

START = {"type": "http.response.start", "status": 200, "headers": []}
WHOLE = [START, {"type": "http.response.body", "body": b"yes"}]
HALF = [START, {"type": "http.response.body", "body": b"y", "more_body": True}]
BUSY = [{**START, "status": 503}, {"type": "http.response.body", "body": b"busy"}]
BODY = [{"type": "http.request", "body": b"ab", "more_body": True},
        {"type": "http.request", "body": b"cd", "more_body": False}]  # fmt: skip
GONE = {"type": "http.disconnect"}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "_PAUSE", 0)


def asked(
    answers: Sequence[list[dict[str, Any]]], body: Sequence[dict[str, Any]] = BODY, **settings: int
) -> tuple[list[dict[str, Any]], list[bytes]]:
    """The messages that the client gets, and the bodies that the replicas saw."""
    left, seen, sent = iter(answers), list[bytes](), list[dict[str, Any]]()

    async def proxy(scope: Any, receive: Any, send: Any) -> None:
        content = b""
        while (message := await receive()).get("more_body", False):
            content += message["body"]
        seen.append(content + message.get("body", b""))
        scope["headers"].append((b"x-request-id", b"1"))
        if message["type"] != "http.disconnect":
            for message in next(left):
                await send(message)

    async def run() -> None:
        messages = iter(body)

        async def receive() -> dict[str, Any]:
            return next(messages)

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        scope = {"type": "http", "path": "/predict", "headers": []}
        application = Again(proxy, **settings)
        await application(scope, receive, send)
        assert not application._bodies.held and not scope["headers"]

    asyncio.run(run())
    return sent, seen


def test_what_is_answered_is_asked_once() -> None:
    assert asked([WHOLE]) == (WHOLE, [b"abcd"])
    assert asked([BUSY]) == (BUSY, [b"abcd"])


@pytest.mark.parametrize("lost", [[], [START], HALF])
def test_what_is_lost_is_asked_again_with_its_whole_body(lost) -> None:
    assert asked([lost, WHOLE]) == (WHOLE, [b"abcd"] * 2)
    # After that, those who find no room wait for it.
    assert asked([lost, BUSY, BUSY, BUSY, WHOLE])[0] == WHOLE


def test_what_kills_replicas_does_not_kill_all_of_them() -> None:
    sent, seen = asked([[]] * 10)
    assert len(seen) == TRIES and sent[0]["status"] == 503 and b"error" in sent[1]["body"]


def test_who_has_gone_away_is_not_asked_for_again() -> None:
    assert asked([], [BODY[0], GONE]) == ([], [b"ab"])


def test_what_is_kept_has_a_limit() -> None:
    sent, seen = asked([WHOLE], held=3)
    assert sent[0]["status"] == 503 and len(seen) == 1
    # What is larger than that alone has its turn all the same.
    assert asked([WHOLE], [{"type": "http.request", "body": b"abcd"}], held=3)[0] == WHOLE


def test_what_is_no_request_passes() -> None:
    passed: list[Any] = []

    async def proxy(*given: Any) -> None:
        passed.extend(given)

    scope = {"type": "lifespan"}
    asyncio.run(Again(proxy)(scope, passed, passed))
    assert passed[0] is scope
