"""The proposer of a run, from the manifest of proposals.lmdb or from classifier/proposals.json.

The second makes a classifier's folder a complete detector that can be moved alone.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from detpipe.classify.classifier_folder import ClassifierError
from detpipe.plugins import PluginError
from detpipe.proposals.methods import method_name, proposer_of
from detpipe.proposals.proposer import Proposer
from detpipe.proposals.selective_search.search import SelectiveSearch
from detpipe.runs.run_folder import RunFolder
from detpipe.storage.atomic import write_json
from detpipe.storage.dataclass_json import DataclassJsonError, read_object
from detpipe.storage.manifest import Manifest, find_manifest, read_manifest

logger = logging.getLogger(__name__)

DESCRIPTION = "proposals.json"
"""The file in the classifier's folder."""


def keep_proposer(folder: RunFolder, classifier: Path) -> None:
    """Save the proposer of the run in a classifier's folder; nothing if it is unknown.

    Errors, such as a missing network, are logged and not raised: this runs after hours of training.
    """
    try:
        _keep_proposer(folder, classifier)
    except (OSError, ValueError, PluginError) as error:
        logger.warning(
            "%s: the proposer could not be saved with the classifier, so it may not work on new images: %s",
            classifier,
            error,
        )


def _keep_proposer(folder: RunFolder, classifier: Path) -> None:
    manifest = find_manifest(folder.proposals)
    if manifest is not None and not manifest.complete:  # being recomputed: the crops may be of the earlier proposals
        return
    description = describe_proposer(folder)
    if description is not None:
        write_json(classifier / DESCRIPTION, description)
        proposer = proposer_of(description)
        if proposer is not None:
            # Without proposals.lmdb, the classifier was moved alone, and its proposing network is in its folder.
            (proposer if folder.proposals.is_dir() else proposer.kept_in(folder.classifier)).keep(classifier)


def with_moved_network(description: dict[str, Any], folder: RunFolder, manifest: Manifest) -> dict[str, Any]:
    """Return the description with the run folder's own network if the path in it is gone: a run folder may move."""
    if not description.get("weights") or Path(description["weights"]).is_dir() or not folder.multibox.is_dir():
        return description
    moved = {**description, "weights": str(folder.multibox)}
    proposer = proposer_of(moved)
    try:
        inputs = proposer.inputs() if proposer is not None else {}
    except (OSError, ValueError):  # one of the network's files is missing, or these are the weights of another method
        return description
    same = proposer is not None and all(manifest.inputs.get(name) == digest for name, digest in inputs.items())
    return moved if same else description


def proposer_of_run(folder: RunFolder) -> Proposer:
    """Return the proposer that made the run's proposals.

    Selective search is returned if that proposer is unknown, or needs more than pixels.
    Raises ClassifierError for an invalid classifier/proposals.json, ValueError for settings of another version, and
    PluginError for a plug-in that is missing, broken, or named by the file alone.
    """
    description = describe_proposer(folder)
    if description is None:
        return SelectiveSearch()
    proposer = proposer_of(description)
    if proposer is not None and proposer.from_pixels:
        return proposer.kept_in(folder.classifier)
    logger.warning(
        "%s: its proposals were made by %s, which needs more than an image; new images use selective search, "
        "or the boxes of `detect source=DIR boxes=FILE`",
        folder.path,
        method_name(description),
    )
    return SelectiveSearch()


def describe_proposer(folder: RunFolder) -> dict[str, Any] | None:
    """Return `Proposer.describe()` of the run's proposals, or of classifier/proposals.json if the run has none."""
    if folder.proposals.is_dir():
        manifest = read_manifest(folder.proposals)
        return with_moved_network(manifest.settings["proposals"], folder, manifest)
    path = folder.classifier / DESCRIPTION
    try:
        description = read_object(path)
    except FileNotFoundError:
        return None
    except DataclassJsonError as error:
        raise ClassifierError(f"{error}; correct or delete it") from error
    if "method" not in description:
        raise ClassifierError(
            f"{path}: expected a proposer's method and settings, got {str(description)[:100]}; correct or delete it"
        )
    return description
