"""`detpipe proposals merge`: shards, made on parts of a data set by the same settings -> one proposals.lmdb.

What comes out has the key, and byte for byte the records, of a `propose` on the whole data set.
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
from detpipe.runs.run_folder import load_splits, splits_digests
from detpipe.storage.manifest import Artefact, Manifest, differences, read_manifest
from detpipe.structures import ImageRecord, LeftOut

logger = logging.getLogger(__name__)


class ShardError(ValueError):
    """Shards that are not parts of one whole."""


def run(config: ProposalsMerge) -> None:
    """Copy the record of each image of the data set from the shard that has it, and measure the recall.

    Raises ShardError for shards of different settings, or with different records of one image.
    """
    shards = [find_database(shard) for shard in config.shards]
    if not shards:
        raise ValueError("merge: expected shards, got none; give shards=[runs/a,runs/b]")
    if config.folder.proposals.resolve() in [shard.resolve() for shard in shards]:
        raise ValueError(f"merge: {config.folder.proposals} is itself a shard; give another run_dir")
    splits = load_splits(config.data_source)
    settings, beside = common_key(shards)
    inputs = {**splits_digests(splits), **beside}
    artefact = Artefact(config.folder.proposals, stage="propose", settings=settings, inputs=inputs)
    with artefact.making(overwrite=config.overwrite) as making:
        if making.needed:
            tasks = [(split, record) for split, dataset in splits.items() for record in dataset.records]
            propose.seal(config, splits, making, copy_records(config.folder.proposals, shards, tasks))
    propose.report(config.folder, artefact)


def common_key(shards: Sequence[Path]) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings of all shards, and their inputs but for the splits. Raises ShardError where two differ."""
    manifests = [_without_splits(read_manifest(shard)) for shard in shards]
    for shard, manifest in zip(shards, manifests, strict=True):
        if manifest.digest != manifests[0].digest:
            raise ShardError(
                f"{shard}: made with other settings than {shards[0]}: {'; '.join(differences(manifests[0], manifest))}"
            )
        if manifest.detpipe != manifests[0].detpipe:
            logger.warning("%s: made by detpipe %s, %s by %s", shard, manifest.detpipe, shards[0], manifests[0].detpipe)
    return manifests[0].settings, manifests[0].inputs


def _without_splits(manifest: Manifest) -> Manifest:
    names = {split.value for split in Split}
    inputs = {name: digest for name, digest in manifest.inputs.items() if name not in names}
    return Manifest(stage=manifest.stage, settings=manifest.settings, inputs=inputs, detpipe=manifest.detpipe)


def copy_records(target: Path, shards: Sequence[Path], tasks: Sequence[tuple[Split, ImageRecord]]) -> list[LeftOut]:
    """Write the record of each image as it stands in its shard; returns images that no shard has."""
    bad = []
    with ExitStack() as stack:
        readers = [stack.enter_context(ProposalsReader(shard)) for shard in shards]
        writer = stack.enter_context(ProposalsWriter(target))
        for split, record in progress(tasks, "merge", total=len(tasks), unit="image"):
            found = record_in(readers, split, record)
            if found is None:
                key = f"{split.value}/{record.image_id}"
                bad.append(LeftOut(str(record.path), f"in no shard as {split.value} image {record.image_id}", key))
            else:
                writer.put(split.value, record.image_id, found)
    return bad


def record_in(readers: Sequence[ProposalsReader], split: Split, record: ImageRecord) -> bytes | None:
    """The bytes of an image's record, None where no shard has it.

    Raises ShardError where two shards have different ones, or the image's file is another than theirs;
    CorruptRecordError where it is damaged.
    """
    there = [reader for reader in readers if (split.value, record.image_id) in reader]
    found = {reader.raw(split.value, record.image_id): reader.path for reader in there}
    name = f"{split.value} image {record.image_id}"
    if len(found) > 1:
        raise ShardError(f"{name}: expected one record, got different ones in {' and '.join(map(str, found.values()))}")
    for data, path in found.items():
        if parse_proposals(data, f"{path}, {name}").image_digest != file_digest(record.path):
            raise ShardError(f"{path}: {name} was another file than {record.path} is now; make this shard again")
        return data
    return None
