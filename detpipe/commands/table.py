"""The table of commands: a new command is one row here and one file with its settings and `run(config)`.

Nothing is imported from here before a command is chosen, so `detpipe --help` answers at once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from detpipe.class_path import load_class


@dataclass(frozen=True)
class CommandRow:
    """One row.

    name: as it is typed. settings: "module:Class" of its dataclass. help: one line. work: the module of `run(config)`,
    where it is not that of the settings. torchrun: whether several processes of torchrun may run it together.
    writes_run_dir: whether Hydra keeps its log and the composed settings in run_dir.
    """

    name: str
    settings: str
    help: str
    work: str = ""
    torchrun: bool = False
    writes_run_dir: bool = True

    @property
    def application(self) -> str:
        """The name as Hydra and file names have it: "proposals info" is proposals-info."""
        return self.name.replace(" ", "-")

    def load_settings(self) -> type:
        """The dataclass of its settings."""
        return load_class(self.settings)

    def load_run(self) -> Callable[[Any], None]:
        """The function that does the work."""
        run: Callable[[Any], None] = import_module(self.work or self.settings.partition(":")[0]).run
        return run


COMMANDS: dict[str, CommandRow] = {
    row.name: row
    for row in (
        CommandRow(
            "run",
            "detpipe.commands.run_settings:Run",
            "the whole flow: proposals, crops, classifier, detections, metrics and the page",
            work="detpipe.commands.run",
        ),
        CommandRow(
            "check",
            "detpipe.commands.check:Check",
            "list the faults of a data set",
        ),
        CommandRow(
            "propose",
            "detpipe.commands.run_settings:Propose",
            "where might things be: proposals of every image, and their recall",
            work="detpipe.commands.propose",
        ),
        CommandRow(
            "train-multibox",
            "detpipe.commands.stage_settings:TrainMultiBox",
            "a network learns where things might be: the proposer of proposals=multibox",
            work="detpipe.commands.train_multibox",
            torchrun=True,
        ),
        CommandRow(
            "crop",
            "detpipe.commands.stage_settings:Crop",
            "what a classifier learns from: labelled regions in a database",
            work="detpipe.commands.crop",
        ),
        CommandRow(
            "features",
            "detpipe.commands.stage_settings:Features",
            "what a frozen network sees in each region, computed once: any head trains on it in seconds",
            work="detpipe.commands.features",
        ),
        CommandRow(
            "train-cls",
            "detpipe.commands.stage_settings:TrainImages",
            "what are they: fine-tune a classifier on the crops, or on a database of images (db.train=DB)",
            work="detpipe.commands.train_cls.command",
            torchrun=True,
        ),
        CommandRow(
            "detect",
            "detpipe.commands.stage_settings:Detect",
            "classify the proposals of the test images, or of any image or folder (source=PATH)",
            work="detpipe.commands.detect",
        ),
        CommandRow(
            "eval",
            "detpipe.commands.stage_settings:EvaluateImages",
            "average precisions of detections (detections=FILE: anybody's), or a classifier on a database of "
            "images (db=DB), and the page",
            work="detpipe.commands.images.evaluate",
        ),
        CommandRow(
            "compress",
            "detpipe.commands.detector_settings:Compress",
            "a Fast R-CNN with thinner layers, by truncated SVD, in a run folder of its own (run_dir=DIR out=DIR)",
            work="detpipe.commands.compress",
            writes_run_dir=False,
        ),
        CommandRow(
            "export",
            "detpipe.commands.detector_settings:Export",
            "the network of a run as ONNX or torch.export's file, and how to use it (run_dir=DIR out=DIR)",
            work="detpipe.commands.export",
            writes_run_dir=False,
        ),
        CommandRow(
            "curve",
            "detpipe.commands.detector_settings:Curve",
            "mAP, recall and seconds against the number of proposals, and the fewest that do",
            work="detpipe.commands.curve",
        ),
        CommandRow(
            "make-db",
            "detpipe.commands.images.make_db:MakeDb",
            "a list of images, or a folder a class, as a database that Caffe reads, too",
            writes_run_dir=False,
        ),
        CommandRow(
            "compute-mean",
            "detpipe.commands.images.compute_mean:ComputeMean",
            "the mean image of a database (db=DB), as .binaryproto or .npy (out=FILE)",
            writes_run_dir=False,
        ),
        CommandRow(
            "classes add",
            "detpipe.commands.detector_settings:ClassesAdd",
            "a class that the detector doesn't know, trained from the stored features in seconds",
            work="detpipe.commands.classes.add",
        ),
        CommandRow(
            "classes remove",
            "detpipe.commands.detector_settings:ClassesRemove",
            "a class less, the others as they are",
            work="detpipe.commands.classes.remove",
        ),
        CommandRow(
            "proposals info",
            "detpipe.commands.proposals.settings:ProposalsInfo",
            "what a proposals.lmdb holds and what made it",
            work="detpipe.commands.proposals.info",
            writes_run_dir=False,
        ),
        CommandRow(
            "proposals verify",
            "detpipe.commands.proposals.settings:ProposalsVerify",
            "is it whole, and are its images those that are there now (with dataset=)",
            work="detpipe.commands.proposals.verify",
            writes_run_dir=False,
        ),
        CommandRow(
            "proposals recall",
            "detpipe.commands.proposals.settings:ProposalsRecall",
            "how many objects do they find: curves and tables, method beside method (against=[...])",
            work="detpipe.commands.proposals.recall",
        ),
        CommandRow(
            "proposals show",
            "detpipe.commands.proposals.settings:ProposalsShow",
            "the boxes on the images, as pictures and a page",
            work="detpipe.commands.proposals.show",
        ),
        CommandRow(
            "proposals export",
            "detpipe.commands.proposals.settings:ProposalsExport",
            "as a file of COCO, Detectron2, MMDetection or R-CNN",
            work="detpipe.commands.proposals.export",
            writes_run_dir=False,
        ),
        CommandRow(
            "proposals import",
            "detpipe.commands.proposals.import_:ProposalsImport",
            "boxes that another program made (proposals.path=FILE), as a proposals.lmdb",
        ),
        CommandRow(
            "proposals fuse",
            "detpipe.commands.proposals.fuse:ProposalsFuse",
            "several (sources=[...]) joined into one that knows its sources",
        ),
        CommandRow(
            "proposals merge",
            "detpipe.commands.proposals.settings:ProposalsMerge",
            "shards (shards=[...]), made on parts of a data set, as one",
            work="detpipe.commands.proposals.merge",
        ),
        CommandRow(
            "inspect run",
            "detpipe.commands.inspect.settings:InspectRun",
            "how a training went, or goes: curves, speed, snapshots",
            work="detpipe.commands.inspect.run",
            writes_run_dir=False,
        ),
        CommandRow(
            "inspect db",
            "detpipe.commands.inspect.settings:InspectDb",
            "what a database of images holds (db=DB), every record read: labels, pictures, mean, faults",
            work="detpipe.commands.inspect.db",
            writes_run_dir=False,
        ),
        CommandRow(
            "inspect weights",
            "detpipe.commands.inspect.settings:InspectWeights",
            "the tensors of any file of weights: sizes, filters, change against another file",
            work="detpipe.commands.inspect.weights",
        ),
        CommandRow(
            "inspect activations",
            "detpipe.commands.inspect.settings:InspectActivations",
            "how large weights, activations and gradients are, layer by layer; feature maps",
            work="detpipe.commands.inspect.activations",
        ),
        CommandRow(
            "inspect time",
            "detpipe.commands.inspect.settings:InspectTime",
            "time and memory of each layer, forward and backward",
            work="detpipe.commands.inspect.time",
        ),
    )
}
"""By the name as it is typed, in the order of `detpipe --help`."""

FAMILIES: dict[str, str] = {
    "classes": "add a class to a detector on stored features, or remove one",
    "proposals": "look into, check, join and hand on proposals",
    "inspect": "look inside a training, a database, a network",
}
"""The first words of commands of two words, with one line of help each."""


def family_of(first_word: str) -> dict[str, CommandRow]:
    """The commands that begin with this word, by their second word; none for a word that is no family."""
    start = f"{first_word} "
    return {name.removeprefix(start): row for name, row in COMMANDS.items() if name.startswith(start)}


def refuse_torchrun(what: str) -> None:
    """Raise ValueError where torchrun started several processes: `what` would be done by each, in the same folder."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    if processes > 1:
        raise ValueError(
            f"{what}: expected one process, got WORLD_SIZE={processes}; start it without torchrun (only train-multibox "
            "and train-cls of a network share their work)"
        )
