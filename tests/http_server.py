"""A local HTTP server for tests, which adds no waits of its own.

By default, `http.server` lets five connections wait (the sixth tries again after a second), and
sends the head of an answer alone (the body follows 40 ms later, by Nagle's algorithm).
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class QuietHandler(BaseHTTPRequestHandler):
    """A handler that prints nothing."""

    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass


class LocalServer(ThreadingHTTPServer):
    """Listens on a free port from `start` until `stop`."""

    request_queue_size = 256
    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
