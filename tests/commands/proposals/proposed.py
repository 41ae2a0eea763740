"""Run folders that hold proposals and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

from detpipe.commands import propose
from detpipe.commands.run_settings import Propose
from detpipe.datasets.source import DatasetSource
from detpipe.datasets.voc import VocSource
from detpipe.proposals.files.imported import ImportedProposals
from detpipe.proposals.proposer import Proposer
from tests import drawn


def propose_into(folder: Path, source: DatasetSource, proposer: Proposer) -> Path:
    """A run folder with the proposals of every split."""
    propose.run(Propose(run_dir=str(folder), dataset=source, proposals=proposer, workers=0))
    return folder


def propose_all_but(missing: str, voc_root: Path, folder: Path) -> Path:
    """A run folder with the objects themselves as proposals, but none of the image `missing`."""
    results = [
        {"image_id": name, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1], "score": 0.9}
        for number, name in enumerate((*drawn.TRAIN, *drawn.TEST))
        for x1, y1, x2, y2 in drawn.draw(number)[1].boxes.tolist()
        if name != missing
    ]
    folder.mkdir()
    (folder / "boxes.json").write_text(json.dumps(results))
    source = VocSource(root=str(voc_root), max_bad=0.5)
    return propose_into(folder, source, ImportedProposals(path=str(folder / "boxes.json")))
