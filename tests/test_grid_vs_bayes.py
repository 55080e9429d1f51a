"""The replay of a grid on a small made-up table, and the table that is kept."""

import itertools
import json

import numpy as np
import pytest

from benchmarks import grid_vs_bayes, whetstone_grid
from benchmarks.reference_gp import ReferenceGP
from search_spaces import load_space

SPACE = {name: {"_type": "choice", "_value": values} for name, values in {"lr": [0.1, 1], "a": [1, 2, 3]}.items()}


def made_up():
    """A table of six configurations and two seeds: 10 a + 100 (lr == 1), divided by 200; seed 1 swaps the best two."""
    values = np.array([(10 * a + 100 * (lr == 1)) / 200 for lr, a in itertools.product((0.1, 1), (1, 2, 3))])
    other = values[[0, 1, 2, 3, 5, 4]]
    table = {"space": SPACE, "seeds": [0, 1], "validation": np.stack([values, other], 1).tolist()}
    return table | {"test": (np.stack([values, other], 1) / 2).tolist()}


def test_points_are_in_the_order_of_the_grid_tuner():
    tuner = grid_vs_bayes.make_tuner({"name": "GridSearch"})
    tuner.update_search_space(SPACE)
    expected = [{"lr": lr, "a": a} for lr, a in itertools.product((0.1, 1), (1, 2, 3))]
    assert whetstone_grid.points(SPACE) == expected == [tuner.generate_parameters(number) for number in range(6)]


def test_regret_is_judged_on_seeds_that_the_search_did_not_see():
    truth = grid_vs_bayes.Truth(made_up())
    assert truth.shown.tolist() == pytest.approx([0.05, 0.1, 0.15, 0.55, 0.6, 0.65])
    # the best shown is number 5, of .65; on the other seed it has .6 and number 4 the .65
    assert truth.regret(5) == pytest.approx(5) and truth.regret(4) == 0 and truth.regret(0) == pytest.approx(60)
    assert grid_vs_bayes.best_so_far([0, 3, 5, 4], truth.shown, 2) == 3
    assert grid_vs_bayes.regrets([[0, 3, 5], [4, 0, 0]], truth, 2) == pytest.approx([10, 0])


class Scripted:
    """A tuner that proposes given configurations and notes what it is told."""

    def __init__(self, proposals):
        self.proposals, self.told = list(proposals), []

    def update_search_space(self, space):
        self.space = space

    def generate_parameters(self, parameter_id, **_):
        from nni import NoMoreTrialError

        if parameter_id == len(self.proposals):
            raise NoMoreTrialError
        return self.proposals[parameter_id]

    def receive_trial_result(self, parameter_id, parameters, value, **_):
        self.told.append((parameter_id, parameters, value))


def test_replay_looks_up_what_is_proposed_and_ends_with_the_proposals():
    truth, tuner = grid_vs_bayes.Truth(made_up()), Scripted([{"lr": 1, "a": 2}, {"lr": 0.1, "a": 1}])
    (chosen,) = grid_vs_bayes.run_all(lambda seed: tuner, truth, repeats=1, budget=9)
    assert chosen == [4, 0] and tuner.space == SPACE
    assert tuner.told == [(0, {"lr": 1, "a": 2}, 0.6), (1, {"lr": 0.1, "a": 1}, 0.05)]


def test_every_tuner_on_offer_can_be_replayed():
    truth = grid_vs_bayes.Truth(made_up())
    for name, make in grid_vs_bayes.tuners_on_offer().items():
        (first,), (second,) = (grid_vs_bayes.run_all(make, truth, 1, 4) for _ in range(2))
        assert len(first) == 4 and first == second, name


def test_the_reference_tries_nothing_twice_and_finds_the_best():
    truth = grid_vs_bayes.Truth(made_up())
    runs = grid_vs_bayes.run_all(ReferenceGP, truth, repeats=5, budget=6)
    assert all(sorted(chosen) == [0, 1, 2, 3, 4, 5] for chosen in runs)
    assert np.mean([chosen.index(5) < 4 for chosen in runs]) >= 0.8


def test_effects_by_hand():
    effect_lr, effect_a = grid_vs_bayes.effects(grid_vs_bayes.Truth(made_up()))
    assert effect_lr["all"] == pytest.approx([0.1, 0.6]) and effect_a["all"] == pytest.approx([0.3, 0.3625, 0.3875])
    assert effect_a["live"] == pytest.approx([0.55, 0.625, 0.625])


def test_tables_are_written_and_read_again(tmp_path):
    table = made_up() | {"points": [[0, 0]] * 6, "task": "x"}
    whetstone_grid.write_table(table, tmp_path / "data" / "table.json")
    assert whetstone_grid.read_table(tmp_path / "data" / "table.json") == table


def test_a_small_table_is_made_twice_alike(tmp_path):
    sizes = {"dense_features": [8, 12], "dense2_features": [8], "width": [10], "sh_start": [1], "sh_duration": [1]}
    settings = {"sh_intermission": [0], "batch_size": [400], "lr": [0.001, 0.01], "optimizer": ["rmsprop"]}
    space = {name: {"_type": "choice", "_value": values} for name, values in (sizes | settings).items()}
    for name in ("first", "second"):
        table = whetstone_grid.make_table((0, 1), processes=1, space=space)
        whetstone_grid.write_table(table, tmp_path / name)
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert np.array(table["validation"]).shape == (4, 2) and table["points"][3][0] == 1


@pytest.mark.skipif(not whetstone_grid.FILE.exists(), reason="the table has not been made")
def test_the_kept_table_is_of_the_search_space():
    table = whetstone_grid.read_table()
    assert table["space"] == load_space(whetstone_grid.TASK) and len(table["points"]) == 256
    accuracies = np.array([table["validation"], table["test"]])
    assert accuracies.shape == (2, 256, len(table["seeds"])) and 0 <= accuracies.min() <= accuracies.max() <= 1
    assert json.dumps(table["points"][1]) == json.dumps([0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0])
