"""A net as JSON and back; a torch module as an element."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from simulator.description import build_net, describe, from_json, to_json
from simulator.encoders import Periodic, Poisson, Sequence
from simulator.memristor import DEVICES, Memristive, Pulses
from simulator.more_neurons import AdaptiveLIF, ConductanceLayer, ConductanceLIF, RecurrentLayer
from simulator.networks import build
from simulator.neurons import LIF, Layer
from simulator.params import StreamnetParams
from simulator.plasticity import MSE, Decay
from simulator.programmed import Programmed, TextRule
from simulator.run import Trains, run
from simulator.streamnet import Function, StreamNet
from simulator.synapses import OneToOne, Plastic, Sparse, Static


def everything():
    rng = np.random.default_rng(0)
    net = StreamNet({"x": 4, "m": 3})
    net.add("noise", Poisson(4, rng.random(4), 0.5, seed=3))
    net.add("clock", Periodic(4, rng.random(4)))
    net.add("tune", Sequence(rng.random((5, 4)) < 0.5))
    inner = StreamNet({"x": 4})
    inner.add("a", Layer(LIF(4, 2.0, 0.05), [OneToOne(rng.random(4), "excitatory", delay=2), Static(-np.eye(4))]))
    inner.connect("x", "a"), inner.connect("a", "a", 1), inner.expose("a")
    net.add("inner", inner, "noise")
    synapses = [Sparse(4, 5, 0.7, 5.0, 9, "excitatory", 1.5), Static(rng.random((5, 4)), "inhibitory")]
    net.add("g", ConductanceLayer(ConductanceLIF(5, 3.0, 0.1, e_exc=4.0), synapses), ("inner", 0), "clock")
    learns = Plastic(rng.uniform(-0.3, 0.3, (3, 3)), MSE(0.03, 1.7), Decay.of(0.2), bounds=(-0.5, 0.6), tau_mod=1.5)
    net.add("r", RecurrentLayer(AdaptiveLIF(3, 2.0, 0.2, beta=0.4), [Static(9 * rng.random((3, 5)))], learns), "g", "m")
    rule = TextRule("dw = 0.05*y0*x2 - 0.03*x0*y1*w; dd = 0.1*y0*x1; dt = u1*y0", x2=Decay(0.4, 0.8))
    text = Programmed(rng.uniform(0, 0.8, (3, 4)), rule, delays=rng.random((3, 4)), max_delay=3, tag_limit=2.0)
    device = Memristive(rng.random((3, 4)), TextRule("dw = y0*x1"), device=DEVICES["taox"], pulses=Pulses(-1, 1e-9, 2))
    net.add("o", Layer(LIF(3, 2.0, 0.2), [text, device]), "tune", "x")
    for name in ("r", "o"):
        net.expose(name)
    return net


def test_a_net_comes_back_and_steps_alike():
    net = everything()
    other = from_json(to_json(net, indent=1))
    assert describe(other) == describe(net) and other.state().keys() == net.state().keys()
    np.testing.assert_array_equal(other.fingerprint(), net.fingerprint())
    rng = np.random.default_rng(1)
    shown = Trains(tuple((rng.random((3, 10, n)) < 0.5).astype(float) for n in (4, 3)), reset=False)
    for one, two in zip(run(net, shown).outputs, run(other, shown).outputs, strict=True):
        np.testing.assert_array_equal(one, two)
        assert one.any()


@pytest.mark.parametrize("network", ["shallow", "mushroom_body"])
def test_the_two_networks(network, tmp_path: Path):
    net = build(StreamnetParams(network=network, kenyon_cells=50), 16, 4)
    net.step(np.ones(16), np.eye(4)[0])
    net.save(tmp_path / "net.npz")
    other = from_json(to_json(net))
    other.restore(tmp_path / "net.npz")
    for name, array in net.state().items():
        np.testing.assert_array_equal(array, other.state()[name])


def test_a_description_is_plain_json():
    written = json.loads(to_json(build(StreamnetParams(), 2, 2)))
    assert written["inputs"] == {"x": 2, "m": 2} and written["exposed"] == [["o", 0]]
    assert written["elements"]["o"]["sources"] == ["x", "m"]
    assert written["elements"]["o"]["element"]["synapses"][0]["rule"] == {"type": "MSE", "lr": 0.0017, "alpha": 4.0}


def test_mistakes_are_refused_in_a_line():
    net = StreamNet({"x": 1})
    net.add("f", Function(abs, (1,), (1,)), "x")
    with pytest.raises(ValueError, match="'f': a Function has no description: it is code"):
        to_json(net)
    good = describe(build(StreamnetParams(), 2, 2))

    def broken(**changes):
        element = good["elements"]["o"]["element"] | changes
        return good | {"elements": {"o": {"element": element, "sources": ["x", "m"]}}}

    for description, message in (
        ([], "the description of a net has the type StreamNet"),
        (good | {"more": 1}, "and the keys elements, exposed, inputs"),
        (broken(type="Lair"), "'o': unknown type 'Lair'; known: StreamNet, LIF"),
        (broken(colour=1), "'o': Layer: .*unexpected keyword argument 'colour'"),
        (broken(neuron={"type": "LIF", "n": 2, "tau": -1}), "'o': tau of LIF must be above 0"),
        (good | {"elements": {"o": good["elements"]["o"]["element"]}}, "'o' must be {'element'"),
        (broken(type=["Layer"]), "'o': unknown type"),
        (broken(synapses=[None]), "'o': synapse 0 must be one of synapses.py, not NoneType"),
        (broken(type="RecurrentLayer", recurrent=None), "'o': synapse 1 must be one of synapses.py, not NoneType"),
        (broken(neuron={"array": [[1], [2, 3]]}), "'o': an array must be nested lists of numbers"),
        (broken(neuron={"array": [{}]}), "'o': an array must be nested lists of numbers"),
        (good | {"elements": []}, "elements must be {name"),
        (good | {"elements": {"o": good["elements"]["o"] | {"sources": None}}}, "'o' must be {'element'"),
        (good | {"exposed": None}, r"exposed must be a list of \[name, output port\], not None"),
        (good | {"exposed": [1]}, "a source is a name or .*, not 1"),
        (good | {"elements": {"o": {"element": {"type": "LIF", "n": 1, "tau": 1}, "sources": []}}}, "no element of a"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            build_net(description)
        assert "\n" not in str(refused.value)
    with pytest.raises(ValueError, match="not valid JSON"):
        from_json("{")


def torch_net(torch, exposed=("t", "o")):
    class Integrator(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 2, bias=False)
            with torch.no_grad():
                self.linear.weight.copy_(torch.tensor([[1.0, 2, 3], [4, 5, 6]]))

        def forward(self, x, hidden):
            hidden = 0.5 * hidden + self.linear(x)
            return (hidden > 5).float(), hidden

    from simulator.torch_element import TorchModule

    net = StreamNet({"x": 3})
    net.add("t", TorchModule(Integrator(), (3,), (2,), hidden_sizes=(2,)), "x")
    net.add("o", Layer(LIF(2, 1.0, 0.1), [Static(np.eye(2))]), "t")
    for name in exposed:
        net.expose(name)
    return net


def test_a_torch_module_steps_is_reset_and_saved(tmp_path: Path):
    torch = pytest.importorskip("torch")
    net = torch_net(torch)
    x = np.array([1.0, 1, 0])
    assert [[list(out) for out in net.step(x)] for _ in range(3)] == [
        [[0, 1], [0, 0]],  # hidden 3, 9
        [[0, 1], [0, 1]],  # 4.5, 13.5
        [[1, 1], [0, 1]],  # 5.25, 15.75
    ]
    net.save(tmp_path / "net.npz")
    other = torch_net(torch)
    other.restore(tmp_path / "net.npz")
    np.testing.assert_array_equal(other.step(x)[0], net.step(x)[0])
    net.reset()
    assert not net.state()["t/hidden0"].any()
    shown = Trains((np.random.default_rng(0).random((2, 5, 3)),))
    fast, slow = run(torch_net(torch, "o"), shown), run(torch_net(torch, "o"), shown, backend="step")
    assert fast.backend == "graph"  # the module runs ahead of the compiled layers
    np.testing.assert_array_equal(fast.outputs[0], slow.outputs[0])
    net.elements["t"].module.linear.weight.data.add_(1)
    with pytest.raises(ValueError, match="another net, with other fixed weights"):
        net.restore(tmp_path / "net.npz")


def test_wrong_torch_modules_are_refused():
    torch = pytest.importorskip("torch")
    from simulator.torch_element import TorchModule

    with pytest.raises(ValueError, match=r"needs a torch\.nn\.Module, not function"):
        TorchModule(lambda x: x, (1,), (1,))
    element = TorchModule(torch.nn.Linear(2, 3), (2,), (2,))
    with pytest.raises(ValueError, match=r"returned shapes \(3,\); announced are \(2,\)"):
        element.step(np.ones(2))
    net = StreamNet({"x": 2})
    net.add("a", element, "x")
    with pytest.raises(ValueError, match="shares its Linear"):
        net.add("b", TorchModule(element.module, (2,), (3,)), "x")


def test_torch_is_imported_only_when_a_module_is_made():
    code = "import sys, simulator.torch_element, simulator.description, simulator.run; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent).returncode == 0
