"""Every search space against its Params, and what is refused with which words."""

import json
from dataclasses import dataclass

import pytest

import search_spaces
from search_spaces import (
    check_space,
    default_parameters,
    flatten,
    levels,
    load_space,
    make_params,
    split_task,
    task_names,
)
from train_hpo import params_class


@dataclass(frozen=True)
class Params:
    rule: str = "stdp"
    a_plus: float = 0.5
    lr: float = 0.01
    neurons: int = 50
    delay: bool = True

    def __post_init__(self):
        if not 0 < self.lr <= 1:
            raise ValueError(f"lr must be in (0, 1], not {self.lr}")
        if self.rule == "mse" and self.lr == 0.5:
            raise ValueError(f"mse learns at most at 0.1, not {self.lr}")


def choice(*values):
    return {"_type": "choice", "_value": list(values)}


@pytest.mark.parametrize("task", task_names())
def test_every_space_fits_its_params(task):
    from nni.common.hpo_utils import validate_search_space

    space = load_space(task)
    params = params_class(split_task(task)[0])
    check_space(space, params)
    make_params(params, default_parameters(space, params))
    for level in levels(space):
        validate_search_space(level, raise_exception=True)


NESTED = {"rule": choice({"_name": "mse", "lr": {"_type": "uniform", "_value": [0.1, 0.2]}}, {"_name": "stdp"})}


def test_flatten_nested_choices():
    assert flatten({"rule": {"_name": "stdp", "a_plus": 0.1}, "lr": 1}) == {"rule": "stdp", "a_plus": 0.1, "lr": 1}
    inner = {"_name": "a", "b": {"_name": "c", "d": 2}}
    assert flatten({"x": inner}) == {"x": "a", "b": "c", "d": 2}


@pytest.mark.parametrize(
    "spec, expected",
    [
        ({"lr": {"_type": "loguniform", "_value": [0.1, 0.5]}}, {"lr": 0.1}),
        ({"lr": {"_type": "uniform", "_value": [1e-4, 1e-3]}}, {"lr": 1e-3}),
        ({"lr": {"_type": "quniform", "_value": [0, 0.1, 0.004]}}, {"lr": 0.008}),
        ({"neurons": choice(10, 40, 70)}, {"neurons": 40}),
        ({"neurons": {"_type": "randint", "_value": [60, 80]}}, {"neurons": 60}),
        ({"neurons": {"_type": "randint", "_value": [10, 40]}}, {"neurons": 39}),
        ({"rule": choice("mse")}, {"rule": "mse"}),
        ({"delay": choice(False)}, {"delay": False}),
        (NESTED, {"rule": "stdp"}),
    ],
)
def test_defaults_move_to_the_nearest_allowed_value(spec, expected):
    assert default_parameters(spec, Params) == pytest.approx(expected)


def test_defaults_follow_the_branch_that_is_given():
    branches = [{"_name": "stdp", "a_plus": choice(0.1)}, {"_name": "mse", "lr": choice(0.05)}]
    space = {"rule": choice(*branches)}
    assert default_parameters(space, Params) == {"rule": "stdp", "a_plus": 0.1}
    assert default_parameters(space, Params, {"rule": "mse"}) == {"rule": "mse", "lr": 0.05}


@pytest.mark.parametrize(
    "space, message",
    [
        ({"lrr": choice(0.1)}, "unknown parameter 'lrr' .did you mean 'lr'"),
        ({"lr": {"_type": "uniform", "_value": [0.1, 2]}}, "lr = 2 is within the search space, but lr must be in"),
        ({"neurons": {"_type": "quniform", "_value": [1, 9, 1]}}, "neurons is an integer: use choice or randint"),
        ({"rule": choice({"_name": "mse", "lr": choice(-1)})}, "rule = .*lr.*-1. is within"),
        ({"rule": choice({"_name": "mse", "lrr": choice(1)})}, "unknown parameter 'lrr'"),
        ({"status": choice(1)}, "unknown parameter 'status'"),
        (
            {"rule": choice({"_name": "stdp"}, {"_name": "mse", "lr": choice(0.5)})},
            "mse learns at most at 0.1, not 0.5",
        ),
    ],
)
def test_what_does_not_fit_is_named(space, message):
    with pytest.raises(ValueError, match=message):
        check_space(space, Params)


@pytest.mark.parametrize(
    "text, message",
    [
        ("{", "not valid JSON"),
        ("[]", "an object with at least one parameter"),
        ('{"lr": 3}', "lr must be"),
        ('{"lr": {"_type": "choice", "_value": []}}', "at least one entry"),
        ('{"lr": {"_type": "choice", "_value": [1], "extra": 1}}', "lr must be"),
        ('{"rule": {"_type": "choice", "_value": [{"_name": "a"}, "b"]}}', 'needs a "_name"'),
        (
            json.dumps({"lr": choice(1), "rule": choice({"_name": "a", "lr": choice(1)})}),
            "lr is named twice",
        ),
    ],
)
def test_broken_files_are_named(text, message, tmp_path, monkeypatch):
    (tmp_path / "eprop_broken.json").write_text(text)
    monkeypatch.setattr(search_spaces, "FOLDER", tmp_path)
    with pytest.raises(ValueError, match=f"eprop_broken.json.*{message}"):
        load_space("eprop_broken")


def test_unknown_task_names_the_nearest_and_all():
    with pytest.raises(
        ValueError, match="unknown task 'eprop_digit' .did you mean 'eprop_digits'.*choose from: .*eprop_digits"
    ):
        load_space("eprop_digit")


def test_unknown_parameter_is_refused():
    with pytest.raises(ValueError, match="unknown parameter 'lrr'"):
        make_params(Params, {"lrr": 1})


def test_the_data_may_refuse_an_end_of_a_range():
    from models.whetstone import check_width
    from models.whetstone_params import WhetstoneParams

    space = {"width": {"_type": "choice", "_value": [5, 100]}}
    with pytest.raises(ValueError, match="width = 5 is within the search space, but width must be at least the number"):
        check_space(space, WhetstoneParams, lambda params: check_width(10, params.width))


@pytest.mark.parametrize("value", [10**400, -(10**400), float("nan"), float("inf")])
def test_numbers_that_no_float_holds_are_refused(value):
    from models.whetstone_params import WhetstoneParams

    with pytest.raises(ValueError, match="lr must be a number above 0 and at most 1e\\+30"):
        WhetstoneParams(lr=value)
