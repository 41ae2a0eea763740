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
    if it is not the settings' module. torchrun: whether several processes of torchrun may run it together.
    writes_run_dir: whether Hydra keeps its log and the composed settings in run_dir. argument: the setting that a
    first word without "=" sets, as `detpipe detect photos` sets source.
    """

    name: str
    settings: str
    help: str
    work: str = ""
    torchrun: bool = False
    writes_run_dir: bool = True
    argument: str = ""

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
            "train and evaluate a detector: all steps, metrics and a report",
            work="detpipe.commands.run",
        ),
        CommandRow(
            "check",
            "detpipe.commands.check:Check",
            "list the faults of a data set",
        ),
        CommandRow(
            "convert",
            "detpipe.commands.convert:Convert",
            "write a data set as COCO, VOC or YOLO",
            writes_run_dir=False,
        ),
        CommandRow(
            "propose",
            "detpipe.commands.run_settings:Propose",
            "propose boxes on every image, and measure their recall",
            work="detpipe.commands.propose",
        ),
        CommandRow(
            "train-multibox",
            "detpipe.commands.stage_settings:TrainMultiBox",
            "train MultiBox, a network that proposes boxes (for proposals=multibox)",
            work="detpipe.commands.train_multibox",
            torchrun=True,
        ),
        CommandRow(
            "crop",
            "detpipe.commands.stage_settings:Crop",
            "cut labelled regions out of the training images into a database",
            work="detpipe.commands.crop",
        ),
        CommandRow(
            "features",
            "detpipe.commands.stage_settings:Features",
            "compute and store the features of regions, so that a head trains in seconds",
            work="detpipe.commands.features",
        ),
        CommandRow(
            "train-cls",
            "detpipe.commands.stage_settings:TrainImages",
            "train the classifier: of regions, or of whole images (db.train=DB)",
            work="detpipe.commands.train_cls.command",
            torchrun=True,
        ),
        CommandRow(
            "detect",
            "detpipe.commands.stage_settings:Detect",
            "detect objects in the test images, or in any image or folder (source=PATH)",
            work="detpipe.commands.detect",
            argument="source",
        ),
        CommandRow(
            "eval",
            "detpipe.commands.stage_settings:EvaluateImages",
            "measure detections (detections=FILE: of any detector), or a classifier of images (db=DB)",
            work="detpipe.commands.images.evaluate",
            argument="run_dir",
        ),
        CommandRow(
            "blame",
            "detpipe.commands.blame_settings:Blame",
            "tell why objects were missed and what false detections show, and what to do next",
            work="detpipe.commands.blame",
            argument="run_dir",
        ),
        CommandRow(
            "explain",
            "detpipe.commands.explain_settings:Explain",
            "tell why the objects of one image were missed (run_dir=DIR image=NAME)",
            work="detpipe.commands.explain",
            argument="run_dir",
        ),
        CommandRow(
            "compress",
            "detpipe.commands.detector_settings:Compress",
            "make the layers of a Fast R-CNN smaller by truncated SVD (run_dir=DIR out=DIR)",
            work="detpipe.commands.compress",
            writes_run_dir=False,
            argument="run_dir",
        ),
        CommandRow(
            "export",
            "detpipe.commands.detector_settings:Export",
            "write the network of a run as an ONNX or torch.export file (run_dir=DIR out=DIR)",
            work="detpipe.commands.export",
            writes_run_dir=False,
            argument="run_dir",
        ),
        CommandRow(
            "curve",
            "detpipe.commands.detector_settings:Curve",
            "plot mAP, recall and time against the number of proposals",
            work="detpipe.commands.curve",
            argument="run_dir",
        ),
        CommandRow(
            "learning-curve",
            "detpipe.commands.learning_curve_settings:LearningCurve",
            "plot mAP against the number of training images: more labels, better proposals or more pixels?",
            work="detpipe.commands.learning_curve",
            argument="run_dir",
        ),
        CommandRow(
            "make-db",
            "detpipe.commands.images.make_db:MakeDb",
            "write a list of images, or one folder per class, as a database that Caffe reads too",
            writes_run_dir=False,
        ),
        CommandRow(
            "compute-mean",
            "detpipe.commands.images.compute_mean:ComputeMean",
            "write the mean image of a database (db=DB) as .binaryproto or .npy (out=FILE)",
            writes_run_dir=False,
            argument="db",
        ),
        CommandRow(
            "classes add",
            "detpipe.commands.detector_settings:ClassesAdd",
            "add a class to a detector on stored features, in seconds",
            work="detpipe.commands.classes.add",
            argument="name",
        ),
        CommandRow(
            "classes remove",
            "detpipe.commands.detector_settings:ClassesRemove",
            "remove a class from a detector on stored features; the others do not change",
            work="detpipe.commands.classes.remove",
            argument="name",
        ),
        CommandRow(
            "labels audit",
            "detpipe.commands.labels.audit_settings:LabelsAudit",
            "find labels that may be wrong: missing, misplaced, of another class, or of no object",
            work="detpipe.commands.labels.audit",
            argument="run_dir",
        ),
        CommandRow(
            "labels apply",
            "detpipe.commands.labels.apply_settings:LabelsApply",
            "write a corrected copy of the data set (corrections=FILE run_dir=DIR out=DIR)",
            work="detpipe.commands.labels.apply",
            writes_run_dir=False,
            argument="corrections",
        ),
        CommandRow(
            "labels export",
            "detpipe.commands.labels.exchange_settings:LabelsExport",
            "write labels, suspects and detections for CVAT, Label Studio, FiftyOne or as COCO",
            work="detpipe.commands.labels.export",
            writes_run_dir=False,
        ),
        CommandRow(
            "labels diff",
            "detpipe.commands.labels.exchange_settings:LabelsDiff",
            "turn labels that were edited in such a tool into corrections.json (edited=FILE)",
            work="detpipe.commands.labels.diff",
            writes_run_dir=False,
            argument="edited",
        ),
        CommandRow(
            "labels next",
            "detpipe.commands.labels.next_settings:LabelsNext",
            "choose unlabelled images (source=FOLDER) to label next, with boxes drawn in advance",
            work="detpipe.commands.labels.next",
            argument="source",
        ),
        CommandRow(
            "proposals info",
            "detpipe.commands.proposals.settings:ProposalsInfo",
            "show the contents of a proposals.lmdb and the settings that made it",
            work="detpipe.commands.proposals.info",
            writes_run_dir=False,
            argument="path",
        ),
        CommandRow(
            "proposals verify",
            "detpipe.commands.proposals.settings:ProposalsVerify",
            "check the records, and with dataset= that the images are unchanged",
            work="detpipe.commands.proposals.verify",
            writes_run_dir=False,
            argument="path",
        ),
        CommandRow(
            "proposals recall",
            "detpipe.commands.proposals.settings:ProposalsRecall",
            "measure recall: curves and tables, several methods side by side (against=[...])",
            work="detpipe.commands.proposals.recall",
            argument="path",
        ),
        CommandRow(
            "proposals show",
            "detpipe.commands.proposals.settings:ProposalsShow",
            "draw the boxes on the images, as pictures and a page",
            work="detpipe.commands.proposals.show",
            argument="path",
        ),
        CommandRow(
            "proposals export",
            "detpipe.commands.proposals.settings:ProposalsExport",
            "write a file for COCO, Detectron2, MMDetection or R-CNN",
            work="detpipe.commands.proposals.export",
            writes_run_dir=False,
            argument="path",
        ),
        CommandRow(
            "proposals import",
            "detpipe.commands.proposals.import_:ProposalsImport",
            "read the boxes of another program (proposals.path=FILE) into a proposals.lmdb",
            argument="proposals.path",
        ),
        CommandRow(
            "proposals fuse",
            "detpipe.commands.proposals.fuse:ProposalsFuse",
            "join several databases (sources=[...]) into one that records the source of each box",
        ),
        CommandRow(
            "proposals merge",
            "detpipe.commands.proposals.settings:ProposalsMerge",
            "merge shards (shards=[...]) that were made on parts of a data set",
            work="detpipe.commands.proposals.merge",
        ),
        CommandRow(
            "inspect run",
            "detpipe.commands.inspect.settings:InspectRun",
            "plot the losses, speed and snapshots of a training",
            work="detpipe.commands.inspect.run",
            writes_run_dir=False,
            argument="run_dir",
        ),
        CommandRow(
            "inspect db",
            "detpipe.commands.inspect.settings:InspectDb",
            "read every record of a database of images (db=DB): labels, pictures, mean, faults",
            work="detpipe.commands.inspect.db",
            writes_run_dir=False,
            argument="db",
        ),
        CommandRow(
            "inspect weights",
            "detpipe.commands.inspect.settings:InspectWeights",
            "list the tensors of a weight file: sizes, filters, change from another file",
            work="detpipe.commands.inspect.weights",
            argument="path",
        ),
        CommandRow(
            "inspect activations",
            "detpipe.commands.inspect.settings:InspectActivations",
            "measure weights, activations and gradients layer by layer; draw feature maps",
            work="detpipe.commands.inspect.activations",
            argument="run_dir",
        ),
        CommandRow(
            "inspect attention",
            "detpipe.commands.inspect.settings:InspectAttention",
            "which regions of an image a detection attended to (head.attention above 0)",
            work="detpipe.commands.inspect.attention",
        ),
        CommandRow(
            "inspect time",
            "detpipe.commands.inspect.settings:InspectTime",
            "measure time and memory of each layer, forward and backward",
            work="detpipe.commands.inspect.time",
            argument="run_dir",
        ),
    )
}
"""By the name as it is typed, in the order of `detpipe --help`."""

FAMILIES: dict[str, str] = {
    "classes": "add a class to a detector on stored features, or remove one",
    "labels": "find labels that may be wrong, correct them, and choose images to label next",
    "proposals": "show, check, compare, join and convert proposals",
    "inspect": "look inside a training, a database or a network",
}
"""The first words of commands of two words, with one line of help each."""


def family_of(first_word: str) -> dict[str, CommandRow]:
    """The commands that begin with this word, by their second word; none for a word that is not a family."""
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
