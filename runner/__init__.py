"""What makes an experiment trustworthy: NNI's manager repaired, started and ended; records; the running search."""
