"""A Dask cluster that runs: connecting to it, looking at it, bringing ORC to it."""
