"""Another computer's processes: a Dask cluster, and whether its workers compute what this machine would."""
