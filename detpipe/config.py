"""Hands every component's dataclass to Hydra, as the schema and the only home of its defaults."""

from __future__ import annotations

import copy
import logging
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from detpipe.backbone.create import BackboneConfig
from detpipe.classify.crop import CropConfig
from detpipe.classify.detect import DetectConfig
from detpipe.classify.labeling import Sampling
from detpipe.commands.check import Check
from detpipe.commands.classes_add import ClassesAdd
from detpipe.commands.classes_remove import ClassesRemove
from detpipe.commands.command import RunFolder
from detpipe.commands.compress import Compress
from detpipe.commands.compute_mean import ComputeMean
from detpipe.commands.crop import Crop
from detpipe.commands.curve import Curve
from detpipe.commands.detect import Detect
from detpipe.commands.detect_settings import kept_detect_settings
from detpipe.commands.evaluate_images import EvaluateImages
from detpipe.commands.export import Export
from detpipe.commands.features import Features
from detpipe.commands.inspect_activations import InspectActivations
from detpipe.commands.inspect_db import InspectDb
from detpipe.commands.inspect_run import InspectRun
from detpipe.commands.inspect_time import InspectTime
from detpipe.commands.inspect_weights import InspectWeights
from detpipe.commands.make_db import MakeDb
from detpipe.commands.proposals_export import ProposalsExport
from detpipe.commands.proposals_fuse import ProposalsFuse
from detpipe.commands.proposals_import import ProposalsImport
from detpipe.commands.proposals_info import ProposalsInfo
from detpipe.commands.proposals_merge import ProposalsMerge
from detpipe.commands.proposals_recall import ProposalsRecall
from detpipe.commands.proposals_show import ProposalsShow
from detpipe.commands.proposals_verify import ProposalsVerify
from detpipe.commands.propose import Propose
from detpipe.commands.run import Run
from detpipe.commands.train_images import TrainImages
from detpipe.commands.train_multibox import TrainMultiBox
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.demo import DemoSource
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.voc import VocSource
from detpipe.heads.fast_rcnn import FastRcnnHead
from detpipe.heads.linear_svm import SvmHead
from detpipe.heads.multibox_fast_rcnn import MultiBoxFastRcnnHead
from detpipe.heads.multibox_settings import MultiBoxHead
from detpipe.heads.nearest_neighbours import NearestNeighboursHead
from detpipe.heads.prototypes import PrototypesHead
from detpipe.heads.region_head import HeadConfig
from detpipe.heads.softmax_regression import SoftmaxRegressionHead
from detpipe.heads.two_layers import TwoLayers
from detpipe.heads.zero_shot import ZeroShot
from detpipe.proposals.methods import METHODS, method
from detpipe.proposals.train_multibox import MultiBoxSolver
from detpipe.solver.solver_config import SolverConfig
from detpipe.solver.solver_prototxt import solver_values

logger = logging.getLogger(__name__)

COMMANDS: dict[str, type] = {
    "run": Run,
    "propose": Propose,
    "train-multibox": TrainMultiBox,
    "crop": Crop,
    "features": Features,
    "train-cls": TrainImages,
    "detect": Detect,
    "eval": EvaluateImages,
    "curve": Curve,
    "check": Check,
    "compress": Compress,
    "export": Export,
    "make-db": MakeDb,
    "compute-mean": ComputeMean,
    "classes-add": ClassesAdd,
    "classes-remove": ClassesRemove,
    "proposals-info": ProposalsInfo,
    "proposals-verify": ProposalsVerify,
    "proposals-recall": ProposalsRecall,
    "proposals-show": ProposalsShow,
    "proposals-export": ProposalsExport,
    "proposals-import": ProposalsImport,
    "proposals-fuse": ProposalsFuse,
    "proposals-merge": ProposalsMerge,
    "inspect-run": InspectRun,
    "inspect-db": InspectDb,
    "inspect-weights": InspectWeights,
    "inspect-activations": InspectActivations,
    "inspect-time": InspectTime,
}
"""By the name of its file in conf/: that of a command in a family has the family's in front."""

GROUPS: dict[str, Mapping[str, type]] = {
    "dataset": {"voc": VocSource, "coco": CocoSource, "images": ImageFolderSource, "demo": DemoSource},
    "proposals": {name: method(name) for name in METHODS},
    "backbone": {"efficientnet_lite0": BackboneConfig},
    "crops": {"warp": CropConfig},
    "sampling": {"rcnn": Sampling},
    "head": {
        "softmax": HeadConfig,
        "fast_rcnn": FastRcnnHead,
        "multibox_fast_rcnn": MultiBoxFastRcnnHead,
        "svm": SvmHead,
        "linear": SoftmaxRegressionHead,
        "two_layers": TwoLayers,
        "knn": NearestNeighboursHead,
        "prototypes": PrototypesHead,
        "zero_shot": ZeroShot,
    },
    "multibox": {"pyramid": MultiBoxHead},
    "solver": {"adamw": SolverConfig, "multibox": MultiBoxSolver},
}

NOT_TAKEN: dict[type, frozenset[str]] = {
    Detect: frozenset(),
    Curve: frozenset({"dedup_step", "cascade_size", "cascade_keep", "second_look"}),
    Export: frozenset({"dedup_step", "cascade_size", "cascade_keep"}),
}
"""Commands on a detector that there is, and which of its kept settings they can't do: they refuse them when given."""


def register() -> None:
    """Store every schema: of a command as schema/NAME, of a component in its group."""
    store = ConfigStore.instance()
    for name, command in COMMANDS.items():
        store.store(group="schema", name=name, node=_without_components(command), package="_global_")
    methods: Mapping[str, type] = {name: method(name) for name in METHODS}  # those of now: a table may grow
    for group, components in (GROUPS | {"proposals": methods}).items():
        for name, component in components.items():
            store.store(group=group, name=name, node=component)


def to_command(config: DictConfig, overrides: Sequence[str] = ()) -> Any:
    """The command's dataclass, its components made and checked. Raises ValueError for a value that one refuses.

    overrides: the words of the command line, by which a setting that stands there wins over a solver.prototxt, and over
    what is kept beside the run's classifier.
    """
    given = {word.lstrip("+~").partition("=")[0] for word in overrides}
    if OmegaConf.select(config, "solver.prototxt") is not None:
        config = _with_solver_prototxt(config, given)
    not_taken = NOT_TAKEN.get(OmegaConf.get_type(config) or type(None))
    if not_taken is not None and "detect" not in given:
        config = _with_kept_detect_settings(config, given, not_taken)
    return OmegaConf.to_object(config)


def _with_kept_detect_settings(config: DictConfig, given: Collection[str], not_taken: Collection[str]) -> DictConfig:
    """The configuration of a detector's use with the settings that it was measured with, under all that is said."""
    kept = kept_detect_settings(RunFolder(Path(config.run_dir)).classifier)
    usual: DictConfig = OmegaConf.structured(DetectConfig)
    config = copy.deepcopy(config)
    taken = []
    for name, value in kept.items():
        # What differs from the default has been said by an experiment.
        said = f"detect.{name}" in given or config.detect[name] != usual[name]
        if not said and value != usual[name] and name not in not_taken:
            OmegaConf.update(config, f"detect.{name}", value)
            taken.append(f"detect.{name}={value}")
    if taken:
        logger.info("as the run's test images were looked at: %s", " ".join(taken))
    return config


def _with_solver_prototxt(config: DictConfig, given: Collection[str]) -> DictConfig:
    """The configuration with what the file says: over what presets and experiments say, under the command line."""
    path = Path(config.solver.prototxt)
    if "solver" in given:
        raise ValueError(f"solver=... and solver.prototxt={path}: wanted one of them: both say all of a training")
    config = copy.deepcopy(config)
    for name, value in solver_values(path).items():
        full = f"solver.{name}"
        # A mapping may have been given whole or by one of its keys: solver.lr={...}, solver.decay_mult.fc=0.
        if not any(f"{full}.".startswith(f"{one}.") or one.startswith(f"{full}.") for one in given):
            OmegaConf.update(config, full, value, merge=False)
    config.solver.prototxt = None  # it is read
    return config


def _without_components(command: type) -> DictConfig:
    """The schema of a command whose components are still to be named: one's keys would mix with another's."""
    schema: DictConfig = OmegaConf.structured(command)
    for component in ("proposals", "head", "solver"):
        if component in schema:
            schema[component] = MISSING
    return schema
