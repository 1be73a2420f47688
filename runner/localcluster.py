"""Workers of our own on this machine, for `--workers N`: Dask's local cluster, told to keep to itself."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

THREADS = 1  # partitions at once in a worker process of ours: two share each commit among half as many messages
_SETTINGS = {  # of Dask, for workers of ours
    "distributed.scheduler.worker-ttl": "30s",  # a worker that has been silent for so long is given up
    # Dask watches itself 50 to 100 times a second in each of its processes, also while there is nothing to do: 7.5 % of a core
    # for a worker, its nanny and the scheduler, 1.8 % so (measured).
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "5s",
}


@asynccontextmanager
async def local_cluster(workers: int) -> AsyncIterator[str]:
    """The address of a scheduler with so many worker processes. They end with the block."""
    import dask
    from distributed import LocalCluster

    with tempfile.TemporaryDirectory(prefix="campaign-workers-") as folder, dask.config.set(_SETTINGS):
        async with LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers,
            threads_per_worker=THREADS,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            worker_dashboard_address=None,
            memory_limit=0,
            silence_logs=logging.CRITICAL,
            local_directory=folder,
            asynchronous=True,
        ) as cluster:
            yield str(cluster.scheduler_address)
