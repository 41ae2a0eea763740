"""Trainings on whole images by two processes: layers of EfficientNet-Lite0 above the last map get no gradient."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from detpipe.storage.manifest import read_manifest
from tests import drawn

BRIEF = (
    "backbone.weights=none",
    "device=cpu",
    "workers=0",
    "precision=float32",
    "solver.max_iter=2",
    "solver.display=1",
    "solver.batch_size=8",
)
REGIONS = ("head.scales=[64]", "head.images_per_batch=2", "sampling.val_share=0.3")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "artefact"),
    [
        (["train-cls", "head=fast_rcnn", *REGIONS], "classifier"),
        (["train-cls", "head=multibox_fast_rcnn", *REGIONS], "classifier"),
        (["train-multibox", "multibox.scales=[64]", "val_share=0.3"], "multibox"),
        (["train-multibox", "multibox.scales=[64]", "multibox.priors=1", "val_share=0.3"], "multibox"),
    ],
)
def test_two_processes_train(words: list[str], artefact: str, proposed_copy: Path, voc_root: Path) -> None:
    """One prior alone leaves maps without any, whose layers get no gradient either."""
    run = proposed_copy / "gaussian"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "detpipe"]
    done = subprocess.run(
        [*launch, *words, *drawn.voc(voc_root), *BRIEF, f"run_dir={run}"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert read_manifest(run / artefact).complete
    assert len(load_file(run / artefact / "weights.safetensors"))
    rows = [json.loads(line) for line in (run / artefact / "log.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2]
