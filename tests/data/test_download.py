"""Downloads from a server on this machine: verified, atomic, resumable, bounded in time."""

import hashlib
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tfrobust.data.download import Remote, fetch
from tfrobust.errors import TFRobustError

CONTENT = bytes(range(256)) * 8192  # 2 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """Serves CONTENT: /ranges (206 for a range), /plain (all), /cut and /stall (half), /long."""

    def do_GET(self):
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        start = 0
        if asked and self.path == "/ranges":
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(206 if start else 200)
        if self.path != "/long":
            self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        stop = len(CONTENT) // 2 if self.path in ("/cut", "/stall") else None
        self.wfile.write(CONTENT[start:stop])
        if self.path == "/stall":
            self.server.ended.wait(10)
        if self.path == "/long":
            self.wfile.write(b"more")

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        running.asked, running.ended = [], threading.Event()
        running.url = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        yield running
        running.ended.set()
        running.shutdown()


def remote(server, path, sha256=SHA256):
    return Remote(f"{server.url}{path}", len(CONTENT), sha256)


def get(source, target, **kwargs):
    return fetch(source, target, otherwise="bring it yourself", **kwargs)


def test_downloads_once(server, tmp_path):
    target = tmp_path / "new" / "data.zip"
    for _ in range(2):
        assert get(remote(server, "/plain"), target) == target
        assert target.read_bytes() == CONTENT
    assert server.asked == [None]
    assert [path.name for path in target.parent.iterdir()] == ["data.zip"]


@pytest.mark.parametrize("path", ["/ranges", "/plain"])
def test_goes_on_after_a_cut(server, tmp_path, path):
    target = tmp_path / "data.zip"
    with pytest.raises(TFRobustError, match="run again with a connection .* or bring it"):
        get(remote(server, "/cut"), target)
    assert not target.exists()
    half = len(CONTENT) // 2
    assert (tmp_path / "data.zip.part").stat().st_size == half
    get(remote(server, path), target)
    assert target.read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={half}-"]


def test_a_finished_part_is_not_asked_for_again(server, tmp_path):
    (tmp_path / "data.zip.part").write_bytes(CONTENT)
    assert get(remote(server, "/plain"), tmp_path / "data.zip").read_bytes() == CONTENT
    assert server.asked == []


def test_wrong_content_is_refused_and_not_kept(server, tmp_path):
    with pytest.raises(TFRobustError, match=f"{'0' * 64} .* {SHA256}"):
        get(remote(server, "/plain", "0" * 64), tmp_path / "data.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_file_in_its_place_is_refused_and_kept(server, tmp_path):
    target = tmp_path / "data.zip"
    target.write_bytes(b"mine")
    with pytest.raises(TFRobustError, match="found 4 bytes .* in .*data.zip: download it again"):
        get(remote(server, "/plain"), target)
    assert target.read_bytes() == b"mine"


def test_what_the_server_says_is_told(server, tmp_path):
    with pytest.raises(TFRobustError, match="found 'Not Found'"):
        get(remote(server, "/missing"), tmp_path / "data.zip")


def test_a_file_of_another_size_is_not_begun(server, tmp_path):
    with pytest.raises(TFRobustError, match="found 'a file of 2,097,152 bytes'"):
        get(Remote(f"{server.url}/plain", 99, SHA256), tmp_path / "data.zip")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_does_not_end_is_cut_off(server, tmp_path):
    with pytest.raises(TFRobustError, match="more than 2,097,152 bytes"):
        get(remote(server, "/long"), tmp_path / "data.zip")
    (part,) = tmp_path.iterdir()
    assert part.name == "data.zip.part" and part.stat().st_size <= len(CONTENT)


def test_a_server_that_stalls_is_left_in_time_and_gone_on_from(server, tmp_path):
    start = time.monotonic()
    with pytest.raises(TFRobustError, match="timed out"):
        get(remote(server, "/stall"), tmp_path / "data.zip", timeout=0.3)
    assert time.monotonic() - start < 2
    get(remote(server, "/ranges"), tmp_path / "data.zip")
    assert server.asked == [None, f"bytes={len(CONTENT) // 2}-"]


def test_the_proxy_of_the_environment_is_asked(server, tmp_path, monkeypatch):
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", server.url)
    source = Remote("http://files.invalid/data.zip", len(CONTENT), SHA256)
    assert get(source, tmp_path / "data.zip").read_bytes() == CONTENT


def test_nothing_listens(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/data.zip"
        with pytest.raises(TFRobustError, match="Connection refused"):
            get(Remote(url, 1, SHA256), tmp_path / "data.zip")


def test_a_silent_server_is_left_in_time(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/data.zip"
        start = time.monotonic()
        with pytest.raises(TFRobustError, match="no answer within 0.5 seconds|timed out"):
            get(Remote(url, 1, SHA256), tmp_path / "data.zip", timeout=0.5)
        assert time.monotonic() - start < 2


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TFRobustError, match="Expected to write .* choose another folder"):
        get(remote(server, "/plain"), tmp_path / "file" / "data.zip")
