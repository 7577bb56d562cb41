"""What long work says of itself: how far, how long still, and nothing of short work."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest
import tqdm.autonotebook
import tqdm.std

from tfrobust.progress import Progress, clock


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def now(monkeypatch):
    time = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(tqdm.std, "time", lambda: time.seconds)
    return time


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (4800, "1 h 20 min")],
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_time_left_by_hand(now):
    stream = io.StringIO()
    progress = Progress("reading", 100, stream=stream)
    assert progress.seconds_left is None
    now.seconds += 40
    progress.update(20, "(twenty)")
    assert progress.seconds_left == 160.0
    assert stream.getvalue() == "reading: 20/100, 2 min 40 s left (twenty)\n"


def test_what_an_earlier_run_did_does_not_count_for_the_speed(now):
    progress = Progress("reading", 100, done=50, stream=io.StringIO())
    now.seconds += 10
    progress.update(60)
    assert progress.seconds_left == 40.0


def test_a_time_limit_ends_sooner(now):
    progress = Progress("training", 1000, stream=io.StringIO())
    now.seconds += 10
    progress.update(10, at_most=30.0)
    assert progress.seconds_left == 30.0
    progress.update(999, at_most=30.0)
    assert progress.seconds_left == pytest.approx(10 / 999)


def test_a_log_gets_a_line_every_30_seconds_and_short_work_none(now):
    stream = io.StringIO()
    progress = Progress("reading", 100, stream=stream)
    for step in range(61):
        now.seconds += 1
        progress.update(step + 1)
    progress.close()
    assert [line.split(",")[0] for line in stream.getvalue().splitlines()] == [
        "reading: 30/100",
        "reading: 60/100",
    ]


def test_a_terminal_is_redrawn_and_left_clean(now):
    stream = _Terminal()
    progress = Progress("reading", 4, stream=stream)
    now.seconds += 1
    progress.update(1)
    assert stream.getvalue() == ""
    now.seconds += 3
    progress.update(2)
    progress.close()
    line = f"reading |{'#' * 10:20}| 2/4, 4 s left"
    assert stream.getvalue() == f"\r{line}\r{' ' * len(line)}\r"


def test_a_notebook_that_has_widgets_gets_one(now, monkeypatch):
    class Widget(tqdm.std.tqdm):
        pass

    monkeypatch.setattr(tqdm.autonotebook, "tqdm", Widget)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(Progress("reading", 4)._bar, Widget)
    # What is to be written elsewhere is.
    stream = io.StringIO()
    progress = Progress("reading", 4, stream=stream)
    now.seconds += 40
    progress.update(2)
    assert stream.getvalue() == "reading: 2/4, 40 s left\n" and not sys.stderr.getvalue()
