"""Models: spiking nets, their learning rules, encodings and metrics. They import nothing from the repository's root."""
