"""Event arrays and augmentation: lossless there and back, and what each strength does, from its definition."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from loaders import braille, events

SHAPE = (40, 200, 6)


def sparse(counts: int = 1, density: float = 0.1) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (rng.integers(1, counts + 1, SHAPE) * (rng.random(SHAPE) < density)).astype(np.uint8)


def test_event_array_by_hand():
    x = np.zeros((2, 4, 3), np.uint8)
    x[0, 1, 2] = 1
    x[1, 0, 0] = 2
    found = events.to_events(x, step_ms=5.0)
    # sample 1's channel 0 is x = 1 * 3 + 0 with two events in the middle of step 0; sample 0's channel 2 is in step 1
    assert found.tolist() == [(2500, 3, 0), (2500, 3, 0), (7500, 2, 0)]


def test_every_recording_there_and_back():
    folder = os.environ.get("HPO_DATA_DIR", "")
    if not (Path(folder) / braille.SUBSET).is_file():
        pytest.skip(f"needs {braille.SUBSET} in the folder HPO_DATA_DIR")
    x = braille.load(Path(folder)).x
    np.testing.assert_array_equal(events.to_frames(events.to_events(x, 5.0), x.shape, 5.0), x)
    for recording in x[:, None]:  # each by itself as well
        back = events.to_frames(events.to_events(recording, 5.0), recording.shape, 5.0)
        np.testing.assert_array_equal(back, recording)


@pytest.mark.parametrize("step_ms", [0.01, 1 / 3, 1.0, 7.3, 1000.0])
def test_counts_there_and_back_whatever_the_step(step_ms):
    x = sparse(counts=255)
    x[3] = 0  # an empty recording
    x[:, 0], x[:, -1] = 0, 0  # nothing in the first and the last step
    shuffled = np.random.default_rng(1).permutation(events.to_events(x, step_ms))
    np.testing.assert_array_equal(events.to_frames(shuffled, x.shape, step_ms), x)


def test_no_events_at_all():
    x = np.zeros((2, 5, 3), np.uint8)
    np.testing.assert_array_equal(events.to_frames(events.to_events(x, 5.0), x.shape, 5.0), x)
    strengths = {"time_jitter": 5.0, "drop_events": 0.5, "noise_events": 2.0, "time_skew": 0.1, "time_shift": 10.0}
    assert events.augment(x, 5.0, 0, **strengths).shape == x.shape


def test_no_strength_is_the_identity_without_tonic(monkeypatch):
    monkeypatch.setitem(sys.modules, "tonic", None)
    monkeypatch.setitem(sys.modules, "tonic.transforms", None)
    x = sparse()
    assert events.augment(x, 5.0, 0) is x
    with pytest.raises(ImportError):
        events.augment(x, 5.0, 0, drop_events=0.1)


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_drop_events_leaves_the_rest_where_it_is(share):
    x = sparse()
    found = events.augment(x, 5.0, 0, drop_events=share)
    assert not (found & ~x.astype(bool)).any()
    assert found.sum() == x.sum() - int(share * x.sum() + 0.5)


def test_time_jitter_has_its_standard_deviation():
    x = np.zeros((400, 101, 5), np.uint8)
    x[:, 50] = 1  # 2,000 events, each alone on its channel, 50 steps from either end
    found = events.augment(x, 5.0, 0, time_jitter=20.0)
    shifts = 5.0 * (np.nonzero(found.swapaxes(1, 2))[2] - 50)
    assert found.sum() == 2000
    # rounding to steps of 5 ms adds 25/12 to the variance; standard errors are 0.45 and 0.32 ms
    assert abs(shifts.mean()) < 1.4 and abs(shifts.std() - np.sqrt(400 + 25 / 12)) < 1.0


def test_small_jitter_stays_in_the_step():
    x = sparse()
    np.testing.assert_array_equal(events.augment(x, 5.0, 0, time_jitter=0.3), x)  # 2.5 ms to the edge are 8 sigma


def test_jitter_over_the_ends_is_lost_and_counts_are_clipped():
    x = sparse(density=0.9)
    found = events.augment(x, 5.0, 0, time_jitter=50.0)
    assert found.max() == 1 and found.shape == x.shape and found.dtype == np.uint8 and 0 < found.sum() < x.sum()


def test_noise_is_added_to_every_channel_of_every_sample():
    x = np.zeros((100, 200, 6), np.uint8)
    x[:, 0], x[:, -1] = 1, 1
    found = events.augment(x, 5.0, 0, noise_events=60.0)
    added = found.sum() - x.sum()
    # 6,000 events on 120,000 places fill 6,000 - 6,000^2 / 240,000 = 5,850, less those at the ends, which are taken
    assert 5600 < added < 5900 and (found >= x).all()
    assert ((found - x).sum(axis=(1, 2)) > 20).all() and ((found - x).sum(axis=(0, 1)) > 800).all()


def test_time_skew_is_one_factor_for_a_recording():
    x = np.zeros((200, 200, 2), np.uint8)
    x[:, [50, 150]] = 1
    found = events.augment(x, 5.0, 0, time_skew=0.2)
    early, late = found[:, :100, 0].argmax(axis=1), 100 + found[:, 100:, 0].argmax(axis=1)
    np.testing.assert_array_equal(found[..., 0], found[..., 1])  # the same factor on all channels
    np.testing.assert_allclose(late + 0.5, (early + 0.5) * 150.5 / 50.5, atol=2.5)
    assert 40 <= early.min() < 43 and 57 < early.max() <= 60  # uniform between 0.8 and 1.2


def test_time_shift_moves_a_recording_as_a_whole():
    x = np.zeros((200, 200, 2), np.uint8)
    x[:, 50], x[:, 150] = 1, 1
    found = events.augment(x, 5.0, 0, time_shift=100.0)
    early, late = found[:, :100, 0].argmax(axis=1), 100 + found[:, 100:, 0].argmax(axis=1)
    np.testing.assert_array_equal(late - early, 100)
    np.testing.assert_array_equal(found[..., 0], found[..., 1])
    assert 30 <= early.min() < 32 and 68 < early.max() <= 70  # uniform over 20 steps of 5 ms either way


STRENGTHS = {"time_jitter": 5.0, "drop_events": 0.1, "noise_events": 3.0, "time_skew": 0.05, "time_shift": 20.0}


def test_the_generator_settles_it_and_numpys_own_is_left_alone():
    x = sparse()
    np.random.seed(7)
    expected = np.random.RandomState(7).random(3)
    first, again = events.augment(x, 5.0, 1, **STRENGTHS), events.augment(x, 5.0, 1, **STRENGTHS)
    np.testing.assert_array_equal(np.random.random(3), expected)
    np.testing.assert_array_equal(first, again)
    rng = np.random.default_rng(1)
    np.testing.assert_array_equal(events.augment(x, 5.0, rng, **STRENGTHS), first)
    assert (events.augment(x, 5.0, rng, **STRENGTHS) != first).any()  # drawn anew in the next epoch
    assert (x == sparse()).all()


def test_samples_do_not_mix():
    x = sparse()
    x[1::2] = 0  # more than one array's worth of samples, every second one empty
    many = np.concatenate([x] * 5)
    found = events.augment(many, 5.0, 0, time_jitter=20.0, drop_events=0.2, time_skew=0.1)
    assert not found[1::2].any() and found[::2].any(axis=(1, 2)).all()


@pytest.mark.parametrize(
    "name, value", [("time_jitter", -1), ("time_jitter", np.inf), ("drop_events", 1.1), ("time_skew", np.nan)]
)
def test_a_strength_out_of_its_range_is_named(name, value):
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        events.augment(sparse(), 5.0, 0, **{name: value})
