"""The dashboard's server: who it answers, what it refuses, and what it says when the store is not what it should be."""

from __future__ import annotations

import hashlib
import io
import json
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import campaign_fixture as fixture
import dashboard_stores
import duckdb
import pyarrow.parquet as pq
import pytest

from ipfs_accelerate_py.console import dashboard as console
from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.report.dashboard import sql
from ipfs_accelerate_py.report.dashboard.page import write
from ipfs_accelerate_py.report.dashboard.server import serving
from ipfs_accelerate_py.report.dashboard.snapshot import Snapshots
from ipfs_accelerate_py.report.dashboard.views import VIEWS
from ipfs_accelerate_py.store.migration import MIGRATIONS, SCHEMA_VERSION, migrate
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store


@pytest.fixture(scope="module")
def url(full_store: Path) -> Iterator[str]:
    with serving(full_store) as address:
        yield address


def get(url: str, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url + path, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def ask(url: str, path: str) -> dict:
    status, content = get(url, path)
    assert status == 200, content
    return json.loads(content)


def told(url: str, path: str) -> str:
    """The sentence of an answer that refuses."""
    status, content = get(url, path)
    assert status == 400
    return json.loads(content)["error"]


def query(text: str) -> str:
    return "api/sql?" + urllib.parse.urlencode({"query": text})


def test_every_address_of_the_openapi_document_answers(url: str) -> None:
    """The document names every route of data, only with GET, and each answers with the columns that it promises."""
    document = ask(url, "openapi.json")
    assert {f"/api/views/{name}" for name in VIEWS} <= set(document["paths"])
    assert all(set(operations) == {"get"} for operations in document["paths"].values())
    cell = ask(url, "api/views/matrix")["rows"][0]["cell"]
    for path, operations in document["paths"].items():
        answer = ask(
            url,
            path.lstrip("/").replace("{cell}", cell)
            + {"/api/sql": "?query=SELECT%201", "/api/recommend": "?model=bert"}.get(path, ""),
        )
        schema = operations["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        if rows := schema.get("properties", {}).get("rows"):
            assert set(rows["items"]["properties"]) == {column["key"] for column in answer["columns"]}


def test_a_browser_keeps_the_library_and_nothing_else(url: str) -> None:
    """Plotly may be kept, under an address with its digest; what holds measurements, and the page itself, may not."""
    page = get(url, "")[1].decode()
    library = re.search(r'src="(assets/plotly[^"]+)"', page)
    assert library and hashlib.sha256(get(url, library[1])[1]).hexdigest().startswith(library[1].partition("?")[2])
    for path in ("", "assets/app.js", library[1], "api/status", "api/views/matrix"):
        with urllib.request.urlopen(url + path, timeout=60) as response:
            kept = response.headers.get_all("Cache-Control")
        assert kept == (["private, max-age=604800, immutable"] if path == library[1] else ["no-store"]), path


def test_filters_in_the_address(url: str) -> None:
    """Repeated values are alternatives; a misspelled one is a sentence."""
    rows = ask(url, "api/views/matrix?platform=webgpu&platform=webnn&model_class=bert")["rows"]
    assert {row["platform"] for row in rows} == {"webgpu", "webnn"} and {row["model_class"] for row in rows} == {"bert"}
    assert told(url, "api/views/matrix?platfrm=cpu").startswith("Unknown filter 'platfrm': did you mean platform")
    assert told(url, "api/views/matrx").startswith("Unknown view 'matrx': did you mean matrix")
    assert told(url, "api/sql?querry=SELECT%201").startswith("Unknown parameter 'querry': did you mean query")
    assert told(url, "api/cells/none").startswith("This store has no cell 'none'")


def test_recommendations(url: str) -> None:
    """As select_optimal_hardware gives them for this store; what makes no sense is its sentence."""
    answer = ask(url, "api/recommend?model=bert&batch_size=1&objective=latency")
    feasible = [row for row in answer["rows"] if row["feasible"]]
    assert feasible and answer["explanation"] and any(row["pareto"] for row in feasible)
    assert all(row["provenance"] in ("measured", "predicted") for row in answer["rows"] if row["latency_ms"] is not None)
    assert "did you mean" in told(url, "api/recommend?model=brt")
    assert told(url, "api/recommend?model=bert&batch_size=two") == "batch_size takes a whole number, not 'two'."
    assert told(url, "api/recommend?model=bert&btch_size=2").startswith("Unknown parameter 'btch_size'")
    assert told(url, "api/recommend").startswith("Name a model")
    for path in ("/etc/config.json", "..", "~", "./model.onnx", "C:%5Cmodel"):
        assert told(url, f"api/recommend?model={path}").startswith("This page takes names of models"), path
    assert "nan" in told(url, "api/recommend?model=bert&max_memory_gb=nan")


def test_exports_of_a_view_and_of_a_query(url: str) -> None:
    """Parquet and CSV hold the rows that the view has under the same filters."""
    shown = ask(url, "api/views/matrix?platform=openvino")["rows"]
    table = pq.read_table(io.BytesIO(get(url, "api/views/matrix?platform=openvino&format=parquet")[1])).to_pylist()
    assert [row["median_ms"] for row in table] == [row["median_ms"] for row in shown]
    assert {row["kind"] for row in table} == {row["kind"] for row in shown}
    lines = get(url, "api/views/matrix?platform=openvino&format=csv")[1].decode().splitlines()
    assert len(lines) == len(shown) + 1
    assert json.loads(get(url, query("SELECT 1 AS one, NULL AS two") + "&format=json")[1]) == [{"one": 1, "two": None}]
    assert told(url, "api/views/matrix?format=xls").startswith("Unknown format 'xls'")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 200),
    ],
)
def test_only_its_own_page_is_answered(url: str, headers: dict[str, str], status: int) -> None:
    """Another host (DNS rebinding) or another site's script gets nothing, not even the name of the store."""
    got, content = get(url, "api/status", **headers)
    assert got == status
    if status == 403:
        assert b"full.duckdb" not in content


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(url: str, method: str) -> None:
    """Every method that writes is refused at every address."""
    for path in ("api/views/matrix", "api/sql", "api/status", ""):
        assert get(url, path, method)[0] == 405


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("DELETE FROM launch", "This console only reads: DELETE is refused"),
        ("UPDATE launch SET status = 'ok'", "UPDATE is refused"),
        ("CREATE TABLE mine AS SELECT 1", "CREATE is refused"),
        ("COPY launch TO '{folder}/out.csv'", "COPY is refused"),
        ("EXPORT DATABASE '{folder}/out'", "EXPORT is refused"),
        ("ATTACH '{folder}/other.duckdb'", "ATTACH is refused"),
        ("INSTALL httpfs", "LOAD is refused"),
        ("SET enable_external_access = true", "SET is refused"),
        ("PRAGMA enable_profiling", "is refused"),
        ("SELECT * FROM read_csv('/etc/passwd')", "reads the store alone"),
        ("SELECT * FROM read_text('{store}')", "reads the store alone"),
        ("SELECT * FROM glob('/*')", "reads the store alone"),
        ("FROM '/etc/passwd'", "does not exist"),
        ("SELECT getenv('HOME')", "does not exist"),
        ("EXPLAIN ANALYZE COPY launch TO '{folder}/out.csv'", ""),
        ("SELECT 1; SELECT 2", "One SQL statement at a time"),
        ("", "One SQL statement at a time"),
        ("SELEC 1", "Parser Error"),
        ("SELECT nowhere FROM launch", "nowhere"),
    ],
)
def test_sql_that_writes_or_reads_files_is_refused(
    url: str, full_store: Path, text: str, sentence: str, tmp_path: Path
) -> None:
    """One sentence; no file is made, and the store stays as it was."""
    before = full_store.read_bytes()
    answer = told(url, query(text.replace("{folder}", str(tmp_path)).replace("{store}", str(full_store))))
    assert sentence in answer and "\n" not in answer
    assert list(tmp_path.iterdir()) == []
    assert full_store.read_bytes() == before


def test_sql_is_limited_in_rows_and_time(url: str, full_store: Path) -> None:
    """More rows than the limit are cut, which is said; a query without end is stopped, and the next one is answered."""
    answer = ask(url, query("SELECT * FROM range(20000)"))
    assert len(answer["rows"]) == sql.ROWS_UP_TO and answer["cut"]
    with Snapshots(full_store) as snapshots:
        with pytest.raises(UserError, match=r"stopped after 0\.3 seconds"):
            sql.ask(
                snapshots.current(),
                "SELECT sum(hash(a.range + b.range)) FROM range(10000000) a, range(10000000) b",
                seconds=0.3,
            )
        assert sql.ask(snapshots.current(), "SELECT count(*) FROM launch").rows[0][0] > 0


def test_results_of_a_running_campaign_appear(tmp_path: Path) -> None:
    """While the page is open a writer is never refused, and what it stored is in the next answer."""
    path = tmp_path / "s.duckdb"
    spec = fixture.spec_of("bert", "torch")
    dashboard_stores.add(path, [fixture.launch(spec, index, 20.0) for index in range(2)], end=False, planned=10)
    with serving(path) as url:
        first = ask(url, "api/views/progress")
        assert [(row["done"], row["remaining"], row["status"]) for row in first["rows"]] == [(2, 8, "unfinished")]
        version = ask(url, "api/status")["version"]
        store = Store.create_or_open(path)
        with store.campaign_lock():
            assert ask(url, "api/status")["campaign_process"] is not None
            campaign = first["rows"][0]["campaign"]
            for place in range(2, 5):
                spool(replace(fixture.launch(spec, place, 20.0), campaign_id=campaign), store.spool_folder)
                done = store.ingest()
                assert (done.added, done.waiting) == (1, 0), "a launch had to wait for a reader"
                assert ask(url, "api/views/progress")["rows"][0]["done"] == place + 1
        assert ask(url, "api/status")["version"] != version
        assert ask(url, "api/status")["launches"] == 5
        assert ask(url, "api/status")["campaign_process"] is None


def test_a_store_that_is_deleted_and_comes_back(tmp_path: Path) -> None:
    """While it is gone the server says so and goes on; when it is there again it is read again."""
    path, away = tmp_path / "s.duckdb", tmp_path / "away.duckdb"
    dashboard_stores.add(path, [fixture.launch(fixture.spec_of("bert", "torch"), 0, 20.0)])
    with serving(path) as url:
        path.rename(away)
        assert "There is no store at" in ask(url, "api/status")["error"]
        assert "There is no store at" in told(url, "api/views/matrix")
        away.rename(path)
        assert ask(url, "api/status")["error"] is None
        assert len(ask(url, "api/views/matrix")["rows"]) == 1
        path.write_bytes(b"no store any more" * 1000)
        assert "is not a DuckDB file" in ask(url, "api/status")["error"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ipfs_accelerate_py.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def refused(*words: str) -> str:
    """What a command that must refuse says: one sentence and status 2."""
    done = run(*words)
    assert done.returncode == 2 and "Traceback" not in done.stderr and not done.stdout, done.stderr
    return " ".join(done.stderr.split())


def test_a_store_that_cannot_be_shown_is_refused_at_the_start(tmp_path: Path, full_store: Path) -> None:
    """Missing, no DuckDB file, damaged, another program's, a newer schema: each its own sentence, from the command and from Python."""
    (tmp_path / "text.duckdb").write_text("not a database")
    other = duckdb.connect(str(tmp_path / "other.duckdb"))
    other.execute("CREATE TABLE mine (x INTEGER)")
    other.close()
    Store.create_or_open(tmp_path / "newer.duckdb")
    newer = duckdb.connect(str(tmp_path / "newer.duckdb"))
    newer.execute("INSERT INTO schema_migration VALUES (999, 'later', now()::TIMESTAMP)")
    newer.close()
    damaged = bytearray(full_store.read_bytes())
    damaged[8192 : len(damaged) // 2] = b"\xff" * (len(damaged) // 2 - 8192)
    (tmp_path / "damaged.duckdb").write_bytes(damaged)
    expected = {
        "none": "There is no store at",
        "text": "is not a DuckDB file",
        "other": "not a store of this program",
        "newer": f"newer than this program's {SCHEMA_VERSION}",
        "damaged": "is damaged",
    }
    for name, sentence in expected.items():
        with pytest.raises(UserError, match=sentence), serving(tmp_path / f"{name}.duckdb"):
            pass
        with pytest.raises(UserError, match=sentence):
            write(tmp_path / f"{name}.duckdb", tmp_path / "page.html")
    assert expected["other"] in refused("dashboard", "--store", str(tmp_path / "other.duckdb"))
    assert not (tmp_path / "page.html").exists()


def test_a_store_of_an_older_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    """The first schema has neither predictions nor probes; every view answers all the same."""
    path = tmp_path / "old.duckdb"
    connection = duckdb.connect(str(path))
    migrate(connection, version=min(MIGRATIONS))
    connection.close()
    with serving(path) as url:
        assert all(ask(url, f"api/views/{name}")["rows"] == [] for name in VIEWS)


def test_a_port_in_use_is_named(full_store: Path) -> None:
    """With the remedy; so is a number that is no port."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"Port {port} is in use" in refused("dashboard", "--store", str(full_store), "--port", str(port))
    with pytest.raises(UserError, match="--port 70000 makes no sense"), serving(full_store, 70000):
        pass


def test_the_command_serves_until_it_is_interrupted(full_store: Path) -> None:
    """It says its address, answers there, and ends at Ctrl-C without a traceback."""
    import signal

    command = [sys.executable, "-u", "-m", "ipfs_accelerate_py.cli", "dashboard", "--store", str(full_store), "--port", "0"]
    command.append("--no-token")
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        line = process.stdout.readline()
        url = next(word for word in line.split() if word.startswith("http://"))
        deadline = time.monotonic() + 60
        while True:
            try:
                assert ask(url, "api/status")["launches"] > 0
                break
            except urllib.error.URLError:
                assert time.monotonic() < deadline
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert "Traceback" not in errors
    finally:
        process.kill()
        process.communicate()


def test_the_file_refuses_what_makes_no_sense(full_store: Path) -> None:
    """A campaign beside --full, and a file that would overwrite the store."""
    for output, campaign, sentence in ((None, "all", "leave out --campaign"), (full_store, None, "would overwrite the store")):
        with pytest.raises(UserError, match=sentence):
            console.write_file(full_store, output, campaign)
