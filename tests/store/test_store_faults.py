"""Kills, crowds, damage and full disks, each by doing it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from store_launches import SPEC, make_launch

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.store import migration, queries
from ipfs_accelerate_py.store.connection import StoreBusyError, connect
from ipfs_accelerate_py.store.spool import spool, spool_path
from ipfs_accelerate_py.store.writer import Store

HELPERS = f"""
import os, sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from store_launches import make_launch
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store
store = Store.create_or_open(Path(sys.argv[1]))
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process with ``store`` open; its first line of output has been read, so it is at work."""
    process = subprocess.Popen(
        [sys.executable, "-c", HELPERS + code, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stderr
    if not process.stdout.readline():
        pytest.fail(process.stderr.read())
    return process


def end(process: subprocess.Popen[str]) -> str:
    """What the process printed after its first line, once it ended well."""
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_killed_at_any_moment_nothing_is_lost_or_doubled(store: Store, begin) -> None:
    """A campaign that is killed while it spools and ingests, and resumed each time, ends with every launch exactly once."""
    count = 20
    begin(store, launches=count)
    code = f"""
print("ready", flush=True)
with store.campaign_lock():
    campaign = store.resumable_campaign("request")
    done = {{index for _, index in campaign.done}}
    for index in range({count}):
        if index not in done:
            spool(make_launch(campaign.id, index), store.spool_folder)
            store.ingest()
    store.finish_campaign(campaign.id)
"""
    generator = random.Random(0)
    kills = 0
    for _ in range(8):
        process = start(code, store.path)
        time.sleep(generator.uniform(0, 0.4))
        if process.poll() is None:
            kill(process)
            kills += 1
        # What is there is readable at once, and whole.
        found = queries.records(store.path)
        assert all(len(record.samples_ns) == 3 and record.accuracy for record in found)
    if store.resumable_campaign("request"):
        end(start(code, store.path))
    assert kills > 0
    assert sorted(record.launch_index for record in queries.records(store.path)) == list(range(count))
    assert [row["status"] for row in queries.campaigns(store.path)] == ["finished"]
    assert list(store.spool_folder.glob("*.parquet*")) == []


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is of POSIX")
def test_killed_while_it_is_made_a_store_is_whole_or_not_there(tmp_path: Path) -> None:
    """The first command may be killed as well; the next one makes the store."""
    path = tmp_path / "new.duckdb"
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
        code = "from pathlib import Path; import sys; from ipfs_accelerate_py.store.writer import Store; print(1, flush=True)\n"
        code += "Store.create_or_open(Path(sys.argv[1]))"
        process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
        assert process.stdout and process.stdout.readline()
        time.sleep(delay)
        kill(process)
        Store.create_or_open(path)
        assert queries.campaigns(path) == []
        path.unlink()


def test_two_writers_at_once_store_each_launch_once(store: Store, begin) -> None:
    """Two processes that ingest the same spool and a third that fills it: nothing is lost, nothing counted twice."""
    campaign = begin(store)
    count = 20
    writer = """
print("ready", flush=True)
added = 0
deadline = time.monotonic() + 60
while not (store.path.with_name("stop").exists() and not list(store.spool_folder.glob("*.parquet"))):
    added += store.ingest().added
    assert time.monotonic() < deadline
print(added)
"""
    writers = [start(writer, store.path) for _ in range(2)]
    for index in range(count):
        spool(make_launch(campaign, index), store.spool_folder)
    store.path.with_name("stop").touch()
    assert sum(int(end(process)) for process in writers) == count
    assert sorted(record.launch_index for record in queries.records(store.path)) == list(range(count))


def test_a_second_campaign_is_told_who_has_the_store(store: Store) -> None:
    """The message names the process and the store; when the holder is killed, the lock is free."""
    holder = start('with store.campaign_lock():\n    print("ready", flush=True); time.sleep(100)', store.path)
    try:
        with (
            pytest.raises(UserError, match=rf"already running on the store .*s\.duckdb \(process {holder.pid}\): wait"),
            store.campaign_lock(),
        ):
            pytest.fail("two campaigns on one store")
        Store.create_or_open(store.path)  # reading and ingesting need no campaign lock
    finally:
        kill(holder)
    with store.campaign_lock():
        pass


def test_campaign_lock_is_free_again_after_an_error(store: Store) -> None:
    """A campaign that fails gives the store back."""
    with pytest.raises(ZeroDivisionError), store.campaign_lock():
        raise ZeroDivisionError
    with store.campaign_lock():
        pass


def test_readers_see_whole_launches_while_a_campaign_writes(store: Store, begin) -> None:
    """A reader that reads again and again never fails, and never sees a launch vanish or half of one."""
    campaign = begin(store)
    code = """
from ipfs_accelerate_py.store import queries
print("ready", flush=True)
seen = 0
while not store.path.with_name("stop").exists():
    rows = queries.records(store.path)
    assert len(rows) >= seen and all(len(row.samples_ns) == 3 and row.accuracy for row in rows)
    seen = len(rows)
    time.sleep(0.01)
print(seen)
"""
    reader = start(code, store.path)
    for index in range(8):
        spool(make_launch(campaign, index), store.spool_folder)
        store.ingest(patience_s=20)
    store.path.with_name("stop").touch()
    assert 0 <= int(end(reader)) <= 8
    assert len(queries.records(store.path)) == 8


def test_a_reader_that_stays_makes_launches_wait_and_loses_none(store: Store, begin) -> None:
    """While another process keeps the file open, spooled launches wait; what must have the file says who has it."""
    campaign = begin(store)
    code = "import duckdb\nc = duckdb.connect(str(store.path), read_only=True); print('ready', flush=True); time.sleep(100)"
    reader = start(code, store.path)
    try:
        spool(make_launch(campaign), store.spool_folder)
        assert store.ingest(patience_s=0.1).waiting == 1
        busy = rf"s\.duckdb is in use by process {reader.pid}"
        with pytest.raises(StoreBusyError, match=busy), connect(store.path, read_only=False, patience_s=0.1):
            pytest.fail("a writer beside a reader")
    finally:
        kill(reader)
    assert store.ingest().added == 1


def test_damaged_spool_files_are_set_aside_and_the_others_ingested(store: Store, begin) -> None:
    """Half a file, no Parquet, a flipped byte, a foreign campaign: each is kept under another name and named with its reason."""
    campaign = begin(store)
    whole = [spool(make_launch(campaign, index), store.spool_folder) for index in range(5)]
    whole[1].write_bytes(whole[1].read_bytes()[:1000])
    whole[2].write_text("hello")
    flipped = bytearray(whole[3].read_bytes())
    flipped[40] ^= 0xFF
    whole[3].write_bytes(flipped)
    spool(make_launch("another-campaign"), store.spool_folder)
    ingested = store.ingest()
    assert ingested.added == 2
    reasons = dict(ingested.set_aside)
    assert len(reasons) == 4 and all(path.name.endswith(".bad") and path.exists() for path in reasons)
    assert sum("damaged" in reason for reason in reasons.values()) == 3
    assert sum("the store refuses it" in reason and "campaign_id" in reason for reason in reasons.values()) == 1
    assert sorted(record.launch_index for record in queries.records(store.path)) == [0, 4]


def test_a_launch_that_is_there_is_not_stored_again(store: Store, begin) -> None:
    """The same launch, and another run of the same spec and index, are known; the first one stays."""
    campaign = begin(store)
    first = make_launch(campaign)
    for record in (first, first, make_launch(campaign)):
        spool(record, store.spool_folder)
        last = store.ingest()
    assert (last.added, last.known) == (0, 1)
    assert [record.launch_id for record in queries.records(store.path)] == [first.launch_id]


def test_hostile_names_are_only_text(store: Store, begin) -> None:
    """SQL in a name, a message or a filter is stored and compared, never run."""
    hostile = "x'); DROP TABLE launch; --"
    spec = type(SPEC).from_dict(SPEC.to_dict() | {"target": {"platform": hostile, "engine": hostile, "browser": hostile}})
    spool(make_launch(begin(store), spec=spec, error_message=hostile), store.spool_folder)
    assert store.ingest().added == 1
    (row,) = queries.launches(store.path, platform=hostile)
    assert (row["browser"], row["error_message"]) == (hostile, hostile)
    with pytest.raises(UserError, match="Unknown column"):
        queries.launches(store.path, **{"1=1; --": "x"})
    assert store.resumable_campaign(hostile) is None


# What is not a store


def test_a_file_that_is_no_database_is_left_alone(tmp_path: Path) -> None:
    """Text, and an empty file, are named as what they are and not overwritten."""
    path = tmp_path / "notes.txt"
    for content in ("hello " * 1000, ""):
        path.write_text(content)
        for use in (Store.create_or_open, queries.campaigns):
            with pytest.raises(UserError, match=r"notes\.txt is not a DuckDB file, and was left as it is"):
                use(path)
        assert path.read_text() == content


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    """A DuckDB file without our schema gets none."""
    path = tmp_path / "theirs.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE launch (rocket VARCHAR)")
    for use in (Store.create_or_open, queries.campaigns):
        with pytest.raises(UserError, match="not a store of this program"):
            use(path)
    with duckdb.connect(str(path)) as connection:
        assert connection.execute("SELECT table_name FROM duckdb_tables()").fetchall() == [("launch",)]


def test_a_newer_schema_is_left_alone(store: Store) -> None:
    """Both versions are named, and what to do."""
    with connect(store.path, read_only=False) as connection:
        connection.execute("INSERT INTO schema_migration VALUES (99, '0099_future.sql', now()::TIMESTAMP)")
    for use in (Store.create_or_open, queries.campaigns):
        with pytest.raises(
            UserError, match=rf"schema 99, newer than this program's {migration.SCHEMA_VERSION};.*pip install -U"
        ):
            use(store.path)


@pytest.mark.parametrize("use", [Store.create_or_open, queries.campaigns])
def test_an_older_schema_is_brought_up_to_date(tmp_path: Path, use) -> None:
    """A store of the first schema is read and written by this program."""
    path = tmp_path / "old.duckdb"
    with duckdb.connect(str(path)) as connection:
        migration.migrate(connection, version=1)
    use(path)
    assert queries.run_sql(path, "SELECT max(version) FROM schema_migration")[1] == [(migration.SCHEMA_VERSION,)]
    assert queries.launches(path) == []


def test_a_migration_that_fails_leaves_the_store_as_it_was(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a migration is none."""
    latest = migration.SCHEMA_VERSION
    bad = {**migration.MIGRATIONS, latest + 1: ("bad.sql", "CREATE TABLE half (a INTEGER); SELECT no_such_column;")}
    monkeypatch.setattr(migration, "MIGRATIONS", bad)
    with pytest.raises(duckdb.BinderException), connect(store.path, read_only=False) as connection:
        migration.migrate(connection, version=latest + 1)
    tables = queries.run_sql(store.path, "SELECT table_name FROM duckdb_tables()")[1]
    assert ("half",) not in tables and ("launch",) in tables
    assert queries.run_sql(store.path, "SELECT max(version) FROM schema_migration")[1] == [(latest,)]


def test_a_damaged_store_is_said_to_be_damaged(store: Store, begin) -> None:
    """Bytes flipped anywhere and a file cut short give a sentence, or do no harm; never a traceback."""
    campaign = begin(store)
    for index in range(5):
        spool(make_launch(campaign, index), store.spool_folder)
    store.ingest()
    sound = store.path.read_bytes()
    expected = queries.records(store.path)
    generator = random.Random(1)
    said = 0
    for attempt in range(16):
        damaged = bytearray(sound[: len(sound) // 2] if attempt == 0 else sound)
        for _ in range(64 if attempt else 0):
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        store.path.write_bytes(damaged)
        try:
            assert queries.records(store.path) == expected
        except UserError as error:
            assert "is damaged" in str(error) or "not a DuckDB file" in str(error) or "newer DuckDB" in str(error)
            said += 1
        assert store.path.read_bytes() == damaged
    assert said > 8


def test_missing_store_and_missing_folder_say_what_to_do(tmp_path: Path) -> None:
    """Reading what is not there, and writing where nothing can be."""
    with pytest.raises(UserError, match=r"There is no store at .*make one with 'ipfs-accelerate bench'"):
        queries.campaigns(tmp_path / "none.duckdb")
    with pytest.raises(UserError, match=r"The folder .*/a/b does not exist"):
        Store.create_or_open(tmp_path / "a" / "b" / "s.duckdb")
    assert Store.create_or_open(tmp_path / "results" / "s.duckdb").path.exists()
    with pytest.raises(UserError, match=r"The folder .*/gone does not exist"):
        spool(make_launch("c"), tmp_path / "gone" / "spool")
    with pytest.raises(UserError, match="not a DuckDB file"):
        Store.create_or_open(tmp_path)


# Disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MB of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if mounted.returncode:
        pytest.skip(f"mounting a tmpfs is not permitted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path, leave: int) -> Path:
    """Leave ``leave`` bytes free."""
    filler = folder / "filler"
    status = os.statvfs(folder)
    filler.write_bytes(b"x" * max(0, status.f_bavail * status.f_frsize - leave))
    return filler


def test_a_full_disk_while_spooling_keeps_the_file_that_was_there(small_disk: Path, begin) -> None:
    """The message has the path and the bytes free; the older file is whole and nothing half-written stays."""
    store = Store.create_or_open(small_disk / "s.duckdb")
    campaign = begin(store)
    spool(make_launch(campaign, 0), store.spool_folder)
    filler = fill(small_disk, 8192)
    large = make_launch(campaign, 0, samples_ns=tuple(random.Random(0).randbytes(4000)))
    with pytest.raises(UserError, match=r"The disk is full: .*\.parquet was not written \(\d+ bytes free\).*--resume"):
        spool(large, store.spool_folder)
    assert list(store.spool_folder.iterdir()) == [spool_path(store.spool_folder, campaign, SPEC.hash, 0)]
    filler.unlink()
    assert store.ingest().added == 1
    assert queries.records(store.path)[0].samples_ns[0] == 1_000_000


@pytest.mark.parametrize("leave", [0, 4096, 16384, 65536, 262144])
def test_a_full_disk_while_ingesting_loses_nothing(small_disk: Path, begin, leave: int) -> None:
    """However much is free, a launch is in the store or in the spool, and the message says which file had no room."""
    store = Store.create_or_open(small_disk / "s.duckdb")
    campaign = begin(store)
    generator = random.Random(leave)
    for index in range(3):
        samples = tuple(generator.getrandbits(60) for _ in range(30_000))
        spool(make_launch(campaign, index, samples_ns=samples), store.spool_folder)
    filler = fill(small_disk, leave)
    with pytest.raises(UserError, match=r"The disk is full: .*s\.duckdb could not be written \(\d+ bytes free\)"):
        store.ingest()
    assert len(list(store.spool_folder.glob("*.parquet"))) == 3
    filler.unlink()
    assert store.ingest().added == 3
    assert [len(record.samples_ns) for record in queries.records(store.path)] == [30_000] * 3


def test_a_read_only_disk_is_read_and_not_written(small_disk: Path, begin, tmp_path: Path) -> None:
    """Queries work on a store that cannot be written; a campaign is told so before it starts."""
    store = Store.create_or_open(small_disk / "s.duckdb")
    begin(store)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    assert len(queries.campaigns(store.path)) == 1
    for path in (store.path, small_disk / "new.duckdb"):
        with pytest.raises(UserError, match="cannot be written"):
            Store.create_or_open(path)
    with pytest.raises(UserError, match="could not be written"):
        spool(make_launch("c"), store.spool_folder)
