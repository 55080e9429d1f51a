"""NNI's evolution, repaired: the seed fixes what it proposes, and a stopped trial does not kill it."""

import nni
import pytest

from tuners.evolution import SeededEvolution

SPACE = {
    "lr": {"_type": "loguniform", "_value": [1e-4, 1e-1]},
    "size": {"_type": "choice", "_value": [10, 20, 30]},
}


def proposals(seed, number=60):
    """Let a tuner of 8 search for the largest lr."""
    tuner = SeededEvolution(population_size=8, seed=seed)
    tuner.update_search_space(SPACE)
    seen = []
    for identifier in range(number):
        seen.append(tuner.generate_multiple_parameters([identifier], st_callback=None)[0])
        tuner.receive_trial_result(identifier, seen[-1], seen[-1]["lr"])
        tuner.trial_end(identifier, True)
    return seen


def test_seed_fixes_the_proposals():
    assert proposals(0) == proposals(0)
    assert proposals(0) != proposals(1)


def test_it_learns():
    found = [entry["lr"] for entry in proposals(0)]
    assert sum(found[-8:]) > sum(found[:8])


def test_trial_that_ends_unsuccessfully_after_its_result():
    tuner = SeededEvolution(population_size=4)
    tuner.update_search_space(SPACE)
    parameters = tuner.generate_multiple_parameters([0], st_callback=None)[0]
    tuner.receive_trial_result(0, parameters, 0.5)
    tuner.trial_end(0, False)  # stopped by the assessor: NNI's own raises KeyError here
    assert tuner.generate_multiple_parameters([1], st_callback=None)
    with pytest.raises(KeyError):
        unrepaired = nni.algorithms.hpo.evolution_tuner.EvolutionTuner(population_size=4)
        unrepaired.update_search_space(SPACE)
        unrepaired.receive_trial_result(0, unrepaired.generate_parameters(0), 0.5)
        unrepaired.trial_end(0, False)
