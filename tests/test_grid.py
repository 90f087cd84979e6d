"""Chunk addressing over sizes that hypothesis draws: every pixel in exactly one chunk, addresses and pixels agree."""
import numpy as np
from hypothesis import given, settings, strategies as st

from stpt2imc.grid import ChunkGrid

sizes = dict(height=st.integers(1, 300), width=st.integers(1, 300), size=st.integers(1, 256), first=st.integers(0, 5), margin=st.integers(0, 20))


@settings(max_examples=200, deadline=None)
@given(**sizes)
def test_every_pixel_is_in_exactly_one_chunk(height, width, size, first, margin):
    if min(height, width) <= 2 * margin: return
    if (height // size + 1) * (width // size + 1) > 5000: return
    count = np.zeros((height, width), int)
    grid = ChunkGrid(height, width, size, first, margin)
    for chunk in grid: count[chunk.slices] += 1
    inside = np.zeros_like(count)
    inside[margin:height - margin, margin:width - margin] = 1
    assert (count == inside).all()
    assert len(grid) == grid.shape[0] * grid.shape[1]


@settings(max_examples=200, deadline=None)
@given(data=st.data(), **sizes)
def test_a_pixel_finds_its_chunk_and_the_address_reads_back(data, height, width, size, first, margin):
    if min(height, width) <= 2 * margin: return
    grid = ChunkGrid(height, width, size, first, margin)
    y, x = data.draw(st.integers(margin, height - margin - 1)), data.draw(st.integers(margin, width - margin - 1))
    chunk = grid.at(y, x)
    assert chunk.y0 <= y < chunk.y1 and chunk.x0 <= x < chunk.x1
    assert grid[chunk.name] == grid[f"chunk {chunk.name}"] == grid[chunk.row, chunk.col] == chunk
    assert chunk in grid.within(y, y + 1, x, x + 1) and len(grid.within(y, y + 1, x, x + 1)) == 1
