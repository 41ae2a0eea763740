"""A run folder for a corrected data set, with the results of an earlier run that the corrections do not change.

Proposals depend on the images alone, and so do the features of the test regions. The features of training regions
stay if their image is unchanged: `detpipe features` takes rows of equal regions from a store at the place of a backup,
and computes only the others.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from detpipe.datasets.source import Split
from detpipe.plugins import PluginError
from detpipe.proposals.methods import proposer_of
from detpipe.runs.run_folder import RunFolder, dataset_digest, images_digest
from detpipe.storage.atomic import write_json
from detpipe.storage.backup import backup_path
from detpipe.storage.manifest import ArtefactError, Manifest, find_manifest, manifest_path
from detpipe.structures import Dataset

logger = logging.getLogger(__name__)

Splits = Mapping[Split, Dataset]


def carry_results(old: RunFolder, new: RunFolder, before: Splits, after: Splits) -> list[str]:
    """Put the results of the run `old` that hold for the corrected data set into the new run folder.

    before, after: the splits of the data set and of its corrected copy. The copy has the same images, and maybe
    more: `detpipe propose` then proposes on the new ones only. Large files are hard links where the file system
    allows it, because no command changes a file of a complete artefact. The old run is not changed. Returns what was
    carried over, in words; [] for a run without complete proposals of these images.
    """
    proposals = _carry_proposals(old, new, before, after)
    if proposals is None:
        return []
    carried = ["proposals"]
    for split in (Split.train, Split.test):
        if split in after and _carry_features(old, new, split, before[split], after[split], proposals):
            carried.append(f"features of the {split.value} images")
    return carried


def _carry_proposals(old: RunFolder, new: RunFolder, before: Splits, after: Splits) -> tuple[str, str] | None:
    """Copy the proposals. Returns the digests of the old and the new ones; None if there are none to copy."""
    manifest = _complete(old.proposals)
    if manifest is None:
        return None
    described: Mapping[str, Any] = manifest.settings["proposals"]
    if _needs_labels(described, old):
        logger.info("%s: its proposer learnt from the labels, so the new run proposes again", old.proposals)
        return None
    inputs = dict(manifest.inputs)
    for split, dataset in before.items():
        if inputs.get(split.value) == dataset_digest(dataset):  # of an earlier version
            inputs[split.value] = images_digest(dataset)
        if inputs.get(split.value) != images_digest(without_new(after[split], dataset)):
            logger.info("%s: it is of other images, so the new run proposes again", old.proposals)
            return None
        inputs[split.value] = images_digest(after[split])
    is_all = all(len(after[split]) == len(dataset) for split, dataset in before.items())
    copied = dataclasses.replace(manifest, inputs=inputs, complete=is_all)
    _put(old.proposals, new.proposals, copied, link=False)
    return manifest.digest, copied.digest


def without_new(after: Dataset, before: Dataset) -> Dataset:
    """The images of `after` that `before` has, too."""
    ids = {record.image_id for record in before.records}
    return dataclasses.replace(after, records=tuple(one for one in after.records if one.image_id in ids))


def _needs_labels(described: Mapping[str, Any], old: RunFolder) -> bool:
    """Whether a proposer uses the objects, or a network that this run has trained on them."""
    try:
        proposer = proposer_of(described)
    except (ValueError, PluginError):  # of another version, or missing: whether it uses them is not known
        return True
    if proposer is not None and proposer.uses_objects:
        return True
    weights = described.get("weights")
    return bool(weights) and (old.multibox.exists() or Path(str(weights)).resolve().is_relative_to(old.path.resolve()))


def _carry_features(
    old: RunFolder, new: RunFolder, split: Split, before: Dataset, after: Dataset, proposals: tuple[str, str]
) -> bool:
    """Put a store of features into the new run: complete if its rows stay the same, else as the one to take rows from.

    proposals: the digests of the old and of the new proposals.
    """
    path = old.features(split)
    manifest = _complete(path)
    if manifest is None or manifest.inputs.get("proposals") != proposals[0]:
        return False
    same_classes = (before.classes, before.category_ids) == (after.classes, after.category_ids)
    # The regions of test images are proposals without labels. For training images the objects decide about regions.
    same_rows = dataset_digest(before) == dataset_digest(after) or (split is Split.test and same_classes)
    if same_rows and manifest.inputs.get(split.value) == dataset_digest(before):
        inputs = {"proposals": proposals[1], split.value: dataset_digest(after)}
        _put(path, new.features(split), dataclasses.replace(manifest, inputs=inputs), link=True)
    else:
        _put(path, backup_path(new.features(split)), manifest, link=True)
    return True


def _complete(path: Path) -> Manifest | None:
    try:
        manifest = find_manifest(path) if path.is_dir() else None
    except ArtefactError:
        return None
    return manifest if manifest is not None and manifest.complete else None


def _put(old: Path, new: Path, manifest: Manifest, *, link: bool) -> None:
    """Put the regular files of a complete artefact into a new folder, with another manifest."""
    new.mkdir(parents=True)
    for path in sorted(old.iterdir()):
        is_content = path.is_file() and path != manifest_path(old) and path.name != "lock.mdb"
        if is_content and not (link and _linked(path, new / path.name)):
            shutil.copyfile(path, new / path.name)
    write_json(manifest_path(new), dataclasses.asdict(manifest))


def _linked(path: Path, new: Path) -> bool:
    try:
        os.link(path.resolve(), new)
    except OSError:  # another disk, or a file system without links
        return False
    return True
