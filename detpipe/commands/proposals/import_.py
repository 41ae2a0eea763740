"""`detpipe proposals import`: boxes of another program -> proposals.lmdb.

Short for `detpipe propose proposals=import`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from detpipe.commands import propose
from detpipe.commands.run_settings import Propose
from detpipe.proposals.files.imported import ImportedProposals
from detpipe.proposals.proposer import Proposer


@dataclass(kw_only=True)
class ProposalsImport(Propose):
    """Settings of `detpipe proposals import`."""

    proposals: Proposer = field(default_factory=ImportedProposals)
    """The file or folder of boxes: proposals.path=FILE."""


def run(config: ProposalsImport) -> None:
    """Match the boxes with the images of every split, and measure their recall."""
    if not isinstance(config.proposals, ImportedProposals):
        raise ValueError("proposals: expected proposals=import, got another method; run `detpipe propose`")
    propose.run(config)
