"""The load figures: what is not answered is counted as lost."""

from __future__ import annotations

import socket
import threading

from benchmarks.serving import _load


def test_an_answer_that_is_no_http_is_a_lost_request() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            for _ in range(2):
                connection, _ = server.accept()
                with connection:
                    connection.recv(1 << 16)
                    connection.sendall(b"nonsense\r\n\r\n")
            server.close()

        thread = threading.Thread(target=answer)
        thread.start()
        times, lost = _load("127.0.0.1", server.getsockname()[1], [b"image"], 1, 0.3)
        thread.join()
    assert times == [] and lost >= 2
