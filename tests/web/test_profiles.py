"""Kept browser profiles: one per browser version and model, bounded, locked, cleared by name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ipfs_accelerate_py.cli import app
from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.web import profiles
from ipfs_accelerate_py.web.browsers import Browser

BROWSER = Browser("chromium", "Chromium", "chromium", "156.0.1", Path("/nowhere/chromium"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's own is touched."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path))


def made(model: str, size: int, used: float) -> str:
    """A kept profile of that size, last used then."""
    with profiles.kept_profile(BROWSER, model) as kept:
        (kept.profile / "cache").write_bytes(bytes(size))
        kept.remember_port(1234)
    os.utime(kept.folder, (used, used))
    return kept.name


def test_a_profile_is_found_again_with_its_port():
    """The second start of the same browser and model has the same folder and port; another version has another."""
    with profiles.kept_profile(BROWSER, "bert") as first:
        assert (first.fresh, first.port) == (True, 0)
        first.remember_port(4321)
    with profiles.kept_profile(BROWSER, "bert") as second:
        assert (second.folder, second.fresh, second.port) == (first.folder, False, 4321)
    newer = Browser("chromium", "Chromium", "chromium", "157.0.0", BROWSER.executable)
    with profiles.kept_profile(newer, "bert") as other:
        assert other.folder != first.folder


def test_two_at_once_is_refused():
    """Two browsers in one profile would destroy it."""
    with profiles.kept_profile(BROWSER, "bert"):
        with pytest.raises(UserError, match="in use by process"), profiles.kept_profile(BROWSER, "bert"):
            pass
        with profiles.kept_profile(BROWSER, "vit"):
            pass


def test_the_oldest_go_when_there_is_too_much():
    """Least recently used first, until what is left fits; the one in use stays."""
    old, middle, new = made("a", 400, 1.0), made("b", 400, 2.0), made("c", 400, 3.0)
    assert [entry.name for entry in profiles.entries()] == [new, middle, old]
    assert profiles.trim(900) == [old]
    with profiles.kept_profile(BROWSER, "b"):
        assert profiles.trim(0) == [new]
    assert profiles.trim(0) == [middle]


def test_cache_lists_and_clears():
    """``cache list`` shows each profile with its size; ``cache clear`` removes one or all; a wrong name is a sentence."""
    one, other = made("a", 4000, 1.0), made("b", 10, 2.0)
    listed = CliRunner().invoke(app, ["cache", "list", "--json"])
    assert listed.exit_code == 0
    assert one in listed.stdout
    assert CliRunner().invoke(app, ["cache", "clear", one]).exit_code == 0
    assert [entry.name for entry in profiles.entries()] == [other]
    wrong = CliRunner().invoke(app, ["cache", "clear", "nothing"])
    assert isinstance(wrong.exception, UserError)
    assert CliRunner().invoke(app, ["cache", "clear"]).exit_code == 0
    assert profiles.entries() == []
    assert "no kept profile" in CliRunner().invoke(app, ["cache", "list"]).stdout
