"""What the bridge costs: 16 MiB of float32 to the page and back, and an empty message and back, against a bare ``websockets`` echo.

    python benchmarks/bridge.py [--browser chromium] [--launches 6] [--seconds 4] [--mib 16]

Each launch is a fresh browser profile. Within it, tensors through our bridge (encode, WebSocket, the page's worker, and back, decoded
to a NumPy array) alternate with the same bytes from this process to a ``websockets`` server in a process of its own and back, and with
the same page's plain echo of a control message. Printed: gigabytes a second, both directions counted, and the ratio of times
ours / bare with its interval over launches.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

import numpy as np
from websockets.sync.client import connect

from ipfs_accelerate_py.measure import machine
from ipfs_accelerate_py.measure.statistics import ratio_interval
from ipfs_accelerate_py.web import protocol
from ipfs_accelerate_py.web.browsers import find_browser
from ipfs_accelerate_py.web.page_session import Page

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
    parser.add_argument("--mib", type=int, default=16)
    options = parser.parse_args()
    browser = find_browser(options.browser)
    values = np.random.default_rng(0).standard_normal(options.mib * 2**20 // 4, dtype=np.float32)
    ours, bare, control = [], [], []
    echo = subprocess.Popen([sys.executable, "-c", ECHO], stdout=subprocess.PIPE, text=True)
    try:
        assert echo.stdout
        port = int(echo.stdout.readline())
        for _ in range(options.launches):
            one, other, empty = launch(browser, port, values, options.seconds)
            ours.append(one)
            bare.append(other)
            control.append(empty)
    finally:
        echo.kill()
        echo.wait()
    print(f"{browser.name} {browser.version}, {options.launches} launches, {machine.fingerprint()}")
    size = 2 * values.nbytes
    for name, launches in (("bridge", ours), ("bare websockets echo", bare)):
        median, trips = statistics.median(map(statistics.median, launches)), sum(map(len, launches))
        print(f"{name}: {size / median / 1e9:.2f} GB/s (median {median * 1e3:.1f} ms, {trips} round trips)")
    interval = ratio_interval(ours, bare)
    ratio = statistics.median(map(statistics.median, ours)) / statistics.median(map(statistics.median, bare))
    print(f"time ratio bridge / bare: {ratio:.2f} [{interval.low:.2f}, {interval.high:.2f}], 95 %")
    medians = [statistics.median(times) * 1e3 for times in control]
    print(
        f"control round trip: median {statistics.median(medians):.2f} ms, launches {min(medians):.2f} to {max(medians):.2f} ms"
    )


def launch(browser, port: int, values: np.ndarray, seconds: float) -> tuple[list[float], list[float], list[float]]:
    """Seconds of each round trip: through the bridge, bare, and of an empty message. The first two of each warm up."""
    ours, bare, control = [], [], []
    with Page(browser) as page, connect(f"ws://127.0.0.1:{port}", max_size=None, compression=None, proxy=None) as socket:
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
    return ours[2:], bare[2:], control[20:]


if __name__ == "__main__":
    main()
