"""Stage 1, prepare: read the raw table, find the kind of each column, split the rows, and write memory-mappable arrays.

Writes ``data/prepared/``: {train,valid,test}.npy of float32 (N, D), NaN where a value is missing, {train,valid,test}_index.npy
with the rows' numbers in the raw file, {train,valid,test}_groups.npy with those of their groups where data.split.group is set,
and schema.json. The raw file is read once; its rows are never all in memory.
"""

import sys

from pipeline.base.command import run_stage

if __name__ == "__main__":
    sys.exit(run_stage("prepare", __doc__))
