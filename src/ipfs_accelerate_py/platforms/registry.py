"""The platforms that are installed, by the entry point group ``ipfs_accelerate_py.platforms``."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from ..errors import UnavailableError, nearest
from ..spec import PLATFORMS, Workload
from .base import Available, OpenOptions, Platform, Session, Unavailable
from .extras import guarded

GROUP = "ipfs_accelerate_py.platforms"


class BrokenPlatform(Platform):
    """Stands for an entry point whose import failed, so that one bad plug-in takes nothing else down."""

    name = "broken"
    engines = ("unknown",)

    def __init__(self, entry_point: EntryPoint, error: Exception) -> None:
        self.reason = f"{entry_point.value} does not import: {type(error).__name__}: {error}."
        package = entry_point.dist.name if entry_point.dist else entry_point.module.partition(".")[0]
        self.remedy = f"pip install --force-reinstall {package}"

    def probe(self) -> Unavailable:
        return Unavailable(self.reason, self.remedy)

    def unsupported(self, workload: Workload, engine: str) -> str:
        return self.reason

    def open(self, workload: Workload, device: str, options: OpenOptions) -> Session:
        raise UnavailableError(self.reason, self.remedy)


def platforms() -> dict[str, Platform]:
    """Every registered platform by name. Heavy packages are not imported: a platform does that when it is probed or opened."""
    return {name: _load(entry_point) for name, entry_point in _entry_points().items()}


def platform(name: str) -> Platform:
    """The platform of this name, or a UserError with the nearest names."""
    found = _entry_points()
    if name not in found:
        raise nearest(name, found, "platform")
    return _load(found[name])


def probe(name: str) -> Available | Unavailable:
    """What the platform of this name says of itself just now. One that breaks the contract and raises becomes Unavailable."""
    return guarded(lambda found: found.probe())(platform(name))


def platform_names() -> tuple[str, ...]:
    """Our own in their usual order, then those of other packages."""
    return tuple(_entry_points())


def probe_all() -> dict[str, Available | Unavailable]:
    return {name: probe(name) for name in _entry_points()}


def _entry_points() -> dict[str, EntryPoint]:
    """By name: our own in their usual order, then those of others."""
    found = {entry_point.name: entry_point for entry_point in entry_points(group=GROUP)}
    return {
        name: found[name] for name in (*(known for known in PLATFORMS if known in found), *sorted(set(found) - set(PLATFORMS)))
    }


def _load(entry_point: EntryPoint) -> Platform:
    try:
        return entry_point.load()()
    except Exception as error:  # noqa: BLE001 - a plug-in of others fails in any way; its probe gives the reason
        return BrokenPlatform(entry_point, error)
