"""The proposer of a run: from the proposals' manifest, or as kept in the classifier's folder, a detector by itself."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from detpipe.classify.classifier_folder import ClassifierError
from detpipe.proposals.methods import method_name, proposer_of
from detpipe.proposals.proposer import Proposer
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.runs.run_folder import RunFolder
from detpipe.storage.atomic import write_json
from detpipe.storage.manifest import Manifest, find_manifest, read_manifest

logger = logging.getLogger(__name__)

DESCRIPTION = "proposals.json"
"""In a classifier's folder."""


def keep_proposer(folder: RunFolder, classifier: Path) -> None:
    """Write how the run's proposals were made into a classifier's folder; nothing where it isn't known.

    It comes last, after hours: what can't be kept, as a network that is gone, is said, and ends no training.
    """
    try:
        _keep_proposer(folder, classifier)
    except (OSError, ValueError) as error:
        logger.warning(
            "%s: how its proposals were made could not be kept whole beside it, so it may look at no new images: %s",
            classifier,
            error,
        )


def _keep_proposer(folder: RunFolder, classifier: Path) -> None:
    found = find_manifest(folder.proposals)
    if found is not None and not found.complete:  # being made anew: crops may be of those before
        return
    description = described_proposer(folder)
    if description is not None:
        write_json(classifier / DESCRIPTION, description)
        proposer = proposer_of(description)
        if proposer is not None:
            # Of a classifier that was carried elsewhere alone, the network stands beside it.
            (proposer if folder.proposals.is_dir() else proposer.kept_in(folder.classifier)).keep(classifier)


def moved_along(described: dict[str, Any], folder: RunFolder, manifest: Manifest) -> dict[str, Any]:
    """The description with the run's own network where the path that it names is gone: a run folder may move."""
    if not described.get("weights") or Path(described["weights"]).is_dir() or not folder.multibox.is_dir():
        return described
    here = {**described, "weights": str(folder.multibox)}
    proposer = proposer_of(here)
    try:
        inputs = proposer.inputs() if proposer is not None else {}
    except OSError:  # a file of it is gone
        return described
    same = proposer is not None and all(manifest.inputs.get(name) == one for name, one in inputs.items())
    return here if same else described


def proposer_of_run(folder: RunFolder) -> Proposer:
    """The proposer that made the run's proposals, or selective search where that one needs more than an image.

    Selective search, too, where nothing tells of it. Raises ClassifierError for a broken file beside the classifier,
    ValueError for settings of another version.
    """
    description = described_proposer(folder)
    if description is None:
        return SelectiveSearch()
    proposer = proposer_of(description)
    if proposer is not None and proposer.from_pixels:
        return proposer.kept_in(folder.classifier)
    logger.warning(
        "%s: its proposals were made by %s; new images are looked at with selective search",
        folder.path,
        method_name(description),
    )
    return SelectiveSearch()


def described_proposer(folder: RunFolder) -> dict[str, Any] | None:
    """What `Proposer.describe` gave, of the run's proposals or, where they are not there, beside its classifier."""
    if folder.proposals.is_dir():
        manifest = read_manifest(folder.proposals)
        described: dict[str, Any] = manifest.settings["proposals"]
        return moved_along(described, folder, manifest)
    path = folder.classifier / DESCRIPTION
    if not path.is_file():
        return None
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ClassifierError(
            f"{path}: expected a proposer's settings in JSON, got: {error}; delete or mend it"
        ) from error
    if not isinstance(described, dict) or "method" not in described:
        raise ClassifierError(f"{path}: expected a proposer's method and settings, got {str(described)[:100]}")
    return described
