"""A search space flattened, counted and put together again, against counts and bounds worked by hand."""

import math

import numpy as np
import pytest

from tuners.space import Leaf, everything, flat, identity, nest, size, unnest

NESTED = {
    "rule": {
        "_type": "choice",
        "_value": [
            "none",
            {
                "_name": "stdp",
                "a_plus": {"_type": "randint", "_value": [0, 3]},
                "w": {"_type": "choice", "_value": [1]},
            },
            {"_name": "mse", "a_plus": {"_type": "choice", "_value": [0.1, 0.2]}},
        ],
    },
    "lr": {"_type": "quniform", "_value": [0, 1, 0.25]},
    "bias": {"_type": "choice", "_value": [True, False]},
}


def test_counts_and_enumeration():
    # (none + 3 stdp + 2 mse) x 5 values of lr x 2
    assert size(NESTED) == 60
    points = [identity(parameters) for parameters in everything(NESTED)]
    assert len(points) == len(set(points)) == 60
    assert identity({"rule": {"_name": "stdp", "a_plus": 2, "w": 1}, "lr": 0.25, "bias": True}) in points
    assert size({"x": {"_type": "uniform", "_value": [0, 1]}}) == math.inf
    assert size({"n": {"_type": "randint", "_value": [0, 10**6]}}) == math.inf  # searched by place, not by index


def test_the_published_spaces_have_their_published_sizes():
    two = {"_type": "choice", "_value": [0, 1]}
    assert size({str(number): two for number in range(8)}) == 256


def test_flat_and_back():
    leaves = flat(NESTED)
    assert [leaf.key for leaf in leaves] == ["rule", "rule/stdp/a_plus", "rule/stdp/w", "rule/mse/a_plus", "lr", "bias"]
    rng = np.random.default_rng(0)
    for parameters in everything(NESTED):
        active = unnest(NESTED, parameters)
        point = {leaf.key: leaf.draw(rng) for leaf in leaves} | active
        assert nest(NESTED, point) == parameters
    named = unnest(NESTED, {"rule": "stdp", "a_plus": 2, "w": 1, "lr": 0.5, "bias": False})  # as a journal has them
    assert named == {"rule": "stdp", "rule/stdp/a_plus": 2, "rule/stdp/w": 1, "lr": 0.5, "bias": False}


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"rule": "none", "lr": 0.5}, "bias is missing"),
        ({"rule": "x", "lr": 0, "bias": True}, "rule = 'x' is not among"),
    ],
)
def test_what_does_not_fit(parameters, message):
    with pytest.raises(ValueError, match=message):
        unnest(NESTED, parameters)


@pytest.mark.parametrize(
    "kind, args, expected",  # at the quartiles of [0, 1]; None: not checked
    [
        ("uniform", (2, 4), (2.5, 3.0, 3.5)),
        ("loguniform", (0.01, 100), (0.1, 1.0, 10.0)),
        ("quniform", (0, 2, 0.5), (0.5, 1.0, 1.5)),
        ("qloguniform", (1, 10_000, 10), (10, 100, 1000)),
        ("randint", (0, 4), (1, 2, 3)),
        ("randint", (0, 100_000), (25_000, 50_000, 75_000)),
        ("normal", (1, 2), (1 - 2 * 0.67449, 1, 1 + 2 * 0.67449)),
        ("lognormal", (0, 1), (math.exp(-0.67449), 1, math.exp(0.67449))),
        ("qnormal", (0, 10, 1), (-7, 0, 7)),
        ("qlognormal", (3, 1, 5), (10, 20, 40)),
        ("choice", (8, 2, 4, 1), (2, 4, 8)),  # numbers are put in order
        ("choice", ("b", "a", "d", "c"), ("a", "d", "c")),  # other things keep theirs
    ],
)
def test_values_at_the_quartiles(kind, args, expected):
    leaf = Leaf("x", kind, args)
    got = tuple(leaf.value(unit) for unit in (0.25, 0.5, 0.75))
    assert got == (expected if isinstance(expected[0], str) else pytest.approx(expected, rel=1e-4))


@pytest.mark.parametrize(
    "kind, args",
    [
        ("uniform", (2, 4)),
        ("loguniform", (0.01, 100)),
        ("randint", (5, 9)),
        ("randint", (0, 5000)),
        ("quniform", (0, 2, 0.5)),
        ("normal", (0, 3)),
        ("lognormal", (0, 3)),
        ("choice", (1, 2, 3)),
        ("choice", ("a", True, None)),
    ],
)
def test_values_lie_in_the_range_and_find_back(kind, args):
    leaf, rng = Leaf("x", kind, args), np.random.default_rng(0)
    for value in [leaf.value(0.0), leaf.value(1.0), *(leaf.draw(rng) for _ in range(200))]:
        assert type(value) in (int, float, str, bool, type(None))
        if "normal" not in kind and kind != "choice":
            assert args[0] <= value <= args[1] - (kind == "randint")
        back = leaf.value(leaf.unit(value))
        assert back == (pytest.approx(value, rel=1e-6, abs=1e-6) if isinstance(value, float) else value)


def test_quniform_ends_where_its_range_ends():
    assert Leaf("x", "quniform", (0.1, 1, 0.25)).values == (0.1, 0.25, 0.5, 0.75, 1)
