"""What the best net costs to run, estimates of its energy, and its accuracy with weights of fewer bits."""

from __future__ import annotations

import json

from models.metrics import PLATFORMS, SOURCES, energy_nj
from reports.draw import BLUE, GREY, ORANGE, new_figure
from reports.page import Picture, Section
from reports.read import Search, read_json

BITS = "bits.json"  # in the experiment's folder: what --bits found
LABELS = {
    "parameters": "parameters",
    "footprint_bytes": "memory [bytes]",
    "connection_sparsity": "weights that are 0 (part)",
    "activation_sparsity": "activations that are 0 (part)",
    "spikes_per_inference": "spikes per inference",
    "synaptic_operations": "synaptic operations per inference",
    "effective_acs": "of these, accumulate",
    "effective_macs": "of these, multiply and accumulate",
    "dense_operations": "operations per inference, were nothing 0",
    "membrane_updates": "membrane updates per inference",
    "neuron_steps": "the same, did all potentials change",
    "neuron_operations": "neuron operations per inference",
}
COLUMNS = {  # of the table of bits
    "validation_accuracy": "validation",
    "test_accuracy": "test",
    "integer_validation_accuracy": "integer: val.",
    "integer_test_accuracy": "test",
    "footprint_bytes": "bytes",
}


def cost(search: Search) -> Section:
    """The cost of the best trial's net, and its energy on each platform."""
    result = search.ranking[0]["result"] if search.ranking else {}
    rows = [[label, result[name]] for name, label in LABELS.items() if name in result]
    if len(rows) < 2:
        return Section("")
    head = [["", f"trial {search.ranking[0]['trial']}"]]
    said = ["By NeuroBench's definitions, means over the validation part."]
    if "effective_acs" in result:
        spent = [result["effective_acs"], result.get("effective_macs", 0.0)]
        spent += [result["membrane_updates"], result["neuron_steps"]] if "neuron_steps" in result else [0.0, 0.0]
        rows += [[f"energy, estimate for {name} [nJ]", energy_nj(*spent, name)] for name in PLATFORMS]
        said.append(
            "Energies are estimates, operations times published figures, not measurements. What counts as an "
            f"operation differs between platforms: compare nets on one platform, not platforms. Sources: {SOURCES}."
        )
    return Section("What the best net costs", said, table=head + rows, wide=False)


def bits(search: Search) -> Section:
    """Accuracy against bits, where --bits was asked for and the best net is still that one."""
    found = read_json(search.folder / BITS)
    if not found or found.get("sha256") != read_json(search.folder / "best.json").get("sha256"):
        return Section("")
    columns = {name: label for name, label in COLUMNS.items() if any(name in row for row in found["rows"])}
    rows = [["bits", *columns.values()]]
    rows += [[row["bits"] or "as trained", *(row.get(name, "") for name in columns)] for row in found["rows"]]
    said = f"Trial {found['trial']}'s net, its weights rounded to so many bits without further training"
    if "integer_test_accuracy" in columns:
        said += (
            "; integer: its thresholds, biases and decays too. Choose the bits by validation. With weight_bits as a "
        )
        said += "hyperparameter a net learns with them."
    else:
        said += "; only those that it learnt. Choose the bits by validation."
    picture = Picture("bits", "Accuracy against bits", lambda: bits_curve(found["rows"]), "Dotted: as trained.")
    return Section("Fewer bits", [said], [picture], rows, wide=False)


def bits_curve(rows: list[dict]):
    """Test accuracy over the bits of a weight, both ways of rounding; validation in grey."""
    figure, axes = new_figure(3.2)
    whole, *rounded = rows
    rounded = sorted(rounded, key=lambda row: row["bits"])
    for name, label, color in (
        ("validation_accuracy", "validation", GREY),
        ("test_accuracy", "test, weights", BLUE),
        ("integer_test_accuracy", "test, all integers", ORANGE),
    ):
        points = [(row["bits"], row[name]) for row in rounded if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), "o-", ms=4, color=color, label=label)
    axes.axhline(whole["test_accuracy"], color=BLUE, linestyle=":")
    axes.set(xlabel="bits of a weight", ylabel="accuracy", xticks=[row["bits"] for row in rounded])
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure


def bits_text(trial: str, sha256: str, rows: list[dict]) -> str:
    """The content of bits.json."""
    return json.dumps({"trial": trial, "sha256": sha256, "rows": rows}, indent=1) + "\n"
