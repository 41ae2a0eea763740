"""Proposals that know which of several lists each of them came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from detpipe.structures import Proposals

SourceArray = npt.NDArray[np.uint8]
"""(N,) uint8: indices into a list of names, which the manifest holds."""
MOST_SOURCES = 256
"""Of a uint8."""


@dataclass(frozen=True, eq=False)
class SourcedProposals:
    """N proposals of an image and the index of each one's source; None where all came from one place."""

    proposals: Proposals
    sources: SourceArray | None

    def __post_init__(self) -> None:
        if self.sources is None:
            return
        if self.sources.shape != (len(self.proposals),) or self.sources.dtype != np.uint8:
            raise ValueError(
                f"SourcedProposals.sources: expected ({len(self.proposals)},) uint8, "
                f"got {self.sources.shape} {self.sources.dtype}"
            )

    def top(self, k: int) -> SourcedProposals:
        """The k best, or all where there are fewer."""
        return SourcedProposals(self.proposals.top(k), None if self.sources is None else self.sources[:k])
