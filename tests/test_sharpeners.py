"""Schedules at the epochs that the paper's definition gives; the adaptive sharpener against losses worked by hand."""

import pytest

from models.sharpeners import Adaptive, Scheduled, Simple, Uniform, make_sharpener
from models.whetstone_params import WhetstoneParams


def test_scheduled_by_hand():
    # "start": it begins after 2 epochs; a layer takes 2; 1 between: layers in [2, 4), [5, 7), [8, 10).
    sharpener = Scheduled(3, start=2, duration=2, intermission=1)
    expected = {0: [0, 0, 0], 2: [0, 0, 0], 2.5: [0.25, 0, 0], 3: [0.5, 0, 0], 4: [1, 0, 0], 5: [1, 0, 0]}
    expected |= {6: [1, 0.5, 0], 7: [1, 1, 0], 8.5: [1, 1, 0.25], 9: [1, 1, 0.5], 10: [1, 1, 1], 99: [1, 1, 1]}
    assert {passed: sharpener.at(passed) for passed in expected} == expected
    assert sharpener.epochs == 10


@pytest.mark.parametrize(
    "start, duration, intermission, layers, epochs",
    [(25, 3, 5, 5, 60), (25, 7, 2, 5, 68), (20, 4, 1, 5, 44), (30, 7, 5, 5, 85), (1, 1, 0, 1, 2)],
)
def test_a_schedule_ends_when_its_last_layer_is_sharp(start, duration, intermission, layers, epochs):
    sharpener = Scheduled(layers, start, duration, intermission)
    assert sharpener.epochs == epochs  # start + L duration + (L - 1) intermission
    assert sharpener.at(epochs) == [1] * layers and sharpener.at(epochs - 0.01)[-1] < 1


def test_uniform_by_hand():
    sharpener = Uniform(2, start=1, duration=4)
    assert [sharpener.at(passed) for passed in (1, 2, 4.5, 5)] == [[0, 0], [0.25] * 2, [0.875] * 2, [1, 1]]
    assert sharpener.epochs == 5


def test_simple_by_hand():
    # One step at the end of each epoch from number 3 on, counted from 0: the first shows after 4 epochs.
    upward, together = Simple(2, start=3, steps=2, bottom_up=True), Simple(2, start=3, steps=2, bottom_up=False)
    assert [upward.at(passed) for passed in (3.9, 4, 5, 6.5, 7)] == [[0, 0], [0.5, 0], [1, 0], [1, 0.5], [1, 1]]
    assert [together.at(passed) for passed in (3.9, 4, 5)] == [[0, 0], [0.5, 0.5], [1, 1]]
    assert (upward.epochs, together.epochs) == (7, 5)


def adaptive(layers=2, **changes):
    return Adaptive(layers, WhetstoneParams(**{"sh_start": 2, "sh_rate": 0.4, "sh_critical_rate": 0.2} | changes))


def levels_after(sharpener, losses):
    """The levels at the end of each epoch."""
    levels = []
    for epoch, loss in enumerate(losses):
        levels.append([round(level, 6) for level in sharpener.at(epoch + 1.0)])
        sharpener.end_epoch(loss)
    return levels


def test_adaptive_sharpens_once_the_loss_stands_still():
    # Reference 1 after epoch 1. Epochs 2 and 3 bring less than 15 %: count 1, 2, and 2 > patience 1 starts it.
    # Then .4 an epoch to .8, which is beyond .75: .2 an epoch to 1; the second layer waits for the next epoch.
    losses = [1.0, 0.95, 0.96, *[0.96] * 7]
    expected = [[0, 0]] * 3 + [[0.4, 0], [0.8, 0], [1, 0], [1, 0.4], [1, 0.8], [1, 1], [1, 1]]
    assert levels_after(adaptive(), losses) == expected


def test_adaptive_pauses_when_the_loss_rises_and_resumes():
    # It starts after epoch 3 with reference 1; +20 % in epoch 4 pauses; the reference is then 1.2, which stands for 2.
    losses = [1.0, 1.0, 1.0, 1.2, 1.2, 1.2, 1.2]
    assert levels_after(adaptive(1), losses) == [[0], [0], [0], [0.4], [0.4], [0.4], [0.8]]


def test_adaptive_counts_again_after_an_improvement():
    # -20 % in epoch 3 is an improvement: the count starts anew, so that it takes two more epochs.
    assert levels_after(adaptive(1), [1.0, 1.0, 0.8, 0.8, 0.8, 0.8]) == [[0]] * 5 + [[0.4]]


def test_adaptive_together_and_the_first_layers_rate():
    assert levels_after(adaptive(sh_bottom_up=False), [1.0] * 6)[3:] == [[0.4, 0.4], [0.8, 0.8], [1, 1]]
    assert levels_after(adaptive(sh_first_rate=0.5), [1.0] * 4)[3] == [0.2, 0]


def test_adaptive_does_not_depend_on_the_number_of_batches():
    coarse, fine = adaptive(1, sh_critical=1.0), adaptive(1, sh_critical=1.0)
    levels_after(coarse, [1.0] * 4)
    for epoch in range(4):
        for batch in range(10):
            fine.at(epoch + batch / 10)
        levels = fine.at(epoch + 1.0)
        fine.end_epoch(1.0)
    assert levels == pytest.approx(coarse.levels)


@pytest.mark.parametrize(
    "name, kind", [("scheduled", Scheduled), ("uniform", Uniform), ("simple", Simple), ("adaptive", Adaptive)]
)
def test_sharpeners_by_name(name, kind):
    assert type(make_sharpener(WhetstoneParams(sharpener=name), 3)) is kind


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"sh_start": 0}, "sh_start must be an integer at least 1, not 0"),
        ({"sh_duration": 0}, "sh_duration must be an integer at least 1"),
        ({"sh_intermission": -1}, "sh_intermission must be an integer at least 0"),
        ({"optimizer": "sgd"}, "optimizer must be one of rmsprop, adadelta, adam, not 'sgd'"),
        ({"width": 0}, "width must be an integer at least 1"),
    ],
)
def test_bad_parameters_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        WhetstoneParams(**changes)


def test_adaptive_bears_a_loss_of_zero():
    assert levels_after(adaptive(1), [0.0] * 4)[3] == [0.4]
