"""How fast the runner is, beside peers and limits measured in the same run. See benchmarks/README.md."""
