"""`detpipe run`: all steps, from images with boxes to metrics and the report page."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields, replace

from detpipe.backbone.fine_tuning import FineTuningConfig
from detpipe.backbone.trial import image_size, try_backbone
from detpipe.classify.kinds import LearnsFrom, check_detect_settings, kind_of_head
from detpipe.commands import check, crop, detect, evaluate, features, propose, train_multibox
from detpipe.commands.first_result import FIRST_SECONDS, make_first
from detpipe.commands.run_budget import Budget
from detpipe.commands.run_progress import RunProgress, estimated_stages
from detpipe.commands.run_settings import Propose, Run
from detpipe.commands.stage_settings import Crop, Detect, Evaluate, Features, TrainCls, TrainMultiBox
from detpipe.commands.train_cls.command import train_regions
from detpipe.console import RESULT
from detpipe.datasets.findings import STOPS_RUN, Severity
from detpipe.datasets.source import Split
from detpipe.heads.fast_rcnn.settings import FastRcnnConfig
from detpipe.heads.table import head_word
from detpipe.metrics.evaluate import check_metrics
from detpipe.network.device import resolve_device
from detpipe.network.network_folder import WEIGHTS
from detpipe.progress import begin_of_command
from detpipe.proposals.fusion import Fused
from detpipe.proposals.multibox import MultiBoxProposals
from detpipe.proposals.proposer import Proposer
from detpipe.proposals.tiled import TiledProposals
from detpipe.runs.detect_settings import (
    KeptSettings,
    inference_precision,
    keep_settings,
)
from detpipe.runs.kept_recipe import keep_recipe, kept_recipe
from detpipe.runs.recipe import choose
from detpipe.runs.run_facts import facts_of
from detpipe.runs.run_folder import copy_proposals, load_splits
from detpipe.runs.training_images import taught_classes
from detpipe.solver.initial_weights import check_start_weights
from detpipe.solver.solver_config import SolverConfig
from detpipe.storage.dataclass_json import from_json, read_object

logger = logging.getLogger(__name__)


def run(config: Run) -> None:
    """Propose boxes, train a classifier, detect, and evaluate."""
    begun = begin_of_command()
    log_departures(config)
    check_settings(config)
    check_data(config)
    check_proposals(config)
    record_recipe(config)
    budget = Budget.of(config, make, begun) if config.budget is not None else None
    if budget is None or budget.spare(config) > FIRST_SECONDS:
        make_first(config, make, sum(estimated_stages(config, budget).values()))
    progress = RunProgress(stages_of(config), estimated_stages(config, budget), begun)
    make(config, unlimited if budget is None else budget.limited, progress.begin)
    summarize(config)


def stages_of(config: Run) -> list[str]:
    """The names of the stages of `make`, in order."""
    kind, proposals = kind_of_head(config.head), config.proposals
    stages = []
    if not kind.proposes:
        needs_network = isinstance(proposals, Fused | MultiBoxProposals) and lacks_network(proposals)
        stages += [*(["train-multibox"] if needs_network else []), "propose"]
    stages += ["fine-tune"] if config.fine_tune else []
    stages += {LearnsFrom.crops: ["crop"], LearnsFrom.features: ["features"]}.get(kind.learns_from, [])
    return [*stages, "train-cls", *(["propose"] if kind.proposes else []), "detect", "eval"]


def unannounced(stage: str) -> None:
    """Nothing, where no progress of stages is shown: in a run within a run."""
    del stage


def unlimited(config: Run) -> Run:
    """The settings as they are, where no budget sets the number of iterations."""
    return config


def make(config: Run, limited: Callable[[Run], Run] = unlimited, begin: Callable[[str], None] = unannounced) -> None:
    """All stages. limited: sets the number of iterations, when the stages before the training are done.

    begin: called with the name of each stage, in the order of `stages_of`.
    """
    kind = kind_of_head(config.head)
    config = with_proposals(config, begin)
    if config.fine_tune:
        begin("fine-tune")
        config = fine_tuned(config)
    if kind.learns_from is LearnsFrom.crops:
        begin("crop")
        crop.run(config.stage(Crop))
    if kind.learns_from is LearnsFrom.features:
        begin("features")
        features.run(config.stage(Features))
    config = limited(config)
    begin("train-cls")
    train_regions(config.stage(TrainCls))
    if kind.proposes:
        begin("propose")
        propose.run(on_tiles(config).stage(Propose))
    begin("detect")
    detect.run(config.stage(Detect))
    precision = inference_precision(config.precision, config.folder.classifier, resolve_device(config.device))
    keep_settings(
        config.folder.classifier,
        KeptSettings(detect=config.detect, precision=precision, stretch=config.data_source.stretch),
        replace=True,
    )
    begin("eval")
    evaluate.run(config.stage(Evaluate))


def record_recipe(config: Run) -> None:
    """Write down which recipe experiment=auto chose and why, and log it.

    A run that has begun keeps its recipe, also where other data or another machine would give another one.
    """
    if config.chosen_recipe is None:
        return
    idle = [f"solver.{one.name}" for one in fields(SolverConfig) if is_set(config.solver, one.name)]
    if idle and config.head.STORED_FEATURES and not config.fine_tune:
        logger.warning(
            "%s: no effect, because experiment=auto chose %s, whose head trains without the solver; give "
            "experiment=NAME for another recipe",
            *(", ".join(idle), config.chosen_recipe),
        )
    facts = facts_of(config.data_source, config.device, config.precision)
    assert facts is not None  # check_data has found training and test images
    choice, kept = choose(facts), None if config.overwrite else kept_recipe(config.folder)
    if kept is None:
        keep_recipe(config.folder, choice, facts)
        logger.log(RESULT, "%s", choice.sentence)
        return
    logger.log(RESULT, "%s", kept.sentence)
    if choice.experiment != kept.experiment:
        logger.warning(
            "this run keeps %s, with which it began; its data or this machine have changed, and experiment=auto would "
            "now use %s: give another run_dir, or overwrite=true, for that",
            kept.experiment,
            choice.experiment,
        )


def is_set(solver: SolverConfig, name: str) -> bool:
    """Whether a setting of the solver differs from its default."""
    return bool(getattr(solver, name) != getattr(SolverConfig(), name))


def check_settings(config: Run) -> None:
    """Raise the errors of later steps about their settings now, before hours of work."""
    resolve_device(config.device)
    check_detect_settings(config.detect, kind_of_head(config.head), f"this run has head={head_word(config.head)}")
    check_start_weights(config.solver.weights, "solver.weights")
    check_metrics(config.metrics)
    config.track.check()
    check_backbone(config)


def check_backbone(config: Run) -> None:
    """Raise the errors of the training and of `detpipe features` about the backbone."""
    head = config.head
    if isinstance(head, FastRcnnConfig):
        size = image_size(head.scales, head.max_side)
        try_backbone(config.backbone, size, "head.scales", maps=head.maps, learning=head, batch=head.images_per_batch)
        return
    trained = config.tuning.head() if config.fine_tune else head
    learning = trained if isinstance(trained, FineTuningConfig) else None
    batch = config.solver.batch_size if learning is not None else 2
    stages = "tuning.freeze_stages" if config.fine_tune else "head.freeze_stages"
    size = (config.crops.size, config.crops.size)
    try_backbone(config.backbone, size, "crops.size", learning=learning, stages=stages, batch=batch)


def check_proposals(config: Run) -> None:
    """Raise the errors of `detpipe propose` now, before a network is trained for it."""
    proposals: Proposer | None = config.proposals if kind_of_head(config.head).proposes else None
    if isinstance(config.proposals, Fused | MultiBoxProposals) and lacks_network(config.proposals):
        proposals = None
        if isinstance(config.proposals, Fused):
            others = [source for source in config.proposals.sources if source != "multibox"]
            proposals = replace(config.proposals, sources=others, budgets=None) if others else None
    if proposals is not None:
        proposals.check(list(load_splits(config.data_source).values()))


def with_proposals(config: Run, begin: Callable[[str], None]) -> Run:
    """Train a MultiBox if the proposals need one without weights, then propose.

    A head that proposes itself is trained before proposing, so nothing is done for it here.
    Returns the settings with the path of the MultiBox.
    """
    proposals = config.proposals
    if isinstance(proposals, Fused | MultiBoxProposals) and lacks_network(proposals):
        config = replace(config, proposals=replace(proposals, weights=str(config.folder.multibox)))
        if not kind_of_head(config.head).proposes:
            begin("train-multibox")
            train_multibox.run(proposer_training(config))
    if not kind_of_head(config.head).proposes:
        begin("propose")
        propose.run(on_tiles(config).stage(Propose))
    return config


def on_tiles(config: Run) -> Run:
    """Return the settings with proposals on tiles, if `tiles` is set. Boxes that need more than pixels stay."""
    proposals = config.proposals
    if not config.tile_settings.used or isinstance(proposals, TiledProposals) or not proposals.from_pixels:
        return config
    return replace(config, proposals=TiledProposals.around(proposals, config.tile_settings))


def lacks_network(proposals: Fused | MultiBoxProposals) -> bool:
    """Return whether the proposals, or one of their sources, need a MultiBox that is not trained yet."""
    return not proposals.weights and (isinstance(proposals, MultiBoxProposals) or "multibox" in proposals.sources)


def proposer_training(config: Run) -> TrainMultiBox:
    """The settings of the training of the run's MultiBox."""
    training, solver = config.stage(TrainMultiBox), config.multibox_solver.solver()
    return replace(training, solver=solver, val_share=config.sampling.val_share)


def check_data(config: Run) -> None:
    """Check the data set without decoding images, and log its faults.

    Raises ValueError without training images, test images, or training objects, and for a class without objects if the
    head needs objects of each class.
    """
    source = config.data_source
    lists = [split.value for split in Split if source.has(split)]
    if Split.train.value not in lists or Split.test.value not in lists:
        got = f"only images for {lists[0]}" if len(lists) == 1 else f"images for {' and '.join(lists) or 'nothing'}"
        raise ValueError(
            f"run: expected images with boxes for training and for testing, got {got}; check dataset.root and "
            "the names of its splits, and dataset.test_share. Images without boxes are for `detpipe detect source=DIR`"
        )
    report = check.inspect(config, full=False)
    if report.at_least(Severity.WARNING):
        logger.info("%s", report.to_text(files_per_kind=2))
    stopping = [one for one in report.findings if one.kind in STOPS_RUN]
    if stopping:
        raise ValueError(f"expected boxes in pixels, got {stopping[0].kind} in {stopping[0]}")
    train = source.load(Split.train)
    config.head.check_classes(train.classes)
    present = taught_classes(train)
    lacking = [name for name in train.classes if name not in present]
    if not present or (lacking and config.head.NEEDS_EACH):
        raise ValueError(
            f"{train.name}: expected training objects of each class, got none of {lacking}; "
            f"leave these classes out with dataset.classes=[{','.join(present) or '...'}]"
        )
    if lacking and not config.head.USES_CLASS_VECTORS:
        logger.warning("%s: no training objects of %s; they will not be detected", train.name, ", ".join(lacking))


def fine_tuned(config: Run) -> Run:
    """Fine-tune the backbone with a softmax head (Girshick et al. 2014, section 2.3), in fine_tuned/ of the run folder.

    Returns the settings with the fine-tuned backbone. The run's head replaces the softmax head (appendix B).
    """
    inner = replace(config, run_dir=str(config.folder.fine_tuned), head=config.tuning.head(), fine_tune=False)
    inner.folder.path.mkdir(parents=True, exist_ok=True)
    copy_proposals(config.folder, inner.folder)
    crop.run(inner.stage(Crop))
    train_regions(inner.stage(TrainCls))
    weights = str(inner.folder.classifier / WEIGHTS)
    return replace(config, backbone=replace(config.backbone, weights=weights, download=False))


def log_departures(config: Run) -> None:
    """Log the differences between the preset and its paper."""
    for departure in config.departures:
        logger.info("different from the paper: %s", departure)


def summarize(config: Run) -> None:
    """Log a table of all steps with their time and output."""
    log_departures(config)
    metrics = read_object(config.folder.metrics)
    times = from_json(metrics.get("seconds"), dict[str, float], f"{config.folder.metrics}: seconds")
    paths = {
        "train-multibox": config.folder.multibox,
        "propose": config.folder.proposals,
        "crop": config.folder.crops,
        "fine-tune": config.folder.fine_tuned,
        "features": config.folder.features(Split.train).parent,
        "train-cls": config.folder.classifier,
        "detect": config.folder.detections,
        "eval": config.folder.metrics,
    }
    rows = [f"{stage:<14} {seconds:>8.1f} s   {paths[stage]}" for stage, seconds in times.items()]
    total = sum(times.values())
    logger.log(RESULT, "\n%s\n%-14s %8.1f s\n\nreport: %s", "\n".join(rows), "total", total, config.folder.report)
