"""Verdicts on simulated launches, whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ipfs_accelerate_py.measure.compare import aa_check, compare, compare_all, compare_matrix

RESAMPLES = 500


def simulated(generator: np.random.Generator, launches: int, between: float, scale: float = 1.0, iterations: int = 100):
    """Launches whose levels differ by ``between`` (a coefficient of variation), each with 2 % between its iterations."""
    levels = scale * generator.lognormal(0, between, launches)
    return [level * generator.lognormal(0, 0.02, iterations) for level in levels]


@pytest.mark.parametrize("between", [0.05, 0.10])
def test_false_positives_are_rare_where_pooled_iterations_would_be_wrong_most_of_the_time(between):
    """5 v 5 equal specs: at most 5 % are called faster or slower. A rank test on pooled iterations says so of more than half."""
    generator = np.random.default_rng(7)
    wrong = pooled_wrong = 0
    for trial in range(200):
        a, b = simulated(generator, 5, between), simulated(generator, 5, between)
        wrong += compare(a, b, seed=trial, resamples=RESAMPLES).verdict in ("faster", "slower")
        pooled_wrong += stats.mannwhitneyu(np.concatenate(a), np.concatenate(b)).pvalue < 0.05
    assert wrong / 200 <= 0.05
    assert pooled_wrong / 200 > 0.5


def test_a_large_difference_is_found_and_mirrors():
    """Twice as fast is faster with a ratio near one half; the other way round it is slower."""
    generator = np.random.default_rng(0)
    a, b = simulated(generator, 5, 0.05, scale=0.5), simulated(generator, 5, 0.05)
    forth, back = compare(a, b), compare(b, a)
    assert (forth.verdict, back.verdict) == ("faster", "slower")
    assert forth.interval.contains(forth.ratio) and forth.ratio == pytest.approx(0.5, rel=0.15)
    assert forth.ratio * back.ratio == pytest.approx(1)
    assert forth.text == "faster" and forth.more_launches is None


def test_a_significant_but_small_difference_is_equal():
    """2 % apart with almost no spread has the least p-value that 5 v 5 can have, and is of no consequence."""
    generator = np.random.default_rng(0)
    verdict = compare(simulated(generator, 5, 0.001, scale=1.02), simulated(generator, 5, 0.001))
    assert verdict.p_value < 0.01
    assert verdict.verdict == "equal"


def test_launches_never_decide_when_they_are_too_few():
    """3 v 3 cannot, however far apart they are: the rank test's floor is 0.1; one more launch each would."""
    generator = np.random.default_rng(0)
    few = compare(simulated(generator, 3, 0.01, scale=0.1), simulated(generator, 3, 0.01))
    assert few.verdict == "not decided"
    assert few.text == "not decided, 1 more launches would"
    single = compare([[1.0, 1.0]], [[2.0, 2.0]])
    assert (single.verdict, single.interval, single.text) == ("not decided", None, "not decided")


@pytest.mark.parametrize(("scale", "between"), [(0.8, 0.10), (1.0, 0.03)])
def test_the_number_of_further_launches_is_worth_its_name(scale, between):
    """Of undecided comparisons that are repeated with the median number of launches asked for, most are decided."""
    generator = np.random.default_rng(3)
    first = [compare(simulated(generator, 5, between, scale), simulated(generator, 5, between)) for _ in range(40)]
    asked = [comparison.more_launches for comparison in first if comparison.verdict == "not decided"]
    assert asked
    launches = 5 + int(np.median(asked))
    again = [
        compare(simulated(generator, launches, between, scale), simulated(generator, launches, between), resamples=RESAMPLES)
        for _ in range(40)
    ]
    assert np.mean([comparison.verdict != "not decided" for comparison in again]) >= 0.6


def test_a_family_of_comparisons_is_adjusted_together():
    """One clear difference among nine of none is decided alone at 5 v 5, and not beside the nine: the floor is 0.079 then."""
    generator = np.random.default_rng(5)
    clear = (simulated(generator, 5, 0.01, scale=0.5), simulated(generator, 5, 0.01))
    same = {f"same {n}": (simulated(generator, 5, 0.2), simulated(generator, 5, 0.2)) for n in range(9)}
    assert compare(*clear).verdict == "faster"
    together = compare_all({"clear": clear, **same})
    assert together["clear"].p_value < 0.05 < together["clear"].adjusted_p
    assert together["clear"].verdict == "not decided"
    assert together["clear"].more_launches >= 1


def test_a_matrix_has_each_pair_once():
    """Three specs give three pairs, in the order given, each against its own."""
    generator = np.random.default_rng(6)
    launches = {name: simulated(generator, 6, 0.01, scale) for name, scale in (("a", 1), ("b", 2), ("c", 4))}
    matrix = compare_matrix(launches)
    assert {pair: comparison.verdict for pair, comparison in matrix.items()} == {
        ("a", "b"): "faster",
        ("a", "c"): "faster",
        ("b", "c"): "faster",
    }


def test_the_aa_check_of_like_launches_is_within_five_percent():
    """Launches of one spec against themselves, averaged over ten machines, are rarely told apart; and the check is seeded."""
    generator = np.random.default_rng(8)
    machines = [simulated(generator, 20, 0.08, iterations=30) for _ in range(10)]
    checks = [aa_check(launches, 40, seed=1, per_side=5, resamples=RESAMPLES) for launches in machines]
    assert np.mean([check.rate for check in checks]) <= 0.05
    assert checks[0] == aa_check(machines[0], 40, seed=1, per_side=5, resamples=RESAMPLES)


def test_the_aa_check_can_fail():
    """Where every second launch is twice as slow, no split is interleaved fairly by chance: some are told apart."""
    generator = np.random.default_rng(9)
    uneven = [simulated(generator, 1, 0.001, scale)[0] for scale in (1, 2) * 5]
    assert aa_check(uneven, 200).positives > 0
    with pytest.raises(ValueError, match="pairs"):
        aa_check(uneven[:3])


def test_a_clock_too_coarse_for_a_ratio_is_said():
    """Times of 0 have no ratio."""
    with pytest.raises(ValueError, match="clock"):
        compare([[0, 0]] * 5, [[1, 1]] * 5)
