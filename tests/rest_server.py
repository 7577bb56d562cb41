"""A server of TensorFlow Serving's REST form that answers as a test wants, without TensorFlow."""

from __future__ import annotations

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np


class Server:
    """Answers as it is told: `answer(instances)` is what becomes JSON, or (status, text)."""

    def __init__(self, answer, status=None, metadata=None):
        self.answer, self.images, self.requests = answer, [], 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                known = status or {"model_version_status": [{"state": "AVAILABLE"}]}
                self.reply(metadata or {} if self.path.endswith("/metadata") else known)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                instances = json.loads(body)["instances"]
                outer.requests += 1
                outer.images.append(len(instances))
                self.reply(outer.answer(np.array(instances, np.float32)))

            def reply(self, found):
                code, content = found if isinstance(found, tuple) else (200, json.dumps(found))
                self.send_response(code)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content.encode())

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}/v1/models/linear"

    @contextlib.contextmanager
    def running(self):
        thread = threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.http.shutdown()
            self.http.server_close()
            thread.join()
