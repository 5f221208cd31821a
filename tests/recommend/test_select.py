"""The choice: feasibility before the objective, reasons, limits that nothing meets, and every mistake as one sentence."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.graph import describe
from ipfs_accelerate_py.recommend.places import Place
from ipfs_accelerate_py.recommend.prices import find, read
from ipfs_accelerate_py.recommend.request import Request
from ipfs_accelerate_py.recommend.select import select

BERT = describe("bert", "small")
TIMES = {"torch": 30.0, "openvino": 20.0, "firefox": 90.0}


def labels(scores):
    return [f"{score.place.platform} {score.precision}" for score in scores]


def choose(known, places, model="bert", times=None, prices=(), spread=0.01, others=(), **asked):
    request = Request(model=model, **{"precision": "float32", **asked}).checked()
    knowledge = known(times or TIMES, spread, others)
    return select(describe(model), request, knowledge, prices, own=places)


def test_the_fastest_by_latency(known, places):
    """The order is that of the times; the first is the fastest, the others are fallbacks."""
    found = choose(known, places)
    assert found.primary_recommendation.place.platform == "openvino"
    assert labels(found.fallback_options) == ["cpu float32", "wasm float32"]
    assert found.prediction_source == "measured" and found.measure_next == ()
    assert found.parameter_count == BERT.parameters and found.model_family == "embedding"


def test_unsupported_is_ruled_out_with_the_platforms_reason(known, places):
    """At bfloat16 only torch is left, however fast the others would be."""
    found = choose(known, places, precision="bfloat16")
    assert found.compatible_hardware == ["cpu · torch"]
    reasons = {score.place.platform: score.reason for score in found.all_scores if not score.feasible}
    assert "bfloat16 needs torch" in reasons["openvino"] and "bfloat16 needs torch" in reasons["wasm"]


def test_memory_rules_out_before_speed_counts(known, places):
    """llama-7b at float16 needs 2 x 13.5 GB in OpenVINO and 13.9 in torch: of 16 GB only torch is feasible, at int8 none of torch."""
    at_16 = choose(known, places, model="llama-7b", precision="float16")
    assert at_16.primary_recommendation.place.engine == "torch"
    assert any("of" in score.reason or "has 16.0 GB" in score.reason for score in at_16.all_scores if not score.feasible)
    at_8 = choose(known, places, model="llama-7b", precision="int8")
    assert at_8.primary_recommendation.place.engine == "openvino"


def test_narrow_precisions_only_where_nothing_wider_fits(known, places):
    """With 16 GB llama-7b is planned in 16 bits; with 10 GB in 4 bits, and the explanation warns."""
    assert choose(known, places, model="llama-7b", precision=None).primary_recommendation.precision in ("float16", "bfloat16")
    narrow = choose(known, places, model="llama-7b", precision=None, max_memory_gb=10)
    assert narrow.primary_recommendation.precision == "int4"
    assert any("rounded to 8 or 4 bits" in sentence for sentence in narrow.explanation)


def test_webassembly_has_an_end(known):
    """llama-7b's weights are beyond 4 GB of WebAssembly even where the machine has room."""
    wide = Place(platform="wasm", engine="onnxruntime-web", browser="firefox", memory_bytes=10**12)
    with pytest.raises(UserError, match=r"WebAssembly addresses 4\.3 GB"):
        choose(known, [wide], model="llama-7b")


def test_webgpu_buffers_have_a_limit(known):
    """The embedding of llama-7b, 524 MB at float32, is above what an unknown browser must allow, and below what Chromium allows."""
    webgpu = Place(platform="webgpu", engine="onnxruntime-web", browser="safari", memory_bytes=10**12)
    with pytest.raises(UserError, match="largest weight, 524 MB, is above the 134 MB"):
        choose(known, [webgpu], model="llama-7b")
    assert choose(known, [replace(webgpu, browser="chromium")], model="llama-7b", times={"webgpu": 5.0}).compatible_hardware


def test_a_software_adapter_is_never_first(known, places):
    """Even when its figures are the best: it is no GPU."""
    software = Place(
        platform="webgpu", engine="onnxruntime-web", browser="chromium", memory_bytes=10**11, software_adapter=True
    )
    found = choose(known, [*places, software], times={**TIMES, "chromium": 1.0})
    assert found.primary_recommendation.place.platform == "openvino"
    assert not next(score for score in found.all_scores if score.place == software).pareto


def test_overlapping_intervals_are_undecided(known, places):
    """With intervals of half their value, torch may be as fast as OpenVINO: the answer says so, and which runs would decide."""
    found = choose(known, places, spread=0.5)
    assert any("not decided" in sentence for sentence in found.explanation)
    assert any("--platforms openvino" in command for command in found.measure_next)
    assert any("--platforms cpu --engines torch" in command for command in found.measure_next)
    assert not any("firefox" in command for command in found.measure_next)


def test_a_limit_that_nothing_meets_names_the_nearest(known, places):
    """By how much, for the latency and for the memory."""
    with pytest.raises(UserError, match=r"latency_slo_ms=15: the nearest is openvino, float32 with 20\.0 ms, 5\.0 ms more"):
        choose(known, places, latency_slo_ms=15)
    with pytest.raises(UserError, match=r"max_memory_gb=0\.2: the nearest is openvino, float32 with 0\.3 GB, 0\.1 GB more"):
        choose(known, places, max_memory_gb=0.2)


def test_a_batch_that_cannot_fit(known, places):
    """One sentence with what it needs and what there is."""
    with pytest.raises(UserError, match=r"fits nowhere here: .* GB of 16\.0 GB; name larger hardware"):
        choose(known, places, batch_size=1_000_000)


def test_a_limit_on_latency_under_another_objective(known, places):
    """Least memory among those that are fast enough; the slow browser is out."""
    found = choose(known, places, objective="throughput", latency_slo_ms=50)
    assert {score.place.platform for score in found.all_scores if score.feasible} == {"openvino", "cpu"}
    near = choose(known, places, spread=0.4, latency_slo_ms=25)
    assert any("may miss the limit" in sentence for sentence in near.explanation)


def test_the_pareto_set(known, places):
    """Of two with equal memory only the faster is in it."""
    assert labels(choose(known, places).pareto) == ["openvino float32"]


def test_energy_is_not_invented(known, places):
    """No counter: the objective cannot be compared, and the figure is None with the reason."""
    with pytest.raises(UserError, match="energy cannot be compared: no counter"):
        choose(known, places, objective="energy")
    assert choose(known, places).primary_recommendation.unknown["energy"] == "no counter"


def test_cost_by_the_users_table(known, places, tmp_path):
    """The cheaper place wins though it is slower: at 3.6 an hour and 30 ms an item, a million items cost 30. The latest price counts."""
    file = tmp_path / "prices.csv"
    file.write_text(
        "hardware,price_per_hour,currency,date,source\n"
        "cpu,3.6,EUR,2026-11-01,our invoice\nopenvino,360,EUR,2026-11-01,our invoice\nopenvino,3.6,EUR,2026-10-01,older\n"
    )
    prices = read(file)
    found = choose(known, places, objective="cost", prices=prices)
    assert found.primary_recommendation.place.platform == "cpu"
    assert found.primary_recommendation.cost_per_million is not None
    assert found.primary_recommendation.cost_per_million.value == pytest.approx(3.6 / 3600 * 0.030 * 1e6)
    assert find(prices, places[1]).per_hour == 360, "the latest of two"
    assert "There is no price of wasm" in next(s for s in found.all_scores if s.place.platform == "wasm").unknown["cost"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hardware,price_per_hour\ncpu,1\n", "has no column currency, date, source"),
        ("hardware,price_per_hour,currency,date,source\ncpu,1,EUR,2026-11-01,\n", "line 2: source is empty"),
        ("hardware,price_per_hour,currency,date,source\ncpu,-1,EUR,2026-11-01,x\n", "must be more than 0, not -1"),
        ("hardware,price_per_hour,currency,date,source\ncpu,nan,EUR,2026-11-01,x\n", "must be more than 0, not nan"),
        ("hardware,price_per_hour,currency,date,source\ncpu,1,EUR,November,x\n", "line 2: Invalid isoformat"),
    ],
)
def test_bad_price_tables(tmp_path, text, sentence):
    """A price without date and source, or none at all, is refused with its line."""
    (tmp_path / "prices.csv").write_text(text)
    with pytest.raises(UserError, match=sentence):
        read(tmp_path / "prices.csv")


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"mode": "trainin"}, "Unknown mode 'trainin': did you mean training"),
        ({"objective": "speed"}, "Unknown objective 'speed': known: cost"),
        ({"precision": "fp16"}, "Unknown precision 'fp16': did you mean float16"),
        ({"family": "textgeneration"}, "did you mean text_generation"),
        ({"gpu_count": 0}, "gpu_count must be a whole number of at least 1, not 0"),
        ({"batch_size": 1.5}, r"batch_size must be a whole number of at least 1, not 1\.5"),
        ({"max_memory_gb": -1}, "max_memory_gb must be more than 0, not -1"),
        ({"latency_slo_ms": float("nan")}, "latency_slo_ms must be more than 0, not nan"),
        ({"gpu_count": 2}, "Only training is spread"),
        ({"mode": "training", "precision": "int8"}, "Training runs in float32, float16, bfloat16, not in int8"),
        ({"mode": "training", "distributed": True}, "needs gpu_count of 2 or more"),
        ({"available_hardware": "cpu"}, r"is a list: \['cpu'\]"),
        ({"available_hardware": []}, "available_hardware is empty"),
    ],
)
def test_mistakes_are_one_sentence(asked, sentence):
    """Each names what is wrong and what would do."""
    with pytest.raises(UserError, match=sentence):
        Request(model="bert", **asked).checked()


def test_hardware_by_name(known, places):
    """A platform, a browser, or words of a device known from elsewhere; a typing mistake gets the nearest names."""
    h200 = Place(platform="cuda", engine="torch", machine="m", description="NVIDIA H200", memory_bytes=10**11, known="measured")
    asked = {"others": (h200,), "times": {**TIMES, "cuda": 2.0}}
    assert choose(known, places, available_hardware=["firefox"], **asked).compatible_hardware == ["wasm · firefox"]
    assert choose(known, places, available_hardware=["h200", "cpu"], **asked).compatible_hardware[0].startswith("cuda")
    with pytest.raises(UserError, match="Unknown hardware 'opnvino': did you mean openvino"):
        choose(known, places, available_hardware=["opnvino"], **asked)
    with pytest.raises(UserError, match="There is no rocm on this machine"):
        choose(known, places, available_hardware=["rocm"], **asked)


def test_what_is_not_known_stays_unknown(known, places):
    """A feasible place without a time is listed with its reason and never first."""
    found = choose(known, places, times={"torch": 30.0})
    assert found.primary_recommendation.place.engine == "torch"
    last = found.all_scores[-1]
    assert last.feasible and last.latency_ms is None and "Nothing is known" in last.unknown["latency"]
    assert "not known" in str(found)


def test_print_and_json(known, places):
    """The table shows the choice, its interval and what is infeasible; the JSON holds every candidate and is valid."""
    found = choose(known, places, precision=None)
    text = str(found)
    assert text.startswith("bert small") or text.startswith("bert")
    assert "openvino, float32" in text and "[19.8, 20.2]" in text and "Not feasible" in text
    value = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert len(value["all_scores"]) == 9
    assert value["primary_recommendation"]["latency_ms"]["value"] == 20.0
    assert value["distributed_strategy"] is None


def test_training_over_four_gpus(known, gpus):
    """llama-7b in 40 GB each: copies do not fit, a sharded strategy is taken, a step is predicted and the script is written."""
    found = choose(known, gpus, "llama-7b", {"cuda": 500.0}, mode="training", gpu_count=4, precision="bfloat16", batch_size=2)
    layout = found.primary_recommendation.layout
    assert layout is not None and layout.devices == 4 and found.distributed_strategy not in ("ddp", "single")
    assert found.memory_per_gpu is not None and found.memory_per_gpu["peak_bytes"] <= 40e9
    assert found.per_gpu_batch_size * found.gradient_accumulation_steps * layout.data == 2 * 4
    assert found.mixed_precision == "bf16" and found.cpu_offload is False
    assert found.primary_recommendation.provenance == "predicted"
    assert found.configuration or any("No ready configuration" in sentence for sentence in found.explanation)


def test_a_small_model_is_simply_copied(known, gpus):
    """bert fits many times over: with communication hidden, the simplest strategy is as good as any."""
    found = choose(known, gpus, "bert", {"cuda": 5000.0}, mode="training", gpu_count=4, precision="float32", batch_size=8)
    assert found.distributed_strategy == "ddp" and found.activation_checkpointing is False
    assert found.configuration is not None and "DistributedDataParallel" in found.configuration


def test_offload_only_where_nothing_else_fits(known, gpus):
    """t5-11b in 20 GB: model states alone are 45 GB a device."""
    wide = [replace(gpus[0], machine="m", known="datasheet")]
    tight = {"mode": "training", "gpu_count": 4, "precision": "bfloat16", "max_memory_gb": 20}
    found = choose(known, wide, "t5-11b", {"cuda": 500.0}, available_hardware=["cuda"], **tight)
    assert found.cpu_offload is True
    assert any("in the host's memory" in sentence for sentence in found.explanation)


def test_training_that_fits_nowhere(known, gpus):
    """The leanest layout is named with what it needs."""
    with pytest.raises(UserError, match=r"Nothing meets max_memory_gb=1: the nearest is cuda .* GB more than the limit"):
        choose(known, gpus, "llama-7b", {"cuda": 500.0}, mode="training", gpu_count=4, precision="bfloat16", max_memory_gb=1)


def test_gpus_that_are_not_there(known, places, gpus):
    """A CPU is no GPU, and four GPUs are not eight."""
    with pytest.raises(UserError, match="asks for GPUs, and cpu is none"):
        choose(known, places, "bert", mode="training", gpu_count=4, batch_size=2)
    with pytest.raises(UserError, match="inference only, not training"):
        choose(known, places[2:], "bert", mode="training", batch_size=2)
    with pytest.raises(UserError, match="This machine has 4 of the 8 GPUs"):
        choose(known, gpus, "bert", mode="training", gpu_count=8, batch_size=2)


def test_memory_is_marked_as_predicted_also_beside_a_measured_time():
    """A candidate whose time was measured has a memory by formula: the mark is in the dictionary and in the table's head."""
    from automated_hardware_selection import select_optimal_hardware

    selection = select_optimal_hardware("bert", available_hardware=["h200"])
    assert any(score["provenance"] == "measured" for score in selection.to_dict()["all_scores"])
    assert all(score["memory_provenance"] == "predicted" for score in selection.to_dict()["all_scores"])
    assert "predicted GB" in str(selection)
