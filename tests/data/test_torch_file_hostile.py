"""Data set files that are hostile, mutated or damaged: nothing in them ever runs."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch_pickles import Evil, Storage, TaskDataset, grey, load, save, tensor, torch_pickle, two

from tfrobust.data.pickle_tree import Record, parse
from tfrobust.errors import TFRobustError


@pytest.mark.parametrize(
    ("key", "size", "steps", "first"),
    [
        ("../../byteorder", (2, 2), (2, 1), 0),
        ("9", (2, 2), (2, 1), 0),
        (0, (2, 2), (2, 1), 0),
        ("0", (2, 2), (2, 1), 1),  # would read one number after the end
        ("0", (2, 2), (2, -1), 0),
        ("0", (9999, 9999), (0, 0), 0),  # a small storage, a huge view
        ("0", (5, 2, 2), (0, 2, 1), 0),  # repeated more often than an image has channels
        ("0", (2,), (2, 1), 0),
    ],
)
def test_a_tensor_never_leaves_its_storage(tmp_path, fake_torch, key, size, steps, first):
    bad = tensor(Storage(fake_torch.ByteStorage, key, 4), size, steps, first)
    data = torch_pickle(TaskDataset([bad, grey(1)], [0, 1]))
    with pytest.raises(TFRobustError, match="set.pt: image 0"):
        load(save(tmp_path, data, **{"0": b"abcd"}))


MARK = "EVIL-RAN"
HOSTILE = {
    "posix.system": Evil(os.system, f"touch {MARK}"),
    "eval": Evil(eval, f"open('{MARK}', 'w')"),
    "exec": Evil(exec, f"open('{MARK}', 'w')"),
    "getattr": Evil(getattr, "", "join"),
    "open": Evil(open, MARK, "w"),
    "__import__": Evil(__import__, "antigravity"),
    "functools.partial": Evil(functools.partial, os.system, f"touch {MARK}"),
    "copy_?reg._reconstructor": Evil(copyreg._reconstructor, TaskDataset, object, None),
    "numpy.load": Evil(np.load, MARK),
    "PIL.Image.open": Evil(Image.open, MARK),
    "TaskDataset": Evil(TaskDataset, [], []),
}


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("place", ["top", "image", "label", "others", "state"])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_by_name(tmp_path, monkeypatch, name, place, protocol):
    monkeypatch.chdir(tmp_path)
    evil = HOSTILE[name]
    image = grey(1)
    image.info["x"] = evil
    content = {
        "top": evil,
        "image": TaskDataset([evil, grey(1)], [0, 1]),
        "label": TaskDataset([grey(1), grey(1)], [evil, 1]),
        "others": two(transform={"deep": [(evil,)]}),
        "state": TaskDataset([image, grey(2)], [0, 1]),
    }[place]
    # Protocol 0 makes every object with copyreg's help, which is refused first.
    expected = name if protocol or place == "top" else r"copy_?reg\._reconstructor"
    with pytest.raises(TFRobustError, match=rf"set.pt is rejected because .*{expected}"):
        load(save(tmp_path, content, protocol), skip_broken=True)
    assert not Path(MARK).exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cos\nsystem\n.", "os.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "os.system"),
        (b"\x80\x04]]\x93.", "a name that is not a string"),
        (b"(Vid\nios\nsystem\n.", "opcode INST"),
        (b"(cx\ny\no.", "opcode OBJ"),
        (b"\x82\x01.", "opcode EXT1"),
        (b"Pabc\n.", "opcode PERSID"),
        (b"cx\ny\n)}\x92.", "opcode NEWOBJ_EX"),
        (b"cx\ny\nK\x01\x85\x81.", "x.y created with arguments"),
        (b"cx\ny\n)R.", "a call of x.y"),
        # Protocol 2 writes b"" as bytes(); the bytes of this number would be a terabyte.
        (
            b"}(X\x04\x00\x00\x00imgsc__builtin__\nbytes\nI1099511627776\n\x85Ru.",
            "found a __builtin__.bytes",
        ),
        (b"cx\ny\n)\x81)R.", "a call of something that is not a name"),
        (b"cx\ny\n}b.", "attributes set on a Global"),
        (b"cx\ny\n)\x81]a.", "values added to a Record"),
        (b"cx\ny\n)\x81K\x01K\x01s.", "items set on a Record"),
        (b"})K\x01s.", "a tuple as a key"),
        (b"\x80\x02K\x01", "broken pickle"),
        (b"\x80\x02.", "broken pickle"),
        (b"h\x05.", "broken pickle"),
        (b"", "broken pickle"),
        # A string that claims 2**62 bytes: nothing of that size is ever asked for.
        (b"\x8d" + struct.pack("<Q", 1 << 62) + b"x.", "broken pickle"),
    ],
)
def test_hand_made_pickles(tmp_path, content, message):
    with pytest.raises(TFRobustError, match=message):
        load(save(tmp_path, content))


def test_bombs_cost_nothing():
    # Two hundred pairs, each of the one before, twice: 2**200 leaves if anything walked them.
    pairs = b")" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(200))
    assert len(parse(pairs + b".", ())) == 2
    with pytest.raises(ValueError, match="a tuple as a key"):
        parse(b"}" + pairs + b"K\x01s.", ())
    # The largest number that a memo can have: a list of that length would be 32 GB.
    assert parse(b"K\x07r\xff\xff\xff\xff.", ()) == 7


def test_a_name_is_only_a_name():
    node = parse(pickle.dumps(two(), 2), ("PIL.Image.Image", "_codecs.encode"))
    assert isinstance(node, Record) and node.type.name == "TaskDataset"


PICKLES = [
    pickle.dumps(two(ids=[1, 2]), 2),
    pickle.dumps(two(extra=HOSTILE["eval"]), 4),
    pickle.dumps(TaskDataset(np.zeros((2, 3, 3), np.uint8), np.array([0, 1])), 2),
]


@settings(
    max_examples=300,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    which=st.integers(0, 2),
    changes=st.lists(
        st.tuples(st.floats(0, 0.999), st.binary(max_size=3), st.integers(0, 3)), max_size=5
    ),
)
def test_a_mutated_file_is_read_or_told(tmp_path, monkeypatch, which, changes):
    """Bytes replaced, put in and taken out, anywhere in the pickle."""
    monkeypatch.chdir(tmp_path)
    content = PICKLES[which]
    for place, new, dropped in changes:
        at = int(place * len(content))
        content = content[:at] + new + content[at + dropped :]
    with contextlib.suppress(TFRobustError):
        load(save(tmp_path, content), image_size=3)
    assert not Path(MARK).exists()


@settings(
    max_examples=200,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=5),
    keep=st.floats(0.5, 2),
)
def test_a_damaged_zip_is_read_or_told(tmp_path, changes, keep):
    path = save(tmp_path, two(ids=[1, 2]))
    content = bytearray(path.read_bytes())
    for place, value in changes:
        content[int(place * len(content))] = value
    path.write_bytes(content[: int(keep * len(content))])
    with contextlib.suppress(TFRobustError):
        assert len(load(path, image_size=3).train) == 2
