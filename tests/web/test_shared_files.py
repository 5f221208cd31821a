"""Large tensors by files that Python and the page share: found by their marks alone, never overwritten while held, and not trusted."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from product_model import require
from websockets.sync.client import ClientConnection, connect

from ipfs_accelerate_py.errors import LaunchError
from ipfs_accelerate_py.web import protocol, shared_files
from ipfs_accelerate_py.web.bridge import Bridge, Disconnected
from ipfs_accelerate_py.web.page_session import SHARING_PAYS_BYTES, Page
from ipfs_accelerate_py.web.shared_files import SharedFiles, find_marked, share_files

MARKS = ["a" * 64, "b" * 64]
LIMIT_S = 120.0


@pytest.fixture
def files(tmp_path: Path) -> Iterator[SharedFiles]:
    """Two empty ones."""
    opened = [os.open(tmp_path / name, os.O_RDWR | os.O_CREAT) for name in ("to", "from")]
    made = SharedFiles(*opened)
    yield made
    made.close()


def stored(files: SharedFiles, array: np.ndarray) -> protocol.Stored | None:
    return files.store({"x": array}, *protocol.layout({"x": array}))


def test_only_what_holds_a_mark_is_taken(tmp_path):
    """Neither another file of the size, nor a longer one, nor a link that leads out of the profile; and the names of those taken go."""
    profile = tmp_path / "profile"
    (profile / "deep" / "er").mkdir(parents=True)
    (profile / "other").write_text("c" * 64)
    (profile / "longer").write_text(MARKS[0] + "!")
    (tmp_path / "outside").write_text(MARKS[0])
    (profile / "link").symlink_to(tmp_path / "outside")
    os.mkfifo(profile / "pipe")
    (profile / "deep" / "one").write_text(MARKS[1])
    assert find_marked(profile, MARKS) is None
    (profile / "deep" / "one").write_text(MARKS[1])
    (profile / "deep" / "er" / "two").write_text(MARKS[0])
    found = find_marked(profile, MARKS)
    assert found is not None
    assert [os.pread(descriptor, 99, 0).decode() for descriptor in found] == MARKS
    for descriptor in found:
        os.close(descriptor)
    names = {path.name for path in profile.rglob("*") if not path.is_dir()}
    assert names == {"other", "longer", "link", "pipe"}
    assert (tmp_path / "outside").exists()


def test_what_is_not_found_leaves_nothing_open(tmp_path):
    """One of two: the page is told so, and no descriptor stays."""
    (tmp_path / "one").write_text(MARKS[0])
    before = len(os.listdir("/proc/self/fd"))
    assert find_marked(tmp_path, MARKS) is None
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_reason_for_no_files_is_told(tmp_path):
    """What the page says, or that its files are nowhere: then it is told to remove them."""
    asked: list[protocol.Message] = []

    def ask(message: protocol.Message) -> protocol.Message:
        asked.append(message)
        return protocol.Facts(facts={"reason": reason})

    reason: str | None = "the page cannot open files of its own: SecurityError"
    assert share_files(ask, tmp_path) == reason
    reason = None
    assert "in no file of its profile" in str(share_files(ask, tmp_path))
    assert asked[-1] == protocol.UseFiles(found=False)
    assert share_files(ask, None) == "the browser was not started here"


@pytest.mark.parametrize("call", ["pread", "unlink"])
def test_files_that_cannot_be_taken_are_a_reason(tmp_path, monkeypatch, call):
    """A disk that fails while they are looked at, or a folder from which no name can be removed: nothing stays open, the page is told."""

    def fail(*_: object, **__: object) -> None:
        raise OSError("broken")

    asked: list[protocol.Message] = []

    def ask(message: protocol.Message) -> protocol.Message:
        asked.append(message)
        if isinstance(message, protocol.ShareFiles):
            (tmp_path / "to").write_text(message.to_page)
            (tmp_path / "from").write_text(message.from_page)
            return protocol.Facts(facts={"reason": None})
        return protocol.Done()

    before = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as failing:
        failing.setattr(*((os, "pread", fail) if call == "pread" else (Path, "unlink", fail)))
        assert share_files(ask, tmp_path) == "the page's files cannot be taken: broken"
    assert len(os.listdir("/proc/self/fd")) == before
    assert asked[-1] == protocol.UseFiles(found=False)


@given(st.lists(st.one_of(st.integers(1, 40), st.integers(-6, -1)), max_size=40))
def test_nothing_is_placed_over_what_is_held(steps):
    """Any order of storing (its size) and releasing (which one): places never overlap, and a release makes its room usable."""
    held: dict[int, int] = {}
    for step in steps:
        if step > 0:
            at = shared_files._free(held, step)
            assert all(at + step <= begin or begin + taken <= at for begin, taken in held.items())
            assert at <= sum(held.values()) + 40 * len(held)
            held[at] = step
        elif held:
            held.pop(sorted(held)[step % len(held)])
    assert shared_files._free({}, 10) == 0


def test_tensors_are_written_and_read_at_their_places(files):
    """Strided, empty and scalar ones too; one is not disturbed by another that is stored and released meanwhile."""
    arrays = {
        "t": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.array(7, np.int64),
        "flags": np.array([True, False, True]),
    }
    first = files.store(arrays, *protocol.layout(arrays))
    other = stored(files, np.full(1000, 5, np.uint8))
    assert other.at >= first.at + first.bytes
    files.release(other)
    assert stored(files, np.ones(10, np.uint8)).at == other.at
    files._from_page, files._to_page = files._to_page, files._from_page  # as the page would read
    found = files.load(first)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].tolist() == array.tolist()


def test_a_full_disk_is_told_and_goes_another_way(tmp_path):
    """/dev/full is one: nothing is held, and the reason stays."""
    files = SharedFiles(os.open("/dev/full", os.O_RDWR), os.open(tmp_path / "from", os.O_RDWR | os.O_CREAT))
    assert stored(files, np.ones(10, np.float32)) is None
    assert "No space left" in files.refused
    assert stored(files, np.ones(10, np.float32)) is None
    files.close()


def test_a_file_has_a_limit(files, monkeypatch):
    """What does not fit beside the rest goes by the WebSocket, and fits again after a release."""
    monkeypatch.setattr(shared_files, "SHARED_LIMIT_BYTES", 1000)
    first = stored(files, np.ones(600, np.uint8))
    assert stored(files, np.ones(600, np.uint8)) is None
    files.release(first)
    assert stored(files, np.ones(600, np.uint8)) is not None


def test_a_closed_one_is_used_by_nobody(files):
    """Its descriptors may be another file's by now."""
    files.close()
    files.close()
    assert stored(files, np.ones(10, np.uint8)) is None
    with pytest.raises(ValueError, match="0 are there"):
        files.load(protocol.Stored(0, (protocol.TensorHeader("x", "uint8", (4,), 0, 4),)))


@pytest.fixture
def dialled(product: Path) -> Iterator[tuple[Bridge, ClientConnection]]:
    """A bridge, and a page that says whatever a test wants."""
    with Bridge(product) as bridge:
        token = urlsplit(bridge.url).fragment.removeprefix("token=")
        with connect(f"ws://{bridge.host}/bridge?token={token}", origin=bridge.origin, proxy=None) as page:  # type: ignore[arg-type]
            assert bridge.connected(5)
            yield bridge, page


def told(page: ClientConnection) -> dict:
    return json.loads(page.recv(timeout=10))


def reply(number: int, stored_at: object = 0, size: object = 4, offset: object = 0, shape: object = None) -> str:
    header = {"name": "x", "dtype": "uint8", "shape": shape or [size], "offset": offset, "bytes": size}
    return json.dumps({"type": "Done", "id": number, "tensors": [header], "stored_at": stored_at})


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ({}, "there is no shared file"),
        ({"stored_at": -1}, "places that no shared file has"),
        ({"stored_at": True}, "places that no shared file has"),
        ({"stored_at": 2**40}, "places that no shared file has"),
        ({"size": 2**40}, "places that no shared file has"),
        ({"offset": -8}, "places that no shared file has"),
        ({"stored_at": "0"}, "places that no shared file has"),
    ],
)
def test_a_page_that_names_false_places_is_refused(dialled, place, sentence):
    """Before anything is read or memory is taken."""
    bridge, page = dialled
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(bridge.request, protocol.Echo(), timeout_s=10, phase="echo")
        page.send(reply(told(page)["id"], **place))
        with pytest.raises(LaunchError, match=sentence) as raised:
            asked.result(10)
    assert raised.value.error_class == "page_error"
    assert bridge.broken is not None


def test_bytes_that_are_not_there_end_the_page(dialled, files):
    """A place behind the end of the file, which would else be read for ever."""
    bridge, page = dialled
    bridge.files = files
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(bridge.request, protocol.Echo(), timeout_s=10, phase="echo")
        page.send(reply(told(page)["id"], 100))
        with pytest.raises(LaunchError, match="of 4 bytes that the page stored 0 are there"):
            asked.result(10)


@pytest.mark.parametrize("shape", ["x", [5], [2**80], [[4]]])
def test_a_shape_that_is_none_ends_the_page(dialled, files, shape):
    """Bytes that are there and cannot be the tensor that the page says."""
    bridge, page = dialled
    bridge.files = files
    os.pwrite(files._from_page, b"abcd", 0)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(bridge.request, protocol.Echo(), timeout_s=10, phase="echo")
        page.send(reply(told(page)["id"], shape=shape))
        with pytest.raises(LaunchError, match="not understood") as raised:
            asked.result(10)
    assert raised.value.error_class == "page_error"
    assert bridge.broken is raised.value


def test_a_file_that_cannot_be_read_ends_the_page(dialled, files, tmp_path):
    """A folder in its place: the system's sentence is in the error."""
    bridge, page = dialled
    bridge.files = files
    folder = os.open(tmp_path, os.O_RDONLY)
    os.dup2(folder, files._from_page)
    os.close(folder)
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(bridge.request, protocol.Echo(), timeout_s=10, phase="echo")
        page.send(reply(told(page)["id"]))
        with pytest.raises(LaunchError, match="Is a directory") as raised:
            asked.result(10)
    assert raised.value.error_class == "page_error"


def test_an_answer_that_comes_as_its_time_ends_is_released(dialled, files):
    """It waits behind an event whose listener gives up: the page hears that it need not hold the tensors."""
    bridge, page = dialled
    bridge.files = files

    def give_up(_: protocol.Message) -> None:
        page.send(reply(question["id"], 5))
        page.send(json.dumps({"type": "Done", "id": other["id"]}))
        after.result(10)  # its answer came after the one that nobody takes
        raise LaunchError("timeout", "enough")

    with ThreadPoolExecutor() as pool:
        asked = pool.submit(bridge.request, protocol.Echo(), timeout_s=30, phase="echo", on_event=give_up)
        question = told(page)
        after = pool.submit(bridge.request, protocol.Echo(), timeout_s=30, phase="echo")
        other = told(page)
        page.send(json.dumps({"type": "DecodedToken", "id": question["id"], "index": 0, "ns": 1, "token_ids": [1]}))
        with pytest.raises(LaunchError, match="enough"):
            asked.result(30)
    late = told(page)
    assert (late["type"], late["stored_at"]) == ("ReleaseStored", 5)


def test_a_page_too_busy_to_share_files_is_no_failure(dialled, tmp_path):
    """It does not say in time that it opened them, or that it uses them: large tensors go by the WebSocket, and the metrics say why. What
    it stores when it hears of it at last is read."""
    bridge, page = dialled
    bridge.open_files(tmp_path, timeout_s=0.2)
    assert bridge.large_tensors_by == "WebSocket: opening shared files went over its limit of 0.2 s."
    assert told(page)["type"] == "ShareFiles"
    with ThreadPoolExecutor() as pool:
        opening = pool.submit(bridge.open_files, tmp_path, timeout_s=2)
        marks = told(page)
        for way in ("to_page", "from_page"):
            (tmp_path / way).write_text(marks[way])
        page.send(json.dumps({"type": "Facts", "id": marks["id"], "facts": {"reason": None}}))
        assert told(page)["found"] is True
        opening.result(30)
        assert bridge.large_tensors_by == "WebSocket: opening shared files went over its limit of 2 s."
        asked = pool.submit(bridge.request, protocol.Echo(), timeout_s=10, phase="echo")
        page.send(reply(told(page)["id"]))
        assert bytes(asked.result(10).tensors["x"]) == marks["from_page"][:4].encode()


def test_files_that_are_found_after_the_end_are_closed(dialled, tmp_path):
    """The bridge was closed while they were looked for."""
    bridge, page = dialled
    before = len(os.listdir("/proc/self/fd"))
    with ThreadPoolExecutor() as pool:
        opening = pool.submit(bridge.open_files, tmp_path, timeout_s=30)
        marks = told(page)
        for way in ("to_page", "from_page"):
            (tmp_path / way).write_text(marks[way])
        found = find_marked

        def closing(*given: object) -> list[int] | None:
            bridge._fail(Disconnected("The bridge was closed."))
            return found(*given)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(shared_files, "find_marked", closing)
            page.send(json.dumps({"type": "Facts", "id": marks["id"], "facts": {"reason": None}}))
            with pytest.raises(Disconnected):
                opening.result(30)
    assert len(os.listdir("/proc/self/fd")) == before


def test_what_is_read_is_released_and_so_is_a_late_answer(dialled, files):
    """The page hears of both, so that its file does not grow; a request's own tensors are released with its answer."""
    bridge, page = dialled
    bridge.files = files
    os.pwrite(files._from_page, b"abcdefgh", 0)
    large = {"x": np.ones(protocol.SHARED_BYTES, np.uint8)}
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(bridge.request, protocol.Echo(), large, timeout_s=10, phase="echo")
        question = told(page)
        assert (question["stored_at"], question["tensors"][0]["bytes"]) == (0, protocol.SHARED_BYTES)
        assert files._held == {0: protocol.SHARED_BYTES}
        page.send(reply(question["id"], 3))
        assert bytes(asked.result(10).tensors["x"]) == b"defg"
    assert (told(page)["type"], files._held) == ("ReleaseStored", {})
    page.send(reply(question["id"], 5))
    late = told(page)
    assert (late["type"], late["stored_at"]) == ("ReleaseStored", 5)
    assert bridge.traffic.file_bytes_sent == protocol.SHARED_BYTES
    assert bridge.traffic.file_bytes_received == 4


def test_a_page_that_vanishes_ends_the_request_and_holds_nothing(dialled, files):
    """The tensors of a request that nobody will answer are released."""
    bridge, page = dialled
    bridge.files = files
    with ThreadPoolExecutor() as pool:
        large = {"x": np.ones(protocol.SHARED_BYTES, np.uint8)}
        asked = pool.submit(bridge.request, protocol.Echo(), large, timeout_s=10, phase="echo")
        told(page)
        page.close()
        with pytest.raises(Disconnected):
            asked.result(10)
    assert files._held == {}


@pytest.fixture(params=["chromium", "firefox"])
def page(request: pytest.FixtureRequest) -> Iterator[Page]:
    """In each browser, with an empty page."""
    with Page(require(request.param)) as page:
        yield page


def echo(page: Page, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return page.ask(protocol.Echo(), protocol.Done, "echo", LIMIT_S, arrays)[1]


def random_bytes(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


def test_large_tensors_go_there_and_back_by_file(page: Page):
    """Bit by bit, small ones beside them, from several threads at once; and the profile shows no file with them in it."""
    small = echo(page, {"x": random_bytes(9, 1)})
    assert page.bridge.large_tensors_by == "WebSocket: no large tensor has come yet"
    arrays = {"bytes": random_bytes(SHARING_PAYS_BYTES + 1, 0), "x": small["x"], "none": np.zeros((0, 2), np.float16)}
    found = echo(page, arrays)
    assert page.bridge.large_tensors_by == "shared file"
    assert found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    sent = page.bridge.traffic.bytes_sent

    def several(seed: int) -> bool:
        data = [random_bytes(protocol.SHARED_BYTES + 777 * seed * round, 10 * seed + round) for round in range(6)]
        return all(np.array_equal(echo(page, {"x": each})["x"], each) for each in data)

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(several, range(1, 4))) == [True] * 3
    assert page.bridge.traffic.bytes_sent - sent < protocol.SHARED_BYTES
    assert page.bridge.traffic.large_bytes == 0
    beginning = arrays["bytes"][:32].tobytes()
    large = [path for path in page.process.profile.rglob("*") if path.is_file() and path.stat().st_size >= SHARING_PAYS_BYTES]
    assert not any(beginning in path.read_bytes() for path in large)


def test_large_replies_are_read_while_files_are_switched_on(page: Page, monkeypatch: pytest.MonkeyPatch):
    """From several threads at once, and one surely after the page stores its replies and before Python has heard that it does."""
    ask, data = page.bridge.request, random_bytes(SHARING_PAYS_BYTES, 0)
    between: list[bool] = []

    def request(message: protocol.Message, *given: object, **more: object) -> protocol.Frame:
        frame = ask(message, *given, **more)  # type: ignore[arg-type]
        if isinstance(message, protocol.UseFiles):
            back = ask(protocol.Echo(), {"x": data}, timeout_s=LIMIT_S, phase="echo").tensors["x"]
            between.append(np.array_equal(back, data) and page.bridge.traffic.file_bytes_received > 0)
        return frame

    monkeypatch.setattr(page.bridge, "request", request)
    with ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: echo(page, {"x": data})["x"], range(6)))
    assert all(np.array_equal(answer, data) for answer in answers)
    assert between == [True]
    assert page.bridge.large_tensors_by == "shared file"


def test_tensors_that_the_page_does_not_find_fail_their_request_alone(page: Page, monkeypatch: pytest.MonkeyPatch):
    """The page says so under the request's number, and answers the next one."""
    data = {"x": random_bytes(SHARING_PAYS_BYTES, 0)}
    echo(page, data)
    with monkeypatch.context() as lost:
        lost.setattr(page.bridge.files, "store", lambda _, headers, size: protocol.Stored(2**28, tuple(headers)))
        with pytest.raises(LaunchError, match="that Python stored 0 are there"):
            echo(page, data)
    assert np.array_equal(echo(page, data)["x"], data["x"])


def test_a_disk_that_fills_up_changes_the_way_and_not_the_answer(page: Page, tmp_path: Path):
    """From then on the WebSocket carries what Python sends, and the metrics say why."""
    data = {"x": random_bytes(SHARING_PAYS_BYTES, 0)}
    echo(page, data)
    files = page.bridge.files
    assert isinstance(files, SharedFiles)
    os.dup2(os.open("/dev/full", os.O_RDWR), files._to_page)
    assert np.array_equal(echo(page, data)["x"], data["x"])
    assert "No space left" in page.bridge.large_tensors_by
    assert page.bridge.traffic.large_bytes >= SHARING_PAYS_BYTES


def test_a_browser_that_dies_in_mid_transfer_is_named():
    """The request ends with the cause; what it held is released."""
    with Page(require("chromium")) as page:
        data = {"x": random_bytes(SHARING_PAYS_BYTES, 0)}
        echo(page, data)
        killed = threading.Event()

        def kill() -> None:
            os.kill(page.process.pid, signal.SIGKILL)
            killed.set()

        threading.Timer(0.05, kill).start()
        with pytest.raises(LaunchError, match="SIGKILL") as raised:
            for _ in range(10_000):
                echo(page, data)
        assert killed.is_set()
        assert raised.value.error_class == "browser_crashed"
        assert page.bridge.files._held == {}  # type: ignore[union-attr]
