"""`detpipe proposals show`: draw proposals on images -> proposals_shown/, one picture per image and a page."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from detpipe.commands.proposals.settings import ProposalsShow
from detpipe.console import RESULT, amount
from detpipe.datasets.image_file import BrokenImageError, read_image
from detpipe.proposals.proposals_db import StoredProposals
from detpipe.report.drawing import to_jpeg
from detpipe.report.proposal_page import ShownImage, best_boxes, draw_proposals, write_proposal_page
from detpipe.storage.atomic import write_bytes
from detpipe.structures import Dataset, ImageRecord

logger = logging.getLogger(__name__)


def run(config: ProposalsShow) -> None:
    """Draw the proposals on some images of a split."""
    split = config.open_split()
    dataset = split.dataset
    records = chosen(dataset, config.images, config.count)
    folder = config.folder.path / "proposals_shown"
    clear(folder)
    shown = []
    for number, (record, stored) in enumerate(split.read(records), start=1):
        one = show(config, dataset, record, stored)
        if one is not None:
            # Cut, because a file name has at most 255 bytes and the stem alone may have as many.
            file = folder / f"{number:04}_{record.path.stem[:40]}.jpg"
            write_bytes(file, to_jpeg(one.picture))
            shown.append((file.name, one.small()))
    write_proposal_page(
        folder / "index.html", dataset.name, shown, top=config.top, budget=config.budget, min_iou=config.min_iou
    )
    found, objects = sum(one.found or 0 for _, one in shown), sum(one.objects or 0 for _, one in shown)
    tally = "" if dataset.ground_truth is None else f"; {found} of {objects} objects found"
    logger.log(RESULT, "show: %s%s -> %s", amount(len(shown), "images"), tally, folder / "index.html")


def chosen(dataset: Dataset, images: Sequence[str], count: int) -> list[ImageRecord]:
    """Return the images with the given ids, in this order, or the first `count`.

    Raises ValueError for an unknown id.
    """
    if not images:
        return list(dataset.records[:count])
    by_id = {str(record.image_id): record for record in dataset.records}
    unknown = [name for name in images if name not in by_id]
    if unknown:
        some = ", ".join(list(by_id)[:3])
        raise ValueError(
            f"images: expected ids of {dataset.name} ({some}, ...), got {', '.join(unknown)}; give known ids"
        )
    return [by_id[name] for name in images]


def show(
    config: ProposalsShow, dataset: Dataset, record: ImageRecord, stored: StoredProposals | None
) -> ShownImage | None:
    """Return one image with its boxes; logs a warning and returns None if it has no proposals or is unreadable."""
    if stored is None:
        logger.warning("left out: %s has no proposals", record.path)
        return None
    try:
        image = read_image(record.path, record.options)
    except (BrokenImageError, OSError) as error:
        logger.warning("left out: %s", error)
        return None
    proposals, truth = stored.proposals, dataset.ground_truth
    best = None if truth is None else best_boxes(truth[record.image_id].measured, proposals.top(config.budget))
    drawn = draw_proposals(image, proposals, best, dataset.classes, top=config.top, min_iou=config.min_iou)
    return ShownImage.of(record.path.name, drawn, len(proposals), best, config.min_iou)


def clear(folder: Path) -> None:
    """Delete the pictures of an earlier call, and no other files."""
    for old in folder.glob("[0-9][0-9][0-9][0-9]_*.jpg"):
        old.unlink()
