"""What the bridge costs: 16 MiB of float32 to the page and back, and an empty message and back, against a bare ``websockets`` echo.

    python benchmarks/bridge.py [--browser chromium] [--launches 6] [--seconds 4] [--mib 16] [--websocket]

Each launch is a fresh browser profile. Within it, tensors through our bridge (by the files that Python and the page share, and back,
decoded to a NumPy array) alternate with the same bytes from this process to a ``websockets`` server in a process of its own and back, and
with the same page's plain echo of a control message. Then a second page of the same browser gets and posts the same bytes by bare HTTP
(``bare_http.py``). Printed: gigabytes a second, both directions counted, how many of our bytes went by file, and the ratio of times
ours / bare with its interval over launches. ``--websocket`` keeps the files shut.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
from bare_http import round_trips
from websockets.sync.client import connect

from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.statistics import ratio_interval
from ipfs_accelerate_py.web import protocol
from ipfs_accelerate_py.web.browsers import Browser, find_browser
from ipfs_accelerate_py.web.page_session import SHARING_PAYS_BYTES, Page

ECHO = """
from websockets.sync.server import serve
def echo(socket):
    for message in socket:
        socket.send(message)
with serve(echo, "127.0.0.1", 0, max_size=None, compression=None) as server:
    print(server.socket.getsockname()[1], flush=True)
    server.serve_forever()
"""
LIMIT_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--browser", default="chromium")
    parser.add_argument("--launches", type=int, default=6, help="at least 2")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each launch's alternating round trips")
    parser.add_argument("--mib", type=float, default=16.0)
    parser.add_argument("--websocket", action="store_true", help="all by the WebSocket, as where no file can be shared")
    options = parser.parse_args()
    browser = find_browser(options.browser)
    values = np.random.default_rng(0).standard_normal(int(options.mib * 2**20) // 4, dtype=np.float32)
    ours, bare, control, http = [], [], [], []
    echo = subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
    try:
        assert echo.stdout
        port = int(echo.stdout.readline())
        for _ in range(options.launches):
            one, other, empty, by_file = launch(browser, port, values, options.seconds, options.websocket)
            ours.append(one)
            bare.append(other)
            control.append(empty)
            http.append(round_trips(browser, memoryview(values).cast("B"), options.seconds))
    finally:
        echo.kill()
        echo.wait()
    print(f"{browser.name} {browser.version}, {options.launches} launches, {machine.fingerprint()}")
    size = 2 * values.nbytes
    print(f"of the bridge's bytes {by_file:.0%} went by the shared files")
    for name, launches in (("bridge", ours), ("bare websockets echo", bare), ("bare HTTP, GET and POST", http)):
        median, trips = statistics.median(map(statistics.median, launches)), sum(map(len, launches))
        print(f"{name}: {size / median / 1e9:.2f} GB/s (median {median * 1e3:.1f} ms, {trips} round trips)")
    for name, other in (("bare websockets echo", bare), ("bare HTTP", http)):
        interval = ratio_interval(ours, other)
        ratio = statistics.median(map(statistics.median, ours)) / statistics.median(map(statistics.median, other))
        print(f"time ratio bridge / {name}: {ratio:.2f} [{interval.low:.2f}, {interval.high:.2f}], 95 %")
    medians = [statistics.median(times) * 1e3 for times in control]
    print(
        f"control round trip: median {statistics.median(medians):.2f} ms, launches {min(medians):.2f} to {max(medians):.2f} ms"
    )


def launch(
    browser: Browser, port: int, values: np.ndarray, seconds: float, websocket: bool
) -> tuple[list[float], list[float], list[float], float]:
    """Seconds of each round trip: through the bridge, bare, and of an empty message, the first two of each left out as warm-up; and the
    share of the bridge's bytes that went by file."""
    ours, bare, control = [], [], []
    with Page(browser) as page, connect(f"ws://127.0.0.1:{port}", max_size=None, compression=None, proxy=None) as socket:
        if websocket:
            page._sharing.acquire()
        else:  # so that small tensors are measured by file too
            page.ask(protocol.Echo(), protocol.Done, "echo", LIMIT_S, {"x": np.zeros(SHARING_PAYS_BYTES, np.uint8)})
        before = replace(page.bridge.traffic)
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(ours) < 5:
            start = time.perf_counter()
            _, outputs = page.ask(protocol.Echo(), protocol.Done, "echo", LIMIT_S, {"x": values})
            ours.append(time.perf_counter() - start)
            assert outputs["x"].shape == values.shape and outputs["x"][-1] == values[-1]
            start = time.perf_counter()
            socket.send(values.tobytes())
            back = np.frombuffer(socket.recv(), np.float32)
            bare.append(time.perf_counter() - start)
            assert back[-1] == values[-1]
            for _ in range(20):
                start = time.perf_counter()
                page.ask(protocol.Echo(), protocol.Done, "echo", LIMIT_S)
                control.append(time.perf_counter() - start)
        after = page.bridge.traffic
    by_file, by_socket = (
        sum(getattr(after, name) - getattr(before, name) for name in names)
        for names in (("file_bytes_sent", "file_bytes_received"), ("bytes_sent", "bytes_received"))
    )
    return ours[2:], bare[2:], control[20:], by_file / (by_file + by_socket)


if __name__ == "__main__":
    main()
