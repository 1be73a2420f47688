"""Fixtures of the cluster tests; the tools themselves are in clusterbench.py."""

from cluster.clusterbench import bench, database_server

__all__ = ["bench", "database_server"]
