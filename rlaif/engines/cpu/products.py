"""Weights as the kernels take them, and their plain product with a matrix."""

from __future__ import annotations

import numpy as np
import torch

from rlaif.engines.cpu import kernels, threads
from rlaif.engines.cpu.vectors import PANEL, ROWS


def panels(*weights: torch.Tensor) -> torch.Tensor:
    """Weights (columns, depth) below each other, as panels (columns / PANEL, depth, PANEL)."""
    weight = torch.cat([w.detach() for w in weights])
    return weight.view(-1, PANEL, weight.shape[1]).transpose(1, 2).contiguous()


def piece(rows: int) -> int:
    """Rows of a piece of work: a few pieces for each thread."""
    threads_ = int(torch.get_num_threads())
    share = -(-rows // (2 * threads_))
    return min(kernels.MOST_ROWS, max(ROWS, -(-share // ROWS) * ROWS))


class NormedProduct:
    """Rows, divided by their root mean square, times a weight.

    Args:
        weight: (columns, depth), float32; the columns are a multiple of `PANEL`.
    """

    def __init__(self, weight: torch.Tensor) -> None:
        self._columns, depth = weight.shape
        self._panels, self._norm = panels(weight), torch.ones(depth, dtype=torch.float32)
        self._nothing = np.zeros(1, np.float32)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Of (rows, depth): (rows, columns)."""
        rows, depth = x.shape
        out = torch.empty(rows + ROWS, self._columns, dtype=torch.float32)
        block = piece(rows)
        threads.run(
            kernels.project,
            kernels.PROJECT,
            -(-rows // block),
            kernels.project_room(block, depth),
            x=x.contiguous(),
            width=depth,
            rows=rows,
            block=block,
            norm=self._norm,
            panels=self._panels,
            outputs=self._columns,
            out=out,
            out_stride=self._columns,
            out_panels=self._columns // PANEL,
            cos=self._nothing,
            sin=self._nothing,
        )
        return out[:rows]
