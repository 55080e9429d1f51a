"""Encodings of images and events against spikes counted by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from models.encoders import encode


def params(**changes):
    return SimpleNamespace(**{"coding": "thermometer", "scan": "row", "steps_per_row": 4, "tail_steps": 0} | changes)


def spikes_of(intensity, coding, k=4, rng=None):
    """Spikes of a one-pixel image."""
    x = np.array([[[intensity]]], np.uint8)
    return encode(x, params(coding=coding, steps_per_row=k), rng)[0, :, 0].tolist()


@pytest.mark.parametrize(
    ("coding", "intensity", "expected"),
    [
        ("thermometer", 0, [0, 0, 0, 0]),
        ("thermometer", 31, [0, 0, 0, 0]),  # 31/255 * 4 = 0.49
        ("thermometer", 32, [1, 0, 0, 0]),  # 0.502
        ("thermometer", 128, [1, 1, 0, 0]),
        ("thermometer", 255, [1, 1, 1, 1]),
        ("rate", 0, [0, 0, 0, 0]),
        ("rate", 64, [1, 0, 0, 0]),
        ("rate", 128, [1, 0, 1, 0]),
        ("rate", 255, [1, 1, 1, 1]),
        ("latency", 0, [0, 0, 0, 0]),
        ("latency", 64, [0, 0, 0, 1]),
        ("latency", 192, [0, 1, 0, 0]),
        ("latency", 255, [1, 0, 0, 0]),
    ],
)
def test_one_pixel(coding, intensity, expected):
    assert spikes_of(intensity, coding) == expected


@pytest.mark.parametrize("k", [1, 3, 7, 16])
def test_rate_and_thermometer_spike_equally_often(k):
    for intensity in range(0, 256, 5):
        count = int(np.floor(intensity / 255 * k + 0.5))
        assert sum(spikes_of(intensity, "rate", k)) == sum(spikes_of(intensity, "thermometer", k)) == count
        assert sum(spikes_of(intensity, "latency", k)) == (count > 0)


def test_rows_and_columns_are_shown_in_turn_and_a_tail_follows():
    image = np.array([[[255, 0], [255, 0]]], np.uint8)  # left column on
    rows = encode(image, params(steps_per_row=1, tail_steps=1))
    both = encode(image, params(steps_per_row=2, tail_steps=1, scan="both"))
    assert rows.tolist() == [[[1, 0], [1, 0], [0, 0]]]
    block0, block1 = [1, 0, 1, 1], [1, 0, 0, 0]  # row 0 and column 0, row 1 and column 1
    assert both.tolist() == [[block0, block0, block1, block1, [0, 0, 0, 0]]]
    assert both.dtype == np.uint8


def test_poisson_draws_with_the_probability_of_the_intensity():
    images = np.array([0, 51, 255], np.uint8).repeat(3000).reshape(-1, 1, 1)  # p = 0, 0.2, 1
    first = encode(images, params(coding="poisson"), np.random.default_rng(0)).reshape(3, -1)
    assert first[0].sum() == 0 and first[2].all()
    assert first[1].mean() == pytest.approx(0.2, abs=0.015)  # 4 standard errors of 12,000 draws
    assert (encode(images, params(coding="poisson"), np.random.default_rng(0)).reshape(3, -1) == first).all()
    assert (encode(images, params(coding="poisson"), np.random.default_rng(1)).reshape(3, -1) != first).any()


def test_events_pass_clipped():
    events = np.array([[[0, 1, 3]]], np.uint8)
    assert encode(events, params(), events=True).tolist() == [[[0, 1, 1]]]


@pytest.mark.parametrize(
    ("x", "changes", "message"),
    [
        (np.zeros((2, 3)), {}, r"not float64 of shape \(2, 3\)"),
        (np.zeros((2, 4, 4, 3), np.uint8), {}, r"not uint8 of shape \(2, 4, 4, 3\)"),
        (np.zeros((2, 4, 5), np.uint8), {"scan": "both"}, "square images, not 4 x 5; choose scan row"),
        (np.zeros((2, 4, 4), np.uint8), {"coding": "poisson"}, "needs rng"),
        (np.zeros((2, 4, 4), np.uint8), {"coding": "phase"}, "one of thermometer, rate, latency, poisson, not 'phase'"),
    ],
)
def test_what_does_not_fit_is_named(x, changes, message):
    with pytest.raises(ValueError, match=message):
        encode(x, params(**changes))
