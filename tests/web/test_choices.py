"""Which optimisations are on: by what is asked for, by what launches measured, or by the default; no browser runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipfs_accelerate_py.measure.record import LaunchRecord
from ipfs_accelerate_py.models.registry import model_classes
from ipfs_accelerate_py.spec import Spec, Target, Workload
from ipfs_accelerate_py.store.exchange import export
from ipfs_accelerate_py.store.spool import spool
from ipfs_accelerate_py.store.writer import Store
from ipfs_accelerate_py.web import measured_effects
from ipfs_accelerate_py.web.choices import DEFAULTS, KEYS, Place, choose, choose_here, switches_of
from ipfs_accelerate_py.web.configuration import Configuration
from ipfs_accelerate_py.web.measured_effects import PAGE, PLATFORM, MeasuredEffect, known_effects, store_path
from ipfs_accelerate_py.web.switches import Switches

DEVICE = {"vendor": "acme", "architecture": "one", "device": "", "description": "", "software_adapter": False}
HERE = Place("webgpu", "firefox", DEVICE, "float32", kept=False)
WHISPER, BERT = (model_classes()[name] for name in ("whisper", "bert"))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of effects is this test's own, and nothing else is known."""
    monkeypatch.setenv("IPFS_ACCELERATE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(measured_effects, "reference_folders", list)


def fill(path: Path, on: Switches, off_ms: list[float], on_ms: list[float], model: str = "whisper", **more: Any) -> None:
    """A campaign with ``Switches()`` and ``on``, one launch for each time: of ``ready``, of the first inference and of a steady one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    store = Store.create_or_open(path)
    campaign = store.begin_campaign({}, request_hash=str(on), command="benchmark", seed=0)
    size = "small"
    work = Workload(
        model_class=model, size=size, weights="synthetic", origin="synthetic:0", task="any", batch_size=1, precision="float32"
    )
    spec = Spec(workload=work, target=Target(platform="webgpu", engine="onnxruntime-web", browser="firefox"))
    sides = [(Switches(), ms) for ms in off_ms] + [(on, ms) for ms in on_ms]
    for index, (switches, ms) in enumerate(sides):
        record = LaunchRecord.begin(campaign, spec, index, index)
        facts = {
            "case": "a case",
            "switches": vars(switches),
            "device": DEVICE,
            "browser": {"version": "9"},
            "runner": PLATFORM,
            **more,
        }
        done = replace(
            record,
            status="ok",
            machine={"machine_id": "here"},
            environment={},
            phases_ns={"load": round(ms * 1e6), "first_inference": round(ms * 1e6)},
            samples_ns=(round(ms * 1e6),) * 3,
            facts=facts,
        )
        spool(done, store.spool_folder)
    store.ingest()
    store.finish_campaign(campaign)


def chosen(config: Configuration, model: Any = WHISPER, place: Place = HERE) -> dict[str, Any]:
    return {name: choice.on for name, choice in choose(config, model, place, known_effects()).items()}


def test_without_measurements_the_defaults_hold_and_say_so():
    """Each switch has its documented default, its reason, and no invented effect."""
    assert known_effects() == ()
    choices = choose(Configuration(), WHISPER, HERE, ())
    assert {name: (choice.on, choice.because) for name, choice in choices.items()} == DEFAULTS
    assert {choice.to_dict()["measured_effect"] for choice in choices.values()} == {"not measured here"}
    assert choices.keys() == KEYS.keys() == vars(Switches()).keys()


@pytest.mark.parametrize(("on_ms", "on"), [([40.0, 41.0, 42.0, 41.0], True), ([140.0, 141.0, 142.0, 141.0], False)])
def test_a_measurement_on_this_adapter_decides(on_ms: list[float], on: bool):
    """Faster with its whole interval: on; slower: off, against the default; with the ratio of medians as the reason."""
    for switches in (Switches(gpu_audio=True), Switches(parallel_loading=True), Switches(readback="woken")):
        fill(store_path(), switches, [100.0, 101.0, 102.0, 101.0], on_ms)
    choices = choose(Configuration(), WHISPER, HERE, known_effects())
    assert (choices["gpu_audio"].on, choices["parallel_loading"].on, choices["readback"].on) == (
        on,
        on,
        "woken" if on else "plain",
    )
    told = choices["gpu_audio"].to_dict()
    assert ("to pay" if on else "to cost more than it brings") in told["because"]
    (effect,) = told["measured_effect"]
    assert effect["ratio"] == pytest.approx(on_ms[1] / 101.0, rel=0.02)
    assert (effect["launches"], effect["provenance"], effect["browser_version"]) == ((4, 4), "measured", "9")


def test_an_interval_around_1_leaves_the_default_and_says_so():
    """Neither faster nor slower for certain: on stays on and off stays off, with the measurement beside it."""
    for switches in (Switches(gpu_audio=True), Switches(parallel_loading=True)):
        fill(store_path(), switches, [100.0, 120.0, 90.0], [80.0, 130.0, 105.0])
    choices = choose(Configuration(), WHISPER, HERE, known_effects())
    assert (choices["gpu_audio"].on, choices["parallel_loading"].on) == (False, True)
    assert all("did not decide: 1.05×" in choices[name].because for name in ("gpu_audio", "parallel_loading"))


def test_a_front_end_in_javascript_is_not_what_the_platform_would_do_instead():
    """The page alone, against JavaScript: told, and the default stays, as the platform's other way is Python's."""
    fill(store_path(), Switches(gpu_audio=True), [100.0, 101.0, 102.0], [10.0, 11.0, 12.0], runner=PAGE)
    choice = choose(Configuration(), WHISPER, HERE, known_effects())["gpu_audio"]
    assert (choice.on, choice.because) == DEFAULTS["gpu_audio"]
    assert [effect.runner for effect in choice.effects] == [PAGE]


def test_what_decides_is_of_this_browser_adapter_and_link():
    """Another browser's, another adapter's and a slow link's measurements decide nothing here."""
    slow = [140.0, 141.0, 142.0]
    fill(store_path(), Switches(parallel_loading=True), [100.0, 101.0, 102.0], slow, link="shaped")
    other = replace(HERE, device={**DEVICE, "architecture": "two"})
    fill(store_path(), Switches(precompilation=True), [100.0, 101.0, 102.0], slow)
    assert chosen(Configuration())["parallel_loading"] is True
    assert chosen(Configuration())["precompilation"] is False
    assert chosen(Configuration(), place=other)["precompilation"] is True
    assert chosen(Configuration(), place=replace(HERE, page="chromium"))["precompilation"] is True


def test_a_class_s_own_measurement_goes_before_others():
    """bert was slower and whisper faster: each gets its own; a class that was not measured gets both, and one that lost is enough."""
    fill(store_path(), Switches(precompilation=True), [100.0, 101.0, 102.0], [50.0, 51.0, 52.0], "whisper")
    fill(store_path(), Switches(precompilation=True), [100.0, 101.0, 102.0], [150.0, 151.0, 152.0], "bert")
    assert [chosen(Configuration(), model_classes()[name])["precompilation"] for name in ("whisper", "bert", "vit")] == [
        True,
        False,
        False,
    ]


def test_too_few_launches_decide_nothing_but_are_told():
    """One launch a side has no interval: the default stays, and the ratio is there to read."""
    fill(store_path(), Switches(precompilation=True), [100.0], [300.0])
    choice = choose(Configuration(), WHISPER, HERE, known_effects())["precompilation"]
    assert choice.on is True
    assert [(effect.ratio, effect.low, effect.high) for effect in choice.effects] == [(3.0, None, None)]


def test_a_store_that_cannot_be_read_stops_nothing_and_is_told():
    """A damaged file: the defaults, each with the reason."""
    store_path().parent.mkdir(parents=True)
    store_path().write_text("this is no store")
    for name, choice in choose_here(Configuration(), WHISPER, HERE).items():
        assert choice.on == DEFAULTS[name][0]
        assert "could not be read" in choice.because and "not a DuckDB file" in choice.because
    wasm = choose_here(Configuration(), WHISPER, replace(HERE, platform="wasm"))
    assert all("could not be read" not in choice.because for choice in wasm.values())


def test_several_switches_at_once_say_nothing_of_one():
    """All on against all off is an effect of its own."""
    everything = Switches(precompilation=True, gpu_audio=True, parallel_loading=True, readback="auto")
    fill(store_path(), everything, [100.0, 101.0], [300.0, 301.0])
    (effect,) = known_effects()
    assert effect.switch == "precompilation+gpu_audio+parallel_loading+readback"
    assert all(not choice.effects for choice in choose(Configuration(), WHISPER, HERE, known_effects()).values())


def test_what_is_asked_for_goes_before_measurements_and_what_cannot_be_before_both():
    """True stays on though it was slower; wasm has no shaders, bert no audio, a fresh profile keeps nothing."""
    fill(store_path(), Switches(precompilation=True), [100.0, 101.0], [300.0, 301.0])
    asked = Configuration(
        use_shader_precompilation=True,
        use_compute_shaders=True,
        readback="woken",
        keep_profile=True,
        enable_parallel_loading=False,
    )
    place = replace(HERE, kept=True)
    found = choose(asked, WHISPER, place, known_effects())
    assert switches_of(found) == Switches(True, True, False, "woken", True)
    assert found["precompilation"].because == "asked for by use_shader_precompilation"
    assert chosen(asked, place=replace(place, platform="wasm")) == vars(Switches(keep=True))
    assert chosen(asked, BERT, place)["gpu_audio"] is False
    assert chosen(asked, place=HERE)["keep"] is False


def test_float16_features_are_decided_by_no_measurement_of_float32_ones():
    """What pays at float32 stays off at float16, unless it is asked for."""
    fill(store_path(), Switches(gpu_audio=True), [100.0, 101.0, 102.0], [10.0, 11.0, 12.0])
    half = replace(HERE, precision="float16")
    assert chosen(Configuration())["gpu_audio"] is True
    assert chosen(Configuration(), place=half)["gpu_audio"] is False
    assert chosen(Configuration(use_compute_shaders=True), place=half)["gpu_audio"] is True


def test_exports_of_the_reference_count_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder of Parquet files gives the effects that its store gives."""
    fill(tmp_path / "s.duckdb", Switches(gpu_audio=True), [100.0, 101.0], [50.0, 51.0])
    folder = export(tmp_path / "s.duckdb", tmp_path / "web-optimizations-somewhere")
    monkeypatch.setattr(measured_effects, "reference_folders", lambda: [folder, tmp_path / "another"])
    (effect,) = known_effects()
    assert isinstance(effect, MeasuredEffect)
    assert (effect.switch, effect.ratio, effect.pays) == ("gpu_audio", pytest.approx(50.5 / 100.5), True)
