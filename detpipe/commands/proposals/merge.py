"""`detpipe proposals merge`: merge shards, made from parts of a data set with equal settings -> one proposals.lmdb.

The result has the key and the records, byte for byte, of `detpipe propose` on the whole data set.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from detpipe.commands import propose
from detpipe.commands.proposals.settings import ProposalsMerge
from detpipe.datasets.image_file import file_digest
from detpipe.datasets.source import Split
from detpipe.progress import progress
from detpipe.proposals.proposals_db import ProposalsReader, ProposalsWriter, find_database, parse_proposals
from detpipe.runs.kept_dataset import keep_dataset
from detpipe.runs.run_folder import load_splits, splits_digests
from detpipe.storage.manifest import Artefact, Manifest, differences, read_manifest
from detpipe.structures import ImageRecord, LeftOut

logger = logging.getLogger(__name__)


class ShardError(ValueError):
    """Shards that do not fit together."""


def run(config: ProposalsMerge) -> None:
    """Copy the record of each image from the shard that has it, and measure the recall.

    Raises ShardError for shards with different settings, or with different records of an image.
    """
    shards = [find_database(shard) for shard in config.shards]
    if not shards:
        raise ValueError("shards: expected proposals.lmdb or run folders, got none; give shards=[runs/a,runs/b]")
    if config.folder.proposals.resolve() in [shard.resolve() for shard in shards]:
        raise ValueError(
            f"shards: expected other databases than the result, got {config.folder.proposals}; give another run_dir"
        )
    splits = load_splits(config.data_source)
    settings, other_inputs = common_key(shards)
    inputs = {**splits_digests(splits), **other_inputs}
    artefact = Artefact(config.folder.proposals, stage="propose", settings=settings, inputs=inputs)
    with artefact.making(overwrite=config.overwrite) as making:
        keep_dataset(config.folder, config.data_source)
        if making.needed:
            tasks = [(split, record) for split, dataset in splits.items() for record in dataset.records]
            propose.seal(config, splits, making, copy_records(config.folder.proposals, shards, tasks))
    propose.report(config.folder, artefact)


def common_key(shards: Sequence[Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings of all shards, and their inputs except the splits. Raises ShardError if two differ."""
    manifests = [_without_splits(read_manifest(shard)) for shard in shards]
    for shard, manifest in zip(shards, manifests, strict=True):
        if manifest.digest != manifests[0].digest:
            raise ShardError(
                f"{shard}: expected the settings of {shards[0]}, got {'; '.join(differences(manifests[0], manifest))}; "
                "make the shards with equal settings"
            )
        if manifest.detpipe != manifests[0].detpipe:
            logger.warning("%s: made by detpipe %s, %s by %s", shard, manifest.detpipe, shards[0], manifests[0].detpipe)
    return manifests[0].settings, manifests[0].inputs


def _without_splits(manifest: Manifest) -> Manifest:
    names = {split.value for split in Split}
    inputs = {name: digest for name, digest in manifest.inputs.items() if name not in names}
    return Manifest(stage=manifest.stage, settings=manifest.settings, inputs=inputs, detpipe=manifest.detpipe)


def copy_records(target: Path, shards: Sequence[Path], tasks: Sequence[tuple[Split, ImageRecord]]) -> list[LeftOut]:
    """Copy the record of each image from its shard. Returns the images that no shard has."""
    bad = []
    with ExitStack() as stack:
        readers = [stack.enter_context(ProposalsReader(shard)) for shard in shards]
        writer = stack.enter_context(ProposalsWriter(target))
        for split, record in progress(tasks, "merge", total=len(tasks), unit="images"):
            data = record_in(readers, split, record)
            if data is None:
                key = f"{split.value}/{record.image_id}"
                bad.append(LeftOut(str(record.path), f"no shard has {split.value} image {record.image_id}", key))
            else:
                writer.put(split.value, record.image_id, data)
    return bad


def record_in(readers: Sequence[ProposalsReader], split: Split, record: ImageRecord) -> bytes | None:
    """Return the bytes of an image's record; None if no shard has it.

    Raises ShardError if two shards have different records, or the image's file has changed since, CorruptRecordError if
    the record is damaged.
    """
    key = (split.value, record.image_id)
    found = {reader.raw(*key): reader.path for reader in readers if key in reader}
    name = f"{split.value} image {record.image_id}"
    if len(found) > 1:
        raise ShardError(
            f"{name}: expected one record, got different ones in {' and '.join(map(str, found.values()))}; "
            "remove a shard"
        )
    for data, path in found.items():
        if parse_proposals(data, f"{path}, {name}").image_digest != file_digest(record.path):
            raise ShardError(
                f"{path}: expected the record of {record.path}, got one of other bytes ({name}); make this shard again"
            )
        return data
    return None
