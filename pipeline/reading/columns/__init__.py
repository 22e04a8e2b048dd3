"""The column program: from raw tables of any length to prepared rows, block by block.

A table is a sequence of blocks of rows, whose size depends on the number of columns only. Three functions of one block each,
`survey`, `measure` and `transform`, and the ordered sums of what they find, are all that ever touches the rows: what comes out
is the same wherever the blocks lie and whoever computes them.
"""
