"""`detpipe proposals fuse`: join several proposals.lmdb into one. Short for `detpipe propose proposals=fuse`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from detpipe.commands import propose
from detpipe.commands.run_settings import Propose
from detpipe.proposals.fusion import Fused
from detpipe.proposals.proposer import Proposer


@dataclass(kw_only=True)
class ProposalsFuse(Propose):
    """Settings of `detpipe proposals fuse`."""

    proposals: Proposer = field(default_factory=Fused)
    """How the sources are joined: proposals.budgets=[1000,200]."""
    sources: list[str] | None = None
    """The proposals to join, as run folders or methods: a short name of proposals.sources."""

    def __post_init__(self) -> None:
        if self.sources is not None:
            if not isinstance(self.proposals, Fused):
                raise ValueError("sources: expected proposals=fuse, got another method; leave one of them out")
            self.proposals = replace(self.proposals, sources=self.sources)
        super().__post_init__()


def run(config: ProposalsFuse) -> None:
    """Join the boxes of the sources on every image of every split, and measure their recall.

    The images are read again to check that each source was made from the same files.
    """
    if not isinstance(config.proposals, Fused):
        raise ValueError("proposals: expected proposals=fuse, got another method; run `detpipe propose`")
    propose.run(config)
