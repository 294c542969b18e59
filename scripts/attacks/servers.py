"""A model's server that lies, dawdles, floods or dies, as a file says.

    python scripts/attacks/servers.py MODE_FILE

prints its port.  Before each answer it reads the name of its manner from the file.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HONEST = "honest"
STATES = (400, 401, 403, 404, 408, 413, 418, 422, 429, 500, 501, 502, 503, 504, 599)
BODIES: dict[str, bytes] = {
    "nothing": b"",
    "a page": b"<html><body>Sign in to the network</body></html>",
    "no JSON": b"{'choices': ",
    "a list": b"[1, 2]",
    "a number": b"7",
    "null": b"null",
    "deep": b"[" * 200_000,
    "no choices": b"{}",
    "empty choices": b'{"choices": []}',
    "an odd choice": b'{"choices": [7]}',
    "no message": b'{"choices": [{"finish_reason": "stop"}]}',
    "no content": b'{"choices": [{"message": {"content": null}}]}',
    "a number for content": b'{"choices": [{"message": {"content": 5}}]}',
    "a picture": b'{"choices": [{"message": {"content": [{"type": "image_url"}]}}]}',
    "a refusal": b'{"choices": [{"message": {"content": null, "refusal": "no"}}]}',
    "a filter": b'{"choices": [{"message": {"content": "x"}, "finish_reason": "content_filter"}]}',
    "a call": b'{"choices": [{"message": {"content": null, "tool_calls": [{}]}}]}',
    "thinking alone": b'{"choices": [{"message": {"content": "", "reasoning": "hm"}}]}',
    "odd usage": b'{"choices": [{"message": {"content": "x"}}], "usage": {"prompt_tokens": 1e999}}',
    "half a letter": b'{"choices": [{"message": {"content": "\\ud800"}}]}',
    "escapes": b'{"choices": [{"message": {"content": "\\u001b]0;x\\u0007"}}]}',
    "an error with 200": b'{"error": {"message": "\\u001b[31mout of memory"}}',
    "not UTF-8": b'{"choices": [{"message": {"content": "\xff\xfe"}}]}',
}
WAYS = (
    "cut",
    "reset",
    "drip",
    "hang",
    "flood",
    "bomb",
    "bad gzip",
    "redirect",
    "wrong length",
    "garbage",
    "odd wait",
    "half",
)
MODES = (*(f"state {s}" for s in STATES), *BODIES, *WAYS)


class _Handler(BaseHTTPRequestHandler):
    mode_file: Path
    asked = 0

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        """The list of models."""
        self._say(json.dumps({"data": [{"id": "m", "owned_by": "x"}]}).encode())

    def do_POST(self) -> None:
        """An answer, in the manner of the moment."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        mode = self.mode_file.read_text().strip()
        _Handler.asked += 1
        if mode == HONEST or (_Handler.asked % 3 == 0 and mode != "hang"):
            self._say(_answer(body))
        elif mode.startswith("state "):
            status = int(mode.removeprefix("state "))
            self._say(b'{"error": {"message": "\x1b[31mno"}}', status)
        elif mode in BODIES:
            self._say(BODIES[mode])
        else:
            self._misbehave(mode, body)

    def _misbehave(self, mode: str, body: bytes) -> None:
        match mode:
            case "cut" | "wrong length":
                self._head(len(_answer(body)) + 100)
                self.wfile.write(_answer(body)[:20])
                self.close_connection = True
            case "reset":
                self.close_connection = True
            case "drip":
                self._head(1000)
                for _ in range(20):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.5)
            case "hang":
                time.sleep(30)
            case "flood":
                self._say(b'{"choices": "' + b"x" * (40 << 20))
            case "bomb":
                self._say(gzip.compress(b" " * (200 << 20)), encoding="gzip")
            case "bad gzip":
                self._say(b"\x1f\x8b\x08nonsense", encoding="gzip")
            case "redirect":
                self.send_response(302)
                self.send_header("Location", self.path)
                self.send_header("Content-Length", "0")
                self.end_headers()
            case "garbage":
                self.wfile.write(b"\x00\xff\xff no HTTP at all\r\n\r\n")
                self.close_connection = True
            case "odd wait":
                self._say(b"{}", 429, wait="nan")
            case _:
                if _Handler.asked % 2:
                    self.close_connection = True
                else:
                    self._say(_answer(body))

    def _head(self, length: int, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _say(self, data: bytes, status: int = 200, *, encoding: str = "", wait: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if encoding:
            self.send_header("Content-Encoding", encoding)
        if wait or status in (429, 503):
            self.send_header("Retry-After", wait or "0")
        self.end_headers()
        try:
            self.wfile.write(data)
        except OSError:  # the client has had enough
            self.close_connection = True


def _answer(body: bytes) -> bytes:
    """The same to the same question."""
    word = hashlib.sha256(body).hexdigest()[:12]
    choice = {
        "message": {"role": "assistant", "content": f"answer {word}"},
        "finish_reason": "stop",
    }
    return json.dumps({"choices": [choice], "usage": {"prompt_tokens": 5}}).encode()


@contextmanager
def serving(mode_file: Path) -> Iterator[str]:
    """A server in a process of its own; its address."""
    mode_file.write_text(HONEST)
    process = subprocess.Popen(
        [sys.executable, __file__, str(mode_file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
    finally:
        process.kill()
        process.wait()


def main() -> None:
    """Serve until ended."""
    _Handler.mode_file = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
