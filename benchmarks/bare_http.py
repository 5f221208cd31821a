"""What HTTP alone costs on loopback: a worker gets bytes by ``fetch`` and posts them back, with nothing of ours on either side."""

from __future__ import annotations

import http.server
import json
import threading

from ipfs_accelerate_py.web.browser_process import start_browser
from ipfs_accelerate_py.web.browsers import Browser

LIMIT_S = 120.0
WORKER = """
const trips = [];
const end = performance.now() + SECONDS * 1000;
while (performance.now() < end || trips.length < 5) {
  const start = performance.now();
  const body = await (await fetch("bytes")).arrayBuffer();
  await fetch("bytes", { method: "POST", body });
  trips.push((performance.now() - start) / 1000);
}
await fetch("trips", { method: "POST", body: JSON.stringify(trips) });
"""


def round_trips(browser: Browser, data: memoryview, seconds: float) -> list[float]:
    """Seconds of each, by the page's clock, after two that warm up; ``data`` goes to the page from memory and back into memory."""
    back, trips, done = bytearray(len(data)), [], threading.Event()
    worker = WORKER.replace("SECONDS", str(seconds)).encode()
    texts = {
        "/": ("text/html", b"<script>new Worker('worker.js', { type: 'module' })</script>"),
        "/worker.js": ("text/javascript", worker),
    }

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            kind, body = texts.get(self.path, ("application/octet-stream", data if self.path == "/bytes" else b""))
            self._head(kind, len(body))
            self.connection.sendall(body)

        def do_POST(self) -> None:
            size = int(self.headers["Content-Length"])
            if self.path == "/bytes":
                assert self.rfile.readinto(back) == size == len(data)  # type: ignore[attr-defined]
            else:
                trips.extend(json.loads(self.rfile.read(size)))
                done.set()
            self._head("text/plain", 0)

        def _head(self, kind: str, size: int) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(size))
            self.send_header("Cache-Control", "no-store")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with start_browser(browser, f"http://127.0.0.1:{server.server_address[1]}/") as process:
            if not done.wait(LIMIT_S):
                raise process.failure() or TimeoutError(f"no round trips in {LIMIT_S:g} s")
        server.shutdown()
    if back != data:
        raise ValueError("what came back is not what was sent")
    return trips[2:]
