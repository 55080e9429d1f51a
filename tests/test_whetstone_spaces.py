"""The published search spaces: their sizes, and that the grid tuner enumerates the small one."""

import math

import pytest

from benchmarks.grid_vs_bayes import make_tuner
from search_spaces import default_parameters, flatten, levels, load_space, make_params
from train_hpo import params_class
from tuners import TUNERS

DATASETS = ("mnist", "fashion", "cifar10", "cifar100")


def size(space):
    """The number of configurations of a space of choices, nested ones with their branches."""
    total = 1
    for spec in space.values():
        options = (
            size({k: v for k, v in o.items() if k != "_name"}) if isinstance(o, dict) else 1 for o in spec["_value"]
        )
        total *= sum(options)
    return total


def test_case_one_has_256_points_and_the_grid_visits_each():
    from nni import NoMoreTrialError

    space = load_space("whetstone_cifar100_case1")
    assert size(space) == 256
    tuner = make_tuner(TUNERS["grid"](0))
    tuner.update_search_space(space)
    visited = {tuple(tuner.generate_parameters(number).items()) for number in range(256)}
    assert len(visited) == 256
    with pytest.raises(NoMoreTrialError):
        tuner.generate_parameters(256)


@pytest.mark.parametrize("dataset", DATASETS)
def test_case_two_has_the_papers_size(dataset):
    assert size(load_space(f"whetstone_{dataset}_case2")) == 398_131_200
    # without noise its strength does not matter: three quarters are different nets
    assert size(load_space(f"whetstone_{dataset}_case2_nested")) == 298_598_400


@pytest.mark.parametrize("dataset", DATASETS)
def test_nested_noise_reaches_the_parameters(dataset):
    space = load_space(f"whetstone_{dataset}_case2_nested")
    assert len(list(levels(space))) == 3
    given = flatten({"noise_location": {"_name": "after_dense1", "noise_std": 0.3}})
    params = make_params(params_class("whetstone"), default_parameters(space, params_class("whetstone"), given) | given)
    assert (params.noise_location, params.noise_std, params.network) == ("after_dense1", 0.3, "conv")


def test_the_papers_best_configurations_lie_within():
    # Table IV, CIFAR-10: its row of optimiser, sharpener and filters
    space = load_space("whetstone_cifar10_case2")
    best = {"lr": 0.001, "rho": 0.9, "epsilon": 1e-8, "decay": 1e-6, "optimizer": "rmsprop", "bn_momentum_conv": 0.85}
    best |= {"bn_epsilon": 0.001, "bn_center": True, "bn_scale": False, "sh_start": 30, "sh_duration": 4}
    assert all(value in space[name]["_value"] for name, value in best.items())
    assert math.prod(len(spec["_value"]) for spec in space.values()) == 398_131_200
