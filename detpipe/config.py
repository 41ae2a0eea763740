"""Hands every component's dataclass to Hydra, as the schema and the only home of its defaults."""

from __future__ import annotations

from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import MISSING, DictConfig, OmegaConf

from detpipe.backbone.create import BackboneConfig
from detpipe.classify.classifier import HeadConfig
from detpipe.classify.crop import CropConfig
from detpipe.classify.labeling import Sampling
from detpipe.commands.check import Check
from detpipe.commands.crop import Crop
from detpipe.commands.detect import Detect
from detpipe.commands.evaluate import Evaluate
from detpipe.commands.propose import Propose
from detpipe.commands.run import Run
from detpipe.commands.train_cls import TrainCls
from detpipe.datasets.coco import CocoSource
from detpipe.datasets.demo import DemoSource
from detpipe.datasets.image_list import ImageFolderSource
from detpipe.datasets.voc import VocSource
from detpipe.proposals.edge_boxes import EdgeBoxes
from detpipe.proposals.gaussian import Gaussian
from detpipe.proposals.ground_truth import GroundTruthBoxes
from detpipe.proposals.imported import ImportedProposals
from detpipe.proposals.selective_search import SelectiveSearch
from detpipe.proposals.sliding_window import SlidingWindow
from detpipe.proposals.uniform import Uniform
from detpipe.solver.solver import SolverConfig

COMMANDS: dict[str, type] = {
    "run": Run,
    "propose": Propose,
    "crop": Crop,
    "train-cls": TrainCls,
    "detect": Detect,
    "eval": Evaluate,
    "check": Check,
}

GROUPS: dict[str, dict[str, type]] = {
    "dataset": {"voc": VocSource, "coco": CocoSource, "images": ImageFolderSource, "demo": DemoSource},
    "proposals": {
        "selective_search": SelectiveSearch,
        "edge_boxes": EdgeBoxes,
        "gaussian": Gaussian,
        "uniform": Uniform,
        "sliding_window": SlidingWindow,
        "ground_truth": GroundTruthBoxes,
        "import": ImportedProposals,
    },
    "backbone": {"efficientnet_lite0": BackboneConfig},
    "crops": {"warp": CropConfig},
    "sampling": {"rcnn": Sampling},
    "head": {"softmax": HeadConfig},
    "solver": {"adamw": SolverConfig},
}


def register() -> None:
    """Store every schema: of a command as schema/NAME, of a component in its group."""
    store = ConfigStore.instance()
    for name, command in COMMANDS.items():
        store.store(group="schema", name=name, node=_without_components(command), package="_global_")
    for group, components in GROUPS.items():
        for name, component in components.items():
            store.store(group=group, name=name, node=component)


def to_command(config: DictConfig) -> Any:
    """The command's dataclass, its components made and checked. Raises ValueError for a value that one refuses."""
    return OmegaConf.to_object(config)


def _without_components(command: type) -> DictConfig:
    """The schema of a command whose proposer is still to be named: a default's keys would mix with another's."""
    schema: DictConfig = OmegaConf.structured(command)
    if "proposals" in schema:
        schema.proposals = MISSING
    return schema
