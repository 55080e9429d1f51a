"""The exported file against an interpreter of its own, in NumPy, from the equations of the NIR paper's table of nodes.

The interpreter knows nothing of this repository's nets: it reads the file with h5py, takes forward Euler steps of the
file's dt, and hands on what a node put out in the step before where the graph has a loop: in the first step nothing.
"""

import h5py
import numpy as np
import pytest
import torch

import train_hpo
from benchmarks import nir_norse
from loaders import Data
from models import training, whetstone_training
from models.export_nir import export, main
from models.metrics import recurrent_net_workload
from models.rsnn import RSNN, EpropParams
from models.saved import rebuild
from models.whetstone_net import WhetstoneNet
from models.whetstone_params import WhetstoneParams
from setup_hpo import load_splits


class Graph:
    """A NIR file. Values are (B, ...) arrays of 64 bits."""

    def __init__(self, path):
        with h5py.File(path) as file:
            graph = file["node"]
            self.nodes = {
                name: {k: v[()] for k, v in n.items() if k != "metadata"} for name, n in graph["nodes"].items()
            }
            self.edges = [(a.decode(), b.decode()) for a, b in graph["edges"][()]]
            self.metadata = {name: value[()] for name, value in graph["metadata"].items()}
        self.dt = self.metadata.get("dt", 1.0)
        self.order = self._order()

    def _order(self):
        """Nodes after those that they read, from the input on; a loop is cut where it comes back to its neurons."""
        done, left = [], list(self.nodes)
        while left:
            ready = [name for name in left if set(self._into(name)) <= set(done)]
            if not ready:
                ready = [n for n in left if self._kind(n) == "LIF" and set(self._into(n)) & set(done)]
            done += ready[:1]
            left.remove(ready[0])
        return done

    def _kind(self, name):
        return self.nodes[name]["type"].decode()

    def _into(self, name):
        return [a for a, b in self.edges if b == name]

    def run(self, x):
        """Outputs (B, T, K) for x (B, T, ...)."""
        self.v, before, outputs = {}, {}, []
        for t in range(x.shape[1]):
            now = {}
            for name in self.order:
                given = [now[a] if a in now else before.get(a, 0.0) for a in self._into(name)]
                now[name] = self._step(name, sum(given) if given else x[:, t].astype(float))
            before = now
            outputs.append(next(now[name] for name in self.nodes if self._kind(name) == "Output"))
        return np.stack(outputs, 1)

    def _step(self, name, given):
        node, kind = self.nodes[name], self._kind(name)
        return getattr(self, kind.lower())(name, node, given)

    def input(self, name, node, given):
        return given

    output = input

    def linear(self, name, node, given):
        return given @ node["weight"].astype(float).T

    def affine(self, name, node, given):
        return given @ node["weight"].astype(float).T + node["bias"]

    def threshold(self, name, node, given):
        return (given > node["threshold"]).astype(float)

    def flatten(self, name, node, given):
        assert node["start_dim"] == 0 and node["end_dim"] == -1
        return given.reshape(len(given), -1)

    def li(self, name, node, given):
        v = self.v.get(name, 0.0)
        self.v[name] = v + self.dt / node["tau"] * (node["v_leak"] - v + node["r"] * given)
        return self.v[name]

    def lif(self, name, node, given):
        v = self.li(name, node, given)
        spikes = v > node["v_threshold"]
        self.v[name] = np.where(spikes, node["v_reset"], v)
        return spikes.astype(float)

    def conv2d(self, name, node, given):
        (pad, _), weight = node["padding"], node["weight"].astype(float)
        assert (node["stride"] == 1).all() and (node["dilation"] == 1).all() and node["groups"] == 1
        padded = np.pad(given, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], axis=(2, 3))  # (B, C, H, W, h, w)
        return np.einsum("bchwij,ocij->bohw", windows, weight) + node["bias"][:, None, None]

    def sumpool2d(self, name, node, given):
        (high, wide), size = node["kernel_size"], given.shape
        assert (node["stride"] == node["kernel_size"]).all() and not node["padding"].any()
        cut = given[:, :, : size[2] // high * high, : size[3] // wide * wide]
        return cut.reshape(*size[:2], size[2] // high, high, size[3] // wide, wide).sum((3, 5))


def written(saved, tmp_path):
    torch.save(saved, tmp_path / "model.pt")
    assert main([str(tmp_path / "model.pt"), str(tmp_path / "net.nir")]) == 0
    return Graph(tmp_path / "net.nir")


@pytest.mark.parametrize("bias", [False, True])
def test_a_recurrent_net_predicts_the_same_from_its_file(bias, tmp_path):
    splits = load_splits("digits")
    params = EpropParams(reset="zero", reset_delay=False, neurons=40, epochs=4, bias=bias, tau_out=20.0)
    result = train_hpo.train_eprop(params, splits, lambda metrics: None, "cpu", 0)
    assert result.metrics["test_accuracy"] > 0.7
    graph, net = written(result.model, tmp_path), rebuild(result.model)
    test = training.Encoded(splits.test.take(np.arange(100)), params, training.TEST_SEED)
    outputs = graph.run(test.x)
    first = test.x.shape[1] - round(0.35 * test.x.shape[1])
    assert np.array_equal(outputs[:, first:].mean(1).argmax(1), training.predictions(net, test))
    expected = net(torch.as_tensor(test.x)).detach().numpy()
    assert (np.abs(outputs - expected).max((1, 2)) < 1e-3).mean() > 0.95  # a spike may fall to the other side
    assert graph.metadata["dt"] == 0.001 and b"0.35 of the steps" in graph.metadata["prediction"]


CONV = {"network": "conv", "activation": "ste", "epochs": 5, "dense_features": 64}
CONV |= {"conv1_features": 8, "conv2_features": 16, "conv3_features": 16}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize(
    "changes",
    [
        {"dense_features": 64, "dense2_features": 0},
        {"activation": "sigmoid", "batch_norm": True},
        {"activation": "ste", "epochs": 4},
        CONV,
        CONV | {"conv1_filter": 2, "conv2_filter": 4, "batch_norm": True},  # even sides are padded unevenly
    ],
)
def test_a_whetstone_net_predicts_the_same_from_its_file(changes, tmp_path):
    splits = load_splits("digits")
    params = WhetstoneParams(**{"sh_start": 4, "sh_duration": 1, "sh_intermission": 0} | changes)
    result = train_hpo.train_whetstone(params, splits, lambda metrics: None, "cpu", 0)
    test = splits.test.take(np.arange(100))
    shown = test.x.reshape(100, 1, 1, 8, 8) if params.network == "conv" else test.x.reshape(100, 1, 64)
    outputs = written(result.model, tmp_path).run(shown / np.float32(255))
    expected = whetstone_training.predictions(rebuild(result.model), whetstone_training.Images(test, "cpu"))
    assert np.array_equal(outputs[:, 0].argmax(1), expected) and len(set(expected)) > 5


def test_a_sum_at_the_threshold_fires(tmp_path):
    net = WhetstoneNet(WhetstoneParams(dense_features=2, dense2_features=0, width=2), (1, 2, 1), 2)
    net.links[0].weight.data = torch.tensor([[0.5, 0.0], [float(np.nextafter(np.float32(0.5), np.float32(0))), 0.0]])
    net.links[1].weight.data = torch.eye(2)
    net.decoder.key.copy_(torch.eye(2))
    net.sharpen(1.0)
    outputs = written(net.saved(), tmp_path).run(np.array([[[1.0, 0.0]]]))
    assert outputs.tolist() == net(torch.tensor([[1.0, 0.0]]))[:, None].tolist() == [[[2, -2]]]


def test_events_keep_their_step(tmp_path):
    params = EpropParams(reset="zero", reset_delay=False, neurons=20, tau_mem=30, recurrent_gain=2.0)
    net = RSNN(params, 5, 3, step_ms=5.0)
    graph = written(net.saved(), tmp_path)
    x = (np.random.default_rng(0).random((100, 60, 5)) < 0.3).astype(np.uint8)
    samples = training.Encoded(Data(x, np.zeros(100, np.int64), ("a", "b", "c"), step_ms=5.0), params, 0)
    outputs = graph.run(x)
    assert graph.metadata["dt"] == 0.005
    assert np.array_equal(outputs[:, 60 - 21 :].mean(1).argmax(1), training.predictions(net, samples))
    spikes = training.eprop.run(net, x).spikes()
    work = recurrent_net_workload(x, spikes, *(w.detach().numpy() for w in net.weights()))
    assert work.spikes > 1000, "it is no test without spikes"


def saved_net(**changes):
    return RSNN(EpropParams(**{"neurons": 8, "reset": "zero", "reset_delay": False} | changes), 4, 3)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"reset": "subtract"}, "reset must be zero, not subtract"),
        ({"reset_delay": True}, "reset_delay must be false, not true"),
        ({"alif_fraction": 0.5}, "NIR has no adaptive threshold: alif_fraction must be 0, not 0.5"),
        ({"tau_mem": 1e12}, "tau_mem is so long"),
    ],
)
def test_what_nir_cannot_say_is_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        export(saved_net(**changes))


def test_a_net_that_is_not_sharp_is_refused():
    net = WhetstoneNet(WhetstoneParams(), (8, 8, 1), 10)
    net.sharpen([1.0, 0.5, 0.0])
    with pytest.raises(ValueError, match="the sharpness of every layer must be 1, not dense2 0.5, output 0"):
        export(net)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_bits_that_a_batch_norm_takes_off_their_grid_are_named(batch_norm):
    net = WhetstoneNet(WhetstoneParams(weight_bits=4, batch_norm=batch_norm), (8, 8, 1), 10)
    net.sharpen(1.0)
    said = export(net).metadata.get("weights", "")
    assert said.startswith("of 4 bits times the factor of a batch norm") == batch_norm


@pytest.mark.parametrize("name", nir_norse.NETS)
def test_norse_predicts_the_same(name):
    pytest.importorskip("norse", reason="no norse: pip install --no-deps norse==1.1.0")
    equal, right = nir_norse.compare(nir_norse.NETS[name])
    assert equal == nir_norse.SAMPLES == 200 and right > 60


def test_mistakes_are_one_line(tmp_path, capsys):
    torch.save(saved_net(reset="subtract").saved(), tmp_path / "subtract.pt")
    torch.save(saved_net().saved(), tmp_path / "good.pt")
    for model, out, text in (
        ("none.pt", "net.nir", "there is no file"),
        ("best_model.npz", "net.nir", "plastic synapses"),
        ("subtract.pt", "net.nir", "reset must be zero"),
        ("good.pt", "no/folder/net.nir", "cannot write"),
    ):
        assert main([str(tmp_path / model), str(tmp_path / out)]) == 2
        said = capsys.readouterr().err
        assert text in said and said.count("\n") == 1 and not (tmp_path / out).exists()
