"""One command, one table: ours against the peers, in one run; `python -m benchmarks`."""
