"""On the Dask worker: the task body, and what is loaded before the first task."""
