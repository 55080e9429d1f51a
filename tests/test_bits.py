"""Trained nets rounded to few bits: integer nets by whole numbers alone, and the sweep."""

import json

import numpy as np
import pytest
import torch

import train_hpo
from models.bits import snap_integer, sweep
from models.metrics import footprint_bytes
from models.rsnn import RSNN, EpropParams
from models.saved import load, rebuild
from models.whetstone_net import WhetstoneNet
from models.whetstone_params import WhetstoneParams
from models.whetstone_training import Images, predictions
from setup_hpo import load_splits
from simulator.bits import snapped
from tests.test_report import entry, run

FAST = {
    "eprop": {"neurons": 20, "steps_per_row": 2, "epochs": 4},
    "whetstone": {"dense_features": 40, "dense2_features": 0, "sh_start": 4, "sh_duration": 1, "batch_norm": True},
}


def trained(kind):
    params = train_hpo.params_class(kind)(**FAST[kind])
    return train_hpo.OBJECTIVES[kind].train(params, load_splits("digits"), lambda metrics: None, "cpu", 0)


@pytest.mark.parametrize("kind", FAST)
def test_accuracy_against_bits(kind):
    result = trained(kind)
    rows = sweep(result.model, load_splits("digits"), [2, 4, 8])
    assert [row["bits"] for row in rows] == [0, 2, 4, 8]
    assert rows[0]["test_accuracy"] == pytest.approx(result.metrics["test_accuracy"])
    assert rows[0]["validation_accuracy"] == pytest.approx(result.metrics["default"])
    for prefix in ("", "integer_"):
        assert rows[3][f"{prefix}test_accuracy"] == pytest.approx(rows[0]["test_accuracy"], abs=0.02)
        assert rows[1][f"{prefix}test_accuracy"] < rows[3][f"{prefix}test_accuracy"]
    weights = rebuild(result.model).weights()
    saved_bytes = rows[3]["footprint_bytes"] - rows[2]["footprint_bytes"]
    assert saved_bytes == sum(weight.numel() for weight in weights) / 2  # 4 bits of each
    assert rows[3]["footprint_bytes"] < footprint_bytes([*weights], [])


@pytest.mark.slow
def test_accuracy_of_a_streamnet_against_bits(tmp_path, monkeypatch, capsys):
    parameters = {"samples": 300, "w_limit": 1.6, "lr": 0.034, "steps": 16, "tau_out": 6.8, "alpha": 0.38}
    params, splits = train_hpo.params_class("streamnet")(**parameters), load_splits("digits")
    result = train_hpo.OBJECTIVES["streamnet"].train(params, splits, lambda metrics: None, "cpu", 0)
    folder = experiment(tmp_path / "e", "python main_hpo.py --task streamnet_digits", {}, parameters)
    (folder / "best_model.pt").unlink()
    np.savez(folder / "best_model.npz", **result.model)
    assert run(monkeypatch, capsys, folder, "--bits", 2, 8)[0] == 0
    whole, two, eight = json.loads((folder / "bits.json").read_text())["rows"]
    assert whole["validation_accuracy"] == result.metrics["default"]
    assert whole["test_accuracy"] == result.metrics["test_accuracy"]
    assert whole["footprint_bytes"] == result.metrics["footprint_bytes"]
    assert eight["test_accuracy"] == pytest.approx(whole["test_accuracy"], abs=0.02) and two != eight
    assert whole["footprint_bytes"] - eight["footprint_bytes"] == 640 * (8 - 1)  # numbers of 64 bits
    page = (folder / "report" / "index.html").read_text()
    assert "Fewer bits" in page and "integer" not in page and "could not be drawn" not in page
    np.savez(folder / "best_model.npz", weights=np.zeros(3))
    status, said = run(monkeypatch, capsys, folder, "--bits", 4)
    assert status == 2 and "holds no streamnet" in said.err and said.err.count("\n") == 1


def test_a_streamnets_grid_by_hand():
    weights = np.array([[0.7, -0.31], [0.04, 0.0]])  # 3 bits: 3 steps of 0.7 / 3 to either side
    assert snapped(weights, 3) == pytest.approx(np.array([[0.7, -0.7 / 3], [0, 0]]))
    assert not snapped(np.zeros((1, 2)), 4).any()


def whole(values):
    """Return values as integers, and see that they are."""
    numbers = np.asarray(values, np.float64)
    assert np.abs(numbers - np.round(numbers)).max() < 1e-3
    return np.round(numbers).astype(np.int64)


def test_an_integer_recurrent_net_is_reckoned_with_integers():
    """At step t potentials are integers of 4096^-t; Python's integers do not overflow."""
    params = EpropParams(neurons=12, alif_fraction=0.5, adapt_strength=0.2, recurrent_gain=2.0, input_gain=3.0)
    net = snap_integer(RSNN(params, 6, 3, seed=3), 5)
    weights = [weight.detach().numpy() for weight in net.weights()[:2]]
    w_in, w_rec, threshold, rise = map(whole, (*weights, net.hidden.threshold, net.adapt_strength))
    assert max(abs(w_in).max(), abs(w_rec).max()) == 15 and threshold.min() >= 1
    decay, fade = (int(whole(4096 * each)[0]) for each in (net.hidden.beta, net.adapt_decay))
    x = (np.random.default_rng(0).random((1, 15, 6)) < 0.4).astype(np.uint8)
    v = raised = z = np.zeros(12, dtype=object)
    fired = []
    for t, row in enumerate(x[0].astype(object)):
        one = 4096 ** (t + 1)
        v = decay * v + (w_in.astype(object) @ row + w_rec.astype(object) @ z - z * threshold) * one
        raised = fade * raised + z * rise * one
        z = np.array(v > threshold.astype(object) * one + raised, dtype=object) * 1
        fired.append(z)
    expected = net.simulate(torch.as_tensor(x))[1].detach().numpy()[0]
    assert np.array_equal(np.array(fired, float), expected) and 5 < expected.sum() < 150


def test_an_integer_whetstone_net_is_reckoned_with_integers():
    """Pixels of 0 to 255 and spikes against whole weights and whole thresholds."""
    result = trained("whetstone")
    net = snap_integer(rebuild(result.model), 4)
    splits = load_splits("digits")
    activity = splits.test.x.reshape(len(splits.test.x), -1).astype(np.int64)
    for layer, link in enumerate(net.links):
        weight, bias = (each.detach().numpy().astype(np.float64) for each in (link.weight, link.bias))
        weight = whole(weight if layer else weight / 255)
        assert abs(weight).max() == 7
        activity = (activity @ weight.T >= whole(1 - bias)).astype(np.int64)  # 0.5 of the unit, 0.5 for safety
    votes = (2 * activity - 1) @ (2 * net.decoder.key.numpy().astype(np.int64) - 1).T
    assert np.array_equal(votes.argmax(1), predictions(net, Images(splits.test, "cpu")))


def test_what_is_no_net_is_one_line(tmp_path):
    (tmp_path / "text.pt").write_text("no weights")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    for name, text in (
        ("none.pt", "there is no file"),
        ("text.pt", "is no file of weights"),
        ("other.pt", "holds no e-prop or Whetstone net"),
        ("best_model.npz", "streamnet with plastic synapses"),
    ):
        with pytest.raises(ValueError, match=text) as caught:
            load(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_saved_file_is_loaded(tmp_path):
    for net in (RSNN(EpropParams(neurons=5), 4, 3), WhetstoneNet(WhetstoneParams(), (8, 8, 1), 10)):
        torch.save(net.saved(), tmp_path / "model.pt")
        assert type(rebuild(load(tmp_path / "model.pt"))) is type(net)


# The command


def experiment(folder, command, model, parameters=None):
    """A search of one trial, as its folder."""
    line = entry(0, 0.9, parameters=parameters)
    folder.mkdir()
    (folder / "journal.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "best.json").write_text(
        json.dumps({"trial": "t0", "sha256": "0", "command": command, "parameters": parameters})
    )
    torch.save(model, folder / "best_model.pt")
    return folder


@pytest.mark.slow
def test_the_report_tells_accuracy_against_bits(tmp_path, monkeypatch, capsys):
    result = trained("eprop")
    folder = experiment(tmp_path / "e", "python main_hpo.py --task eprop_digits --test-seed 1", result.model)
    assert run(monkeypatch, capsys, folder, "--bits", 3, 8)[0] == 0
    found = json.loads((folder / "bits.json").read_text())
    assert found["rows"] == sweep(result.model, load_splits("digits", test_seed=1), [3, 8]), "split as the search did"
    assert (folder / "report" / "bits.png").exists() and "Fewer bits" in (folder / "report" / "index.html").read_text()
    best = json.loads((folder / "best.json").read_text()) | {"sha256": "1"}
    (folder / "best.json").write_text(json.dumps(best))
    assert run(monkeypatch, capsys, folder)[0] == 0
    assert "Fewer bits" not in (folder / "report" / "index.html").read_text(), "another net is the best now"


def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys):
    folder = experiment(tmp_path / "e", "python main_hpo.py --task eprop_digits", {"no": "net"})
    missing = experiment(tmp_path / "m", "python main_hpo.py --task eprop_digits", {})
    (missing / "best_model.pt").unlink()
    for where, bits, text in (
        (folder, "1", "must be an integer from 2 to 16, not '1'"),
        (folder, "4", "holds no e-prop or Whetstone net"),
        (missing, "4", "has no best.json with its best_model"),
    ):
        status, said = run(monkeypatch, capsys, where, "--bits", bits)
        assert status == 2 and text in said.err and said.err.count("\n") == 1
