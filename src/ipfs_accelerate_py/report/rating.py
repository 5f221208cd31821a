"""How well a platform runs a model class: the one rule behind the compatibility matrix, with its constants.

A rating rests on measured launches alone, compares only on one machine, within one workload and within one class of device, and
never hides why it is not higher.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

from ..measure.statistics import geometric_mean
from ..spec import PLATFORMS, Target

Launch = Mapping[str, Any]  # a row of matrix.LAUNCHES
Contest = tuple[str, str, str]  # machine, class of device, workload: what may be compared

HIGH, MEDIUM = 2.0, 5.0  # times the fastest of the class of device
RATINGS = ("High", "Medium", "Limited", "Unavailable")
SOFTWARE = "software adapter"
NOT_MEASURED = "not measured"
RULE = (
    f"**High**: every launch ends well with its output check passed, and the median time is within {HIGH:g} times that of the fastest of "
    "its class of device, on the same machine and the same workload (over several workloads: the geometric mean of the ratios of those "
    f"that another target of the class ran as well). **Medium**: within {MEDIUM:g} times. "
    "**Limited**: slower than that, or a launch ended without a result, or part of the graph ran on another provider than the one asked "
    "for (coverage below 100 %), or a precision that was launched gave no checked result, or the adapter is a software one. "
    "**Unavailable**: no launch gave a checked result; the reason stands beside it. "
    "Classes of device: CPU (cpu, wasm; openvino and webnn on the CPU), GPU (cuda, rocm, mps, webgpu; openvino and webnn on a GPU), NPU, "
    "and software adapters, which are a class of their own; the devices of a platform of another package likewise. "
    "Only measured launches of inference count."
)


@dataclass(frozen=True, kw_only=True)
class Rated:
    """``slowdown`` is the geometric mean over workloads of the median over the class's fastest, None without a checked result.
    ``coverage`` is the lowest share of nodes, ``time_coverage`` that of their time, ``read_back`` the most bytes of an iteration; None
    where they are not known."""

    rating: str
    reasons: tuple[str, ...]  # why it is not higher
    device_class: str | None = None
    slowdown: float | None = None
    rivals: int = 0  # other targets of the same class of device, machine and workload
    precisions: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()  # precisions that were asked for and gave no checked result
    workloads: int = 0
    launches_ok: int = 0
    launches: int = 0
    coverage: float | None = None
    time_coverage: float | None = None
    time_unknown: str | None = None  # why there is no share of time
    read_back: int | None = None
    specs: tuple[str, ...] = ()
    launch_ids: tuple[str, ...] = ()


def device_class(launch: Launch) -> str:
    """CPU, GPU, NPU, or a software adapter. An adapter of unknown kind is one where the machine has no GPU."""
    platform = launch["platform"]
    if platform in ("cuda", "rocm", "mps"):
        return "GPU"
    if platform == "webgpu":
        software = launch["software_adapter"]
        return SOFTWARE if software or (software is None and not launch["machine"].get("gpus")) else "GPU"
    if platform not in PLATFORMS:
        return f"device of {platform}"  # of another package: nothing says what it is comparable with
    named = Target(platform=platform, engine=launch["engine"], device=launch["device"]).device_and_threads[0]
    ran = launch["session_device"]
    asked = (ran.get("device_type") if isinstance(ran, Mapping) else None) or named
    return next((kind for kind in ("GPU", "NPU") if asked.upper().startswith(kind)), "CPU")


def medians(launches: Iterable[Launch]) -> dict[tuple[Contest, str], float]:
    """Median of launch medians, ms, by contest and target, of cells whose every launch with a result passed its check."""
    groups: dict[tuple[Contest, str], list[Launch]] = {}
    for launch in launches:
        if launch["status"] == "ok":
            contest = (launch["machine_key"], device_class(launch), launch["workload_hash"])
            groups.setdefault((contest, launch["target_hash"]), []).append(launch)
    return {
        key: median(launch["median_ms"] for launch in group)
        for key, group in groups.items()
        if all(launch["accuracy_passed"] and launch["median_ms"] for launch in group)
    }


def rate(launches: Sequence[Launch], all_medians: Mapping[tuple[Contest, str], float]) -> Rated:
    """Rate launches of one model class on one target (or a platform's several) on one machine, against all that ran there."""
    own = medians(launches)
    targets = {target for _, target in own}
    checked = [launch for launch in launches if launch["status"] == "ok" and _key(launch) in own]
    nothing = Rated(
        rating="Unavailable",
        reasons=(_why_nothing(launches),),
        launches=sum(launch["error_phase"] not in ("plan", "prepare") for launch in launches),
        launch_ids=tuple(launch["launch_id"] for launch in launches),
        specs=tuple(dict.fromkeys(launch["spec_hash"] for launch in checked or launches)),
    )
    if not checked:
        return nothing

    fastest: dict[Contest, tuple[float, str]] = {}
    for (contest, target), value in own.items():
        fastest[contest] = min(fastest.get(contest, (value, target)), (value, target))
    others: dict[Contest, list[float]] = {}
    for (contest, target), value in all_medians.items():
        if contest in fastest and target not in targets:
            others.setdefault(contest, []).append(value)
    # A workload that nothing else of the class ran says nothing of how fast: it would pull the mean towards 1.
    contested = {key: value / min(value, *others[key]) for key, (value, _) in fastest.items() if key in others}
    slowdown = geometric_mean(list(contested.values())) if contested else 1.0
    used = [launch for launch in checked if _key(launch)[1] == fastest[_key(launch)[0]][1]]
    shares = [launch["coverage_share"] for launch in used if launch["coverage_share"] is not None]
    untimed = [launch["time_unknown"] for launch in used if launch["time_unknown"]]
    times = [launch["time_share"] for launch in used if launch["time_share"] is not None]
    reads = [launch["bytes_read_back"] for launch in used if launch["bytes_read_back"] is not None]
    passed = {launch["precision"] for launch in checked}
    lacking = sorted({launch["precision"] for launch in launches} - passed)
    kinds = sorted({contest[1] for contest in fastest})

    limits = []
    if kinds == [SOFTWARE]:
        limits.append("software adapter: the CPU's time")
    began_keys = {_key(launch) for launch in used}
    lost = [launch for launch in launches if launch["status"] != "ok" and _key(launch) in began_keys]
    if lost:
        limits.append(f"{len(lost)} of {len(lost) + len(used)} launches ended without a result: {_why_nothing(lost)}")
    if shares and min(shares) < 1:
        time = f", {_percent(min(times))} of their time" if times else ""
        limits.append(f"only {_percent(min(shares))} of the nodes{time} ran on the provider asked for")
    for name in lacking:
        began = [row for row in launches if row["precision"] == name and row["error_phase"] != "plan"]
        # One that the platform does not offer at all is stated, not held against it: no platform offers all.
        limits += [f"{name}: {_why_nothing(began)}"] if began else []
    if slowdown > HIGH:
        limits.append(f"{slowdown:.2g} times the fastest {kinds[0]} here")
    capped = limits[: len(limits) - (slowdown > HIGH)]
    rating = "Limited" if capped or slowdown > MEDIUM else "Medium" if slowdown > HIGH else "High"
    return replace(
        nothing,
        rating=rating,
        reasons=tuple(limits),
        device_class=", ".join(kinds),
        slowdown=slowdown,
        rivals=max(len(others.get(contest, ())) for contest in fastest),
        precisions=tuple(sorted(passed)),
        lacking=tuple(lacking),
        workloads=len(fastest),
        launches_ok=len(checked),
        coverage=min(shares, default=None),
        time_coverage=min(times, default=None),
        time_unknown=None if times else next(iter(untimed), None),
        read_back=max(reads, default=None),
    )


def better(a: Rated, b: Rated) -> Rated:
    """The higher rating; between equals the one that more launches stand behind. A reason is better than none."""
    return min((a, b), key=lambda rated: (RATINGS.index(rated.rating), rated.reasons == (NOT_MEASURED,), -rated.launches_ok))


def _key(launch: Launch) -> tuple[Contest, str]:
    return (launch["machine_key"], device_class(launch), launch["workload_hash"]), launch["target_hash"]


def _why_nothing(launches: Sequence[Launch]) -> str:
    """The latest reason: what failed, or the check that did not pass."""
    for launch in sorted(launches, key=lambda launch: launch["started_at"], reverse=True):
        if launch["status"] != "ok":
            return f"{launch['error_message'] or launch['error_class'] or launch['status']}"
        if not launch["accuracy_passed"]:
            return f"output check not passed ({launch['accuracy_rule'] or 'not checked'})"
    return NOT_MEASURED


def _percent(share: float) -> str:
    """Never rounded up to 100 %."""
    return f"{int(share * 1000) / 10:g} %"
