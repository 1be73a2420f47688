"""The cluster run with its real parts: PostgreSQL, Dask worker processes, the stand-in provider."""
