"""Verdicts on simulated launches, whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from ipfs_accelerate_py.measure.compare import aa_check, compare, compare_all, compare_matrix
from ipfs_accelerate_py.measure.statistics import least_p_value, rank_test

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


def test_pairs_that_no_order_of_their_launches_decides_are_no_part_of_the_family():
    """By hand: 5 v 5 wholly apart has p = 2/252, which Benjamini and Hochberg multiply by the size of the family. With two overlapping
    pairs of 5 v 5 that is 3 * 2/252 = 0.024; with thirty pairs of 1 v 5 and 3 v 3 (p at least 2/6 and 2/20) counted as well it would be
    33 * 2/252 = 0.26 and nothing would be decided. They are left out by their numbers, however far apart their times are."""
    generator = np.random.default_rng(5)

    def spread(level: float, launches: int = 5) -> list[list[float]]:
        return [[level * (1 + 0.01 * launch)] * 5 for launch in range(launches)]

    pairs = {"clear": (spread(1.0), spread(2.0)), "same": (spread(1.0), spread(1.001)), "like": (spread(3.0), spread(3.003))}
    few = {f"{n}": (spread(1.0 + n, launches), spread(90.0, other)) for n in range(15) for launches, other in [(1, 5)]}
    few |= {f"{n} of 3": (spread(1.0 + n, 3), spread(90.0, 3)) for n in range(15)}
    for order in (list(pairs) + list(few), list(few)[::-1] + list(pairs), generator.permutation([*pairs, *few]).tolist()):
        found = compare_all({key: {**pairs, **few}[key] for key in order})
        assert found["clear"].p_value == pytest.approx(2 / 252)
        assert found["clear"].adjusted_p == pytest.approx(3 * 2 / 252)
        assert found["clear"].verdict == "faster"
        assert {found[key].adjusted_p for key in few} == {None}
        assert {found[key].verdict for key in few} == {"not decided"}
    assert {key: found[key].adjusted_p for key in pairs} == {key: compare_all(pairs)[key].adjusted_p for key in pairs}


@pytest.mark.parametrize("launches", [(1, 1), (1, 39), (2, 7), (2, 8), (3, 3), (3, 5), (4, 4), (5, 5)])
def test_the_least_p_value_is_that_of_launches_wholly_apart(launches):
    """Which side of 5 % it lies on says whether a pair belongs to the family: 2 v 7 and 3 v 3 do not, 2 v 8, 3 v 5 and 4 v 4 do."""
    m, n = launches
    assert least_p_value(m, n) == pytest.approx(rank_test(range(m), range(100, 100 + n)))
    assert (least_p_value(m, n) <= 0.05) == (launches in [(2, 8), (3, 5), (4, 4), (5, 5), (1, 39)])
    times = [
        [[level * (1 + 0.01 * launch)] * 3 for launch in range(count)]
        for level, count in zip((1.0, 9.0), launches, strict=True)
    ]
    assert (compare(*times).adjusted_p is not None) == (least_p_value(m, n) <= 0.05 and min(m, n) > 1)


def test_too_few_launches_can_still_be_equal():
    """The interval says so, not the rank test: three launches a side, within a thousandth of one another."""
    close = [[[10.0 + 0.001 * launch] * 5 for launch in range(3)] for _ in range(2)]
    found = compare(*close)
    assert (found.verdict, found.adjusted_p) == ("equal", None)


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
