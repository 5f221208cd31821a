"""Parts of a model in different places: only where that wins beyond doubt, or where nothing else fits; against hand calculations."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ipfs_accelerate_py.errors import UserError
from ipfs_accelerate_py.graph import count, describe
from ipfs_accelerate_py.graph.parts import boundary_bytes, parts_of
from ipfs_accelerate_py.predict import Interval
from ipfs_accelerate_py.predict.ceilings import Ceilings
from ipfs_accelerate_py.predict.predictor import Predictor
from ipfs_accelerate_py.recommend import parts
from ipfs_accelerate_py.recommend.places import Place
from ipfs_accelerate_py.recommend.request import Request
from ipfs_accelerate_py.recommend.select import select

GPU = Place(platform="cuda", engine="torch", description="Test GPU", memory_bytes=8_000_000_000)


@pytest.fixture
def by_part(known):
    """Milliseconds of a whole model by platform, and of its parts by (part, platform)."""

    class ByPart(known):
        def __init__(self, ms, of_parts, spread=0.01):
            super().__init__(ms, spread, regime="new model")
            self.of_parts = of_parts

        def predict(self, description, **where):
            if "part" not in where:
                return super().predict(description, **where)
            value = self.of_parts.get((where["part"], where["platform"]))
            if value is None:
                raise UserError(f"Nothing is known of {where['platform']}.")
            whole = known({where["platform"]: 1.0}, regime=self.regime).predict(description, **where)
            return replace(whole, latency_ms=Interval(value, value * (1 - self.spread), value * (1 + self.spread)))

    return ByPart


def choose(knowledge, places, model="whisper", size="small", **asked):
    request = Request(model=model, **{"precision": "float32", **asked}).checked()
    return select(describe(model, size), request, knowledge, own=places)


OF_PARTS = {
    ("encoder", "cpu"): 80.0,
    ("decoder", "cpu"): 20.0,
    ("encoder", "openvino"): 30.0,
    ("decoder", "openvino"): 70.0,
}


def test_two_places_that_each_are_better_at_a_part(by_part, places):
    """Whole 100 ms in both; the encoder at 30 in one, the decoder at 20 in the other: 50 ms, and the copy of whisper's cross-attention:
    1500 positions x 384 numbers x keys and values x 4 layers x 4 bytes = 18.4 MB, through memory at 10 GB/s twice: 3.69 ms."""
    found = choose(by_part({"cpu": 100.0, "openvino": 100.0}, OF_PARTS), places[:2])
    first = found.primary_recommendation
    copied_ms = 2 * 1500 * 384 * 2 * 4 * 4 / 1e10 * 1e3
    assert first.label == "encoder on openvino and decoder on cpu · torch, float32"
    assert first.latency_ms.value == pytest.approx(50 + copied_ms)
    assert first.latency_ms.low == pytest.approx(0.99 * 50 + copied_ms)
    assert first.provenance == "predicted" and first.source == "new model"
    assert found.measure_next == () and "encoder on openvino" in str(found)
    told = json.loads(json.dumps(found.to_dict()))["primary_recommendation"]["parts"]
    assert [(each["part"], each["platform"]) for each in told] == [("encoder", "openvino"), ("decoder", "cpu")]
    assert len(found.all_scores) == 3  # the placements that are not the best are not listed


def test_no_parts_where_intervals_overlap(by_part, places):
    """With intervals of 40 % the 54 ms may be 75, and the 100 ms may be 60: nothing is offered."""
    found = choose(by_part({"cpu": 100.0, "openvino": 100.0}, OF_PARTS, spread=0.4), places[:2])
    assert found.primary_recommendation.parts == () and len(found.all_scores) == 2


def test_no_parts_where_the_copy_eats_the_gain(by_part, places):
    """One ms less in two places is less than the 3.7 ms that the copy takes."""
    of_parts = {**OF_PARTS, ("decoder", "openvino"): 21.0}
    found = choose(by_part({"cpu": 100.0, "openvino": 51.0}, of_parts), places[:2])
    assert found.primary_recommendation.parts == ()


def test_a_model_of_one_graph_has_no_parts(by_part, places):
    """CLIP is exported as one graph, so its towers stay together."""
    assert parts_of(count(describe("clip", "small"))) == {}
    assert (
        choose(by_part({"cpu": 100.0, "openvino": 100.0}, OF_PARTS), places[:2], model="clip").primary_recommendation.parts
        == ()
    )


def test_the_only_placement_that_fits(by_part, places):
    """llava-7b at float16 needs 14.9 GB: too much for a GPU of 13 GB and a host of 14.5 GB. Its decoder fits the host, its vision tower the
    GPU, whatever the objective is."""
    knowledge = by_part({"cuda": 50.0, "cpu": 900.0}, {("vision", "cuda"): 5.0, ("decoder", "cpu"): 800.0})
    knowledge.ceilings = lambda place: Ceilings(
        "probe", "x", {"float32": ((1.0, 1e11),)}, ((1.0, 1e10),), copy_to_device=5e9, copy_from_device=4e9
    )
    host = Place(platform="cpu", engine="torch", description="Test CPU", memory_bytes=14_500_000_000)
    found = choose(
        knowledge, [replace(GPU, memory_bytes=13_000_000_000), host], "llava", "7b", precision="float16", objective="memory"
    )
    first = found.primary_recommendation
    assert [(part.name, part.place.platform) for part in first.parts] == [("vision", "cuda"), ("decoder", "cpu")]
    size = 576 * 4096 * 2  # image tokens x width x bytes
    assert first.latency_ms.value == pytest.approx(805 + 1e3 * size * (1 / 4e9 + 1 / 1e10))


def test_places_that_share_the_hosts_memory_share_its_limit(by_part, places):
    """T5 needs 0.65 and 0.62 GB whole; its parts 0.44 and 0.56, which is each below 0.6 GB, and above it together."""
    with pytest.raises(UserError, match=r"Nothing meets max_memory_gb=0\.6"):
        choose(by_part({"cpu": 1.0, "openvino": 1.0}, OF_PARTS), places[:2], model="t5", max_memory_gb=0.6)


def test_a_rate_that_was_not_measured_is_not_made_up(places):
    """A GPU whose copies no probe timed, and a processor without a probe, give no time of a copy."""
    probed = Ceilings("probe", "x", {"float32": ((1.0, 1e11),)}, ((1.0, 2e10),))
    sheet = replace(probed, source="datasheet")
    assert parts.copy_s(10**6, (places[0], probed), (places[1], probed)) == pytest.approx(1e-4)
    assert parts.copy_s(10**6, (places[0], probed), (GPU, probed)) is None
    assert parts.copy_s(10**6, (places[0], sheet), (places[1], probed)) is None
    assert parts.copy_s(10**6, (places[0], probed), (GPU, replace(probed, copy_to_device=1e9))) == pytest.approx(1.05e-3)


@pytest.mark.parametrize(("name", "size"), [("t5", "small"), ("whisper", "small"), ("llava", "tiny"), ("llava_next", "tiny")])
def test_parts_add_up_to_the_model(name, size):
    """FLOPs and kernels of the parts are those of the model; so are their weights, but for T5's table of embeddings, which both hold; and
    on one device their predicted times add up to the whole."""
    description = describe(name, size)
    whole = count(description)
    found = parts_of(whole)
    assert list(found)[1] == "decoder" and boundary_bytes(whole) > 0
    assert sum(part.flops for part in found.values()) == whole.flops
    assert sum(part.kernels for part in found.values()) == whole.kernels
    twice = 4 * description.vocabulary * description.hidden_size if name == "t5" else 0
    assert sum(part.weights_bytes for part in found.values()) == whole.weights_bytes + twice
    predictor, where = Predictor.from_stores(), {"platform": "openvino", "batch_size": 3}
    together = predictor.predict(description, **where).latency_ms.value
    apart = sum(predictor.predict(description, part=part, **where).latency_ms.value for part in found)
    assert apart == pytest.approx(together, rel=1e-3)
