"""Data set objects saved by torch: read as data, and nothing in them ever runs."""

from __future__ import annotations

import contextlib
import copyreg
import functools
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tfrobust.data.pickle_tree import Record, parse
from tfrobust.data.torch_file import read
from tfrobust.data.types import ReadOptions
from tfrobust.errors import TFRobustError


class TaskDataset:
    """As users write them; its name must never be imported by the reader."""

    def __init__(self, imgs: Any, labels: Any, **others: Any) -> None:
        self.__dict__.update(imgs=imgs, labels=labels, **others)

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("the reader made a real object")


class Evil:
    """Calls `function(*args)` when it is unpickled the usual way."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


def save(folder: Path, content: Any, protocol: int = 2, **members: bytes) -> Path:
    """A file in torch's zip format; `content` is a pickle or what is to be pickled."""
    data = content if isinstance(content, bytes) else pickle.dumps(content, protocol)
    with zipfile.ZipFile(folder / "set.pt", "w") as archive:
        archive.writestr("set/data.pkl", data)
        archive.writestr("set/byteorder", "little")
        for name, member in members.items():
            archive.writestr(f"set/data/{name}", member)
    return folder / "set.pt"


def load(location: Path, **options: object):
    return read(location, ReadOptions(**options))  # type: ignore[arg-type]


def grey(value: int) -> Image.Image:
    return Image.new("L", (3, 2), value)


def two(**others: Any) -> TaskDataset:
    return TaskDataset([grey(1), grey(2)], [0, 1], **others)


@pytest.fixture
def torch(monkeypatch):
    """Names of torch, so that tensors can be pickled as torch does without it."""
    made = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    made["torch._utils"]._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in ("ByteStorage", "LongStorage", "FloatStorage", "BFloat16Storage"):
        setattr(made["torch"], name, type(name, (), {"__module__": "torch"}))
    for name, module in made.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made["torch"]


class Storage:
    def __init__(self, kind: type, key: Any, numel: int) -> None:
        self.id = ("storage", kind, key, "cpu", numel)


class TorchPickler(pickle.Pickler):
    def persistent_id(self, one: Any) -> Any:
        return one.id if isinstance(one, Storage) else None


def tensor(storage: Storage, size: tuple[int, ...], steps: tuple[int, ...], first: int = 0) -> Evil:
    rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
    return Evil(rebuild, storage, first, size, steps, False, OrderedDict())


def torch_pickle(content: Any) -> bytes:
    file = io.BytesIO()
    TorchPickler(file, 2).dump(content)
    return file.getvalue()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pillow_images_of_every_mode(tmp_path, protocol):
    palette = Image.new("P", (3, 2), 1)
    palette.putpalette([0, 0, 0, 9, 8, 7])
    images = [
        grey(5),
        Image.new("RGB", (3, 2), (1, 2, 3)),
        palette,
        Image.new("1", (3, 2), 1),
        Image.new("I;16", (3, 2), 257 * 4),
        Image.new("RGBA", (3, 2), (0, 0, 0, 0)),
    ]
    raw = load(save(tmp_path, TaskDataset(images, [0, 1, 0, 1, 0, 1]), protocol))
    assert raw.train.images.shape == (6, 2, 3, 3) and raw.test is None
    # 257 * 4 of 16 bits is 4 of 8; wholly transparent black lies on white.
    expected = [[5] * 3, [1, 2, 3], [9, 8, 7], [255] * 3, [4] * 3, [255] * 3]
    assert raw.train.images[:, 1, 2].tolist() == expected
    assert raw.log.modes == dict.fromkeys(("L", "RGB", "P", "1", "I;16", "RGBA"), 1)


def test_images_read_from_files_are_images_too(tmp_path):
    grey(7).save(tmp_path / "x.png")
    with Image.open(tmp_path / "x.png") as opened:
        opened.load()
        raw = load(save(tmp_path, TaskDataset([opened, grey(8)], [0, 1])))
    assert raw.train.images[:, 0, 0, 0].tolist() == [7, 8]


@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_and_numpy_labels(tmp_path, protocol):
    stack = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    one_by_one = TaskDataset(
        [np.moveaxis(stack[0], 2, 0).copy(), np.asfortranarray(stack[1])], list(np.array([0, 1]))
    )
    for dataset in (one_by_one, {"images": stack, "targets": np.array([0, 1], ">i4")}):
        raw = load(save(tmp_path, dataset, protocol))
        assert np.array_equal(raw.train.images, stack) and raw.train.labels.tolist() == [0, 1]


def test_tensors_are_read_from_their_storages(tmp_path, torch):
    values = np.arange(2 * 3 * 4 * 5, dtype="<f4").reshape(2, 3, 4, 5) / 255
    pixels = Storage(torch.FloatStorage, "0", 120)
    whole = tensor(pixels, (2, 3, 4, 5), (60, 20, 5, 1))
    # Two views of the same storage: the second image starts after 3 * 4 * 5 = 60 numbers.
    views = [tensor(pixels, (3, 4, 5), (20, 5, 1), first) for first in (0, 60)]
    numbers = Storage(torch.LongStorage, "1", 2)
    stacked = tensor(numbers, (2,), (1,))
    single = [tensor(numbers, (), (), first) for first in (0, 1)]
    members = {"0": values.tobytes(), "1": struct.pack("<2q", 1, 0)}
    for imgs in (whole, views):
        for labels in (stacked, single):
            data = torch_pickle(TaskDataset(imgs, labels))
            raw = load(save(tmp_path, data, **members))
            assert raw.train.labels.tolist() == [1, 0]
            assert np.array_equal(
                raw.train.images, np.moveaxis(values * 255, 1, 3).round().astype(np.uint8)
            )


@pytest.mark.parametrize(
    ("key", "size", "steps", "first"),
    [
        ("../../byteorder", (2, 2), (2, 1), 0),
        ("9", (2, 2), (2, 1), 0),
        (0, (2, 2), (2, 1), 0),
        ("0", (2, 2), (2, 1), 1),  # would read one number after the end
        ("0", (2, 2), (2, -1), 0),
        ("0", (9999, 9999), (0, 0), 0),  # a small storage, a huge view
        ("0", (2,), (2, 1), 0),
    ],
)
def test_a_tensor_never_leaves_its_storage(tmp_path, torch, key, size, steps, first):
    bad = tensor(Storage(torch.ByteStorage, key, 4), size, steps, first)
    data = torch_pickle(TaskDataset([bad, grey(1)], [0, 1]))
    with pytest.raises(TFRobustError, match="set.pt: image 0"):
        load(save(tmp_path, data, **{"0": b"abcd"}))


def test_an_unknown_kind_of_tensor_is_named(tmp_path, torch):
    bad = tensor(Storage(torch.BFloat16Storage, "0", 4), (2, 2), (2, 1))
    with pytest.raises(TFRobustError, match="torch.BFloat16Storage, expected one of ByteStorage"):
        load(save(tmp_path, torch_pickle(TaskDataset([bad, grey(1)], [0, 1])), **{"0": b"abcd"}))


def test_ids_and_class_names(tmp_path):
    raw = load(save(tmp_path, two(ids=[17, "b"], classes=["cat", "dog"], transform=None)))
    assert raw.train.names == ("image 0 (id 17)", "image 1 (id b)")
    assert raw.train.label_names == ("cat", "dog")


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
    with pytest.raises(TFRobustError, match=rf"set.pt is refused because .*{expected}"):
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
        (b"cx\ny\nK\x01\x85\x81.", "x.y made with arguments"),
        (b"cx\ny\n)R.", "a call of x.y"),
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (TaskDataset([grey(1)], [0, 1]), "labels: 2 labels for 1 images"),
        (two(ids=[1]), "1 ids for 2 images"),
        (TaskDataset([grey(1), grey(2)], [0, None]), r"labels\[1\]: expected an integer.*NoneType"),
        (TaskDataset([grey(1), grey(2)], [0, 2]), r"labels\[1\]: label 2 is out of range 0..1"),
        (TaskDataset([grey(1), grey(2)], [0, -1]), "image 1: label -1 is out of range"),
        (TaskDataset([grey(1), "x.png"], [0, 1]), "image 1: a str, expected a Pillow image"),
        (TaskDataset("x", [0, 1]), "expected the images in a list.*found a str"),
        (TaskDataset([grey(1), np.full((2, 3), 9.0)], [0, 1]), "image 1: float pixels range"),
        (TaskDataset([grey(1), np.array([None])], [0, 1]), "image 1: .*no plain number"),
        ({"labels": [0]}, "expected an attribute imgs or images or data or x, found labels"),
        ([1, 2], "expected an object or a dict with imgs and labels, found a list"),
        (OrderedDict(weight=1), "found a collections.OrderedDict"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, content, message):
    with pytest.raises(TFRobustError, match=message) as caught:
        load(save(tmp_path, content))
    assert "set.pt" in str(caught.value)


def test_other_formats_are_told(tmp_path):
    path = tmp_path / "set.pt"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2))
    with pytest.raises(TFRobustError, match="not in torch's zip format .torch 1.6 or later"):
        load(path)
    with pytest.raises(TFRobustError, match="cannot be read .No such file"):
        load(tmp_path / "none.pt")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("script/data.pkl", b".")
        archive.writestr("script/constants.pkl", b".")
    with pytest.raises(TFRobustError, match="another kind of archive"):
        load(path)


def test_the_real_sample(shared_data):
    raw = load(shared_data / "ten_class_sample.pt")
    assert raw.train.images.shape == (2500, 32, 32, 3)
    # The study's imbalance, counted in the file's list of labels.
    counts = [12, 229, 584, 90, 176, 372, 117, 11, 792, 117]
    assert np.bincount(raw.train.labels).tolist() == counts
    assert raw.log.modes == {"RGB": 2247, "L": 253} and not raw.log.skipped
    # Image 0 has id 3: the colours of a photograph vary, but are not noise.
    assert raw.train.names[0] == "image 0 (id 3)" and 10 < raw.train.images[0].std() < 100


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
