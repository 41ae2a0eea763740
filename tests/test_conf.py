"""Every preset and every option of every group makes a checked object; the names that users' scripts rely on stay."""

from __future__ import annotations

import dataclasses
import enum
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from omegaconf import OmegaConf

import detpipe.config as config
from detpipe.class_path import load_class
from detpipe.commands.groups import GROUPS
from detpipe.commands.stage_settings import Crop, Detect, Evaluate, Features, TrainCls
from detpipe.heads.multibox.settings import MultiBoxSolverConfig
from detpipe.heads.region_head import TrainedHeadConfig
from detpipe.overrides import hydra_words
from detpipe.solver.solver_prototxt import read_solver_prototxt

CONF = Path(__file__).parents[1] / "conf"

MANDATORY = {
    "dataset=auto": [f"dataset.root={Path(__file__).parents[1] / 'docs'}"],
    "dataset=voc": ["dataset.root=a"],
    **{
        f"dataset={word}": ["dataset.root=a"]
        for word in (
            "yolo",
            "csv",
            "openimages",
            "labelstudio",
            "cvat",
            "imagefolder",
            "labelme",
            "via",
            "tar",
            "parquet",
        )
    },
    "dataset=images": ["dataset.root=a"],
    "dataset=image_labels": ["dataset.root=a", "dataset.labels=b.csv", "dataset.detections=c.json"],
    "backbone=caffe": ["backbone.prototxt=lenet", "backbone.weights=none"],
    "dataset=coco": ["dataset.train_json=a", "dataset.train_images=b"],
}
"""What an option can't do without."""


def made(command: str, *overrides: str) -> Any:
    """The command's object, as the command line makes it."""
    config.register()
    with initialize_config_module("detpipe.conf", version_base="1.3"):
        return config.to_command(compose(command, list(overrides)), overrides)


COMMANDS = {name: row.load_settings() for name, row in config.APPLICATIONS.items()}
"""The dataclass of each command."""


def users_of(group: str) -> list[str]:
    """The commands that have a group, by the field of its name."""
    return [name for name, command in COMMANDS.items() if group in {f.name for f in dataclasses.fields(command)}]


def files_of_groups() -> Iterator[tuple[str, str]]:
    """Group and option of each YAML file in a folder of conf/; Hydra's own are used by every command."""
    for path in sorted(CONF.glob("*/*.yaml")):
        if path.parent.name != "hydra":
            yield path.parent.name, path.stem


OPTIONS = sorted({(group, option) for group, options in GROUPS.items() for option in options} | set(files_of_groups()))


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option_of_every_group(group: str, option: str) -> None:
    """By one command, and the first option of a group by all that have the group: the field is the same in each."""
    choice = f"{group}={option}"
    commands = users_of(group) if group != "experiment" else ["run"]
    assert commands, f"no command has the group {group}"
    if group == "dataset":  # `Command` has it
        commands = ["run", "detect", "proposals-fuse"]
    is_first = option == min(other for one, other in OPTIONS if one == group)
    for command in commands if is_first else commands[-1:]:
        one = made(command, choice, *MANDATORY.get(choice, []))
        assert type(one) is COMMANDS[command]
        schema = GROUPS.get(group, {}).get(option)
        if schema is not None and option != "auto":  # the command replaces it: tests/test_auto_dataset.py
            assert type(getattr(one, group)) is load_class(schema)


def test_a_command_is_a_row_and_has_no_file() -> None:
    assert [path.name for path in CONF.glob("*.yaml")] == ["common.yaml"]
    for name in COMMANDS:
        assert callable(config.APPLICATIONS[name].load_run())


def test_defaults_of_groups_are_those_of_the_dataclass() -> None:
    assert config.default_choices(config.COMMANDS["run"]) == {
        "dataset": None,
        "proposals": "selective_search",
        "sampling": "rcnn",
        "crops": "warp",
        "backbone": "efficientnet_lite0",
        "head": "softmax",
        "solver": "adamw",
        "multibox": "pyramid",
        "track": "none",
        "engine": "local",
    }
    assert config.default_choices(config.COMMANDS["train-multibox"])["solver"] == "multibox"
    assert config.default_choices(config.COMMANDS["eval"])["backbone"] is None
    assert config.default_choices(config.COMMANDS["proposals fuse"])["proposals"] == "fuse"


@pytest.mark.parametrize("command", ["train-cls", "detect", "eval", "proposals-info"])
def test_an_experiment_is_an_error_where_its_settings_are_not(command: str) -> None:
    with pytest.raises(HydraException, match="experiment/rcnn_2014"):
        made(command, "experiment=rcnn_2014")


COMPOSED = """
import sys
from hydra import compose, initialize_config_module
from hydra.errors import HydraException
from detpipe import config
heavy = {"torch", "torchvision", "numba", "scipy", "matplotlib", "pycocotools"}
config.register()
with initialize_config_module("detpipe.conf", version_base="1.3"):
    for name in sys.argv[1:]:
        compose(name)
        print(name, *sorted(heavy & sys.modules.keys()))
"""
SLOWER = {
    "propose": {"numba", "scipy"},
    "run": {"numba", "scipy"},
    "proposals-fuse": {"numba", "scipy"},
    "proposals-import": {"numba", "scipy"},
}
"""Commands whose settings have a proposer: selective search is compiled by numba, MATLAB's files are read by scipy."""


def test_the_settings_of_no_command_import_torch() -> None:
    """In one process, the quick ones first: what one has imported stays for all after it."""
    names = sorted(config.APPLICATIONS, key=lambda name: name in SLOWER)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", COMPOSED, *names], capture_output=True, text=True, check=True
    )
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [name for name, *_ in lines] == names
    assert {name: imported for name, *imported in lines if set(imported) - SLOWER.get(name, set())} == {}


def test_experiments_say_command_duration_and_expected_number() -> None:
    for path in sorted((CONF / "experiment").glob("*.yaml")):
        lines = path.read_text().splitlines()
        comments = [line for line in lines[:6] if line.startswith("#") and "@package" not in line]
        assert len(comments) >= 3, f"{path.name}: expected three lines of comment: command, duration, expected number"
        assert any(word in comments[0] for word in ("detpipe run", "detpipe train-cls")), path.name


@pytest.mark.parametrize("command", COMMANDS)
def test_defaults_stand_in_the_dataclass_alone(command: str) -> None:
    """What Hydra composes without overrides is the command made in Python without arguments."""
    assert made(command) == COMMANDS[command]()


CONTRACT = {
    "run": [
        *[
            "dataset.root=a",
            "dataset.train=b",
            "dataset.test=c",
            "dataset.classes=[x,y]",
            "run_dir=d",
            "overwrite=true",
        ],
        *["solver.max_iter=5", "seed=1", "device=cpu", "workers=2", "proposals.preset=opencv_fast", "debug=true"],
    ],
    "check": ["run_dir=d", "fail_on=warning"],
    "propose": ["proposals.preset=ijcv_quality", "run_dir=d"],
    "crop": ["run_dir=d", "seed=2", "verify=true", "crops.mode=square", "crops.context_pad=8", "crops.encoding=raw"],
    "train-cls": [
        *["solver.max_iter=5", "seed=1", "device=cuda", "backbone.weights=none", "head.box_regression=ridge"],
        *["db.train=a", "db.val=b"],
    ],
    "detect": ["source=a.jpg", "run_dir=d", "coco=true"],
    "export": ["run_dir=d", "out=e"],
    "eval": ["detections=a.json", "run_dir=d", "db=e"],
    "make-db": [
        *["list=a", "root=b", "out=c", "resize=256x256", "encode=none", "shuffle=true", "seed=3", "workers=2"],
        *["grey=true", "check_size=true", "num_shards=4", "max_bad=0.5", "overwrite=true"],
    ],
    "compute-mean": ["db=a", "out=b.binaryproto"],
    "proposals-info": ["path=a"],
    "proposals-verify": ["path=a"],
    "proposals-recall": ["path=a", "against=[b,c]", "split=train", "budgets=[10,100]", "resamples=0", "run_dir=d"],
    "proposals-show": ["path=a", "split=val", "images=[x,y]", "count=3", "top=5", "min_iou=0.7", "run_dir=d"],
    "proposals-export": ["path=a", "format=rcnn_mat", "out=b.mat", "split=train"],
    "proposals-import": ["proposals.path=a.pkl", "run_dir=d"],
    "proposals-fuse": ["sources=[a,b]", "proposals.budgets=[1,2]", "run_dir=d"],
    "proposals-merge": ["shards=[a,b]", "run_dir=d"],
    "inspect-run": ["run_dir=d", "out=e"],
    "inspect-db": ["db=a", "out=b", "sample=9", "seed=1"],
    "inspect-weights": ["path=a", "against=b", "prototxt=c", "layer=d", "filters=9", "bgr=true", "run_dir=d"],
    "inspect-activations": [
        *["image=a.jpg", "batch=2", "label=3", "layers=[conv1]", "maps=4", "training=true", "seed=1", "run_dir=d"],
    ],
    "inspect-time": ["batch=2", "iterations=3", "warm_up=0", "backward=false", "precision=bf16", "device=cpu"],
}
"""Names that stand in the README and in people's scripts."""


@pytest.mark.parametrize("command", CONTRACT)
def test_the_contracts_names(command: str) -> None:
    needed = ["dataset=voc", "dataset.root=a"]
    one = made(command, *needed, *CONTRACT[command])
    for override in CONTRACT[command]:
        key, text = override.split("=", 1)
        value = one
        for name in key.split("."):
            value = getattr(value, name)
        plain = value.value if isinstance(value, enum.Enum) else value
        wanted = OmegaConf.create(f"value: {text}").value
        assert plain == wanted, override


def test_the_contracts_names_of_coco() -> None:
    names = ["train_json", "train_images", "val_json", "val_images", "test_json", "test_images"]
    one = made("run", "dataset=coco", *(f"dataset.{name}={name}" for name in names))
    assert [getattr(one.dataset, name) for name in names] == names


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_devices(device: str) -> None:
    for command in ("run", "train-cls", "detect"):
        assert made(command, f"device={device}").device.value == device


def enums_within(kind: Any, seen: set[Any]) -> Iterator[type[enum.Enum]]:
    """The enums in the fields of a dataclass and of those in it."""
    for inner in (kind, *typing.get_args(kind)):
        if inner in seen or not isinstance(inner, type):
            continue
        seen.add(inner)
        if issubclass(inner, enum.Enum):
            yield inner
        elif dataclasses.is_dataclass(inner):
            for hint in typing.get_type_hints(inner).values():
                yield from enums_within(hint, seen)


def test_enums_are_written_as_their_values() -> None:
    """Hydra takes an enum by its name, manifests and Python hold its value: a person must meet one word only."""
    seen: set[Any] = set()
    components = [load_class(path) for options in GROUPS.values() for path in options.values()]
    found = [one for kind in (*COMMANDS.values(), *components) for one in enums_within(kind, seen)]
    assert {"Device", "Precision", "FailOn", "CropMode", "SelectiveSearchPreset"} <= {one.__name__ for one in found}
    for one in found:
        for member in one:
            assert member.name == member.value, f"{one.__name__}.{member.name}"
            assert member.name == member.name.lower(), f"{one.__name__}.{member.name}"


def test_a_choice_replaces_the_proposer_whole() -> None:
    one = made("run", "proposals=uniform", "proposals.max_proposals=7")
    assert type(one.proposals).__name__ == "Uniform"
    assert one.proposals.max_proposals == 7
    assert not hasattr(one.proposals, "preset")


def test_sources_of_a_fusion_have_a_short_name() -> None:
    assert made("proposals-fuse", "sources=[selective_search,gaussian]").proposals.sources == [
        "selective_search",
        "gaussian",
    ]
    for command in ("run", "propose"):
        assert made(command, "proposals=fuse", "proposals.sources=[uniform]").proposals.sources == ["uniform"]
    with pytest.raises(ValueError, match="sources: expected proposals=fuse"):
        made("proposals-fuse", "proposals=gaussian", "sources=[gaussian]")


def test_run_hands_its_settings_to_the_stages() -> None:
    one = made("run", "seed=3", "precision=bf16", "tuning.dropout=0.4", "multibox_solver.max_iter=7")
    for stage in (Crop, Features, TrainCls, Detect, Evaluate):
        settings = one.stage(stage)
        assert type(settings) is stage
        for field in dataclasses.fields(stage):
            assert getattr(settings, field.name) == getattr(one, field.name, field.default)
    assert one.tuning.head() == TrainedHeadConfig(dropout=0.4)
    assert one.multibox_solver.solver() == MultiBoxSolverConfig(max_iter=7)
    for wrong in ("tuning.dropout=1", "multibox_solver.batch_size=0"):
        with pytest.raises(ValueError, match="expected"):
            made("run", wrong)


@pytest.mark.parametrize(
    ("words", "min_epochs"),
    [((), 3.0), (("solver.max_iter=20",), 0.0), (("solver.max_iter=20", "solver.min_epochs=1"), 1.0)],
)
def test_iterations_on_the_command_line_win_over_the_least_passes_of_a_preset(
    words: tuple[str, ...], min_epochs: float
) -> None:
    assert made("run", "experiment=fast_rcnn", *words).solver.min_epochs == min_epochs


def test_a_fusion_may_not_write_over_its_source(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "proposals.lmdb"):
        with pytest.raises(ValueError, match="another run_dir"):
            made("proposals-fuse", f"sources=[{source}]", f"run_dir={tmp_path}")


# --- Caffe's solver.prototxt ------------------------------------------------------------------------------------------

STEP = """
base_lr: 0.02 lr_policy: "step" gamma: 0.5 stepsize: 30 max_iter: 70 momentum: 0.8 weight_decay: 0.001 test_iter: 3
"""


@pytest.fixture
def prototxt(tmp_path: Path) -> str:
    """An override that names a file of Caffe's."""
    (tmp_path / "solver.prototxt").write_text(STEP)
    return f"solver.prototxt={tmp_path / 'solver.prototxt'}"


@pytest.mark.parametrize("command", ["train-cls", "run"])
def test_a_solver_prototxt_is_the_same_object(command: str, prototxt: str, tmp_path: Path) -> None:
    assert made(command, prototxt).solver == read_solver_prototxt(tmp_path / "solver.prototxt")


def test_the_command_line_wins_over_a_solver_prototxt(prototxt: str) -> None:
    one = made(
        *("train-cls", prototxt, "solver.max_iter=5", "++solver.lr.gamma=0.1", "solver.batch_size=3"),
        *("+solver.decay_mult={*.bias:0}", "solver.type=caffe_nesterov"),
    ).solver
    assert (one.max_iter, one.lr.gamma, one.batch_size, one.decay_mult) == (5, 0.1, 3, {"*.bias": 0.0})
    assert (one.type.value, one.base_lr, one.lr.policy.value, one.momentum) == ("caffe_nesterov", 0.02, "step", 0.8)
    # Also where it says what is the default anyway, which no comparison with defaults would see.
    assert made("train-cls", prototxt, "solver.max_iter=300").solver.max_iter == 300
    whole = made("train-cls", prototxt, "solver.lr={policy:exp,gamma:0.9}").solver.lr
    assert (whole.policy.value, whole.gamma) == ("exp", 0.9)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('base_lr: 0.1 lr_policy: "fixed"', ["solver.max_iter=4"]),
        ('base_lr: 0.1 lr_policy: "fixed"', ["solver.epochs=2"]),
        ('max_iter: 4 lr_policy: "fixed"', ["solver.base_lr=0.1"]),
        ("base_lr: 0.1 max_iter: 4", ["solver.lr.policy=fixed"]),
        ("base_lr: 0.1 max_iter: 4", ["solver.lr={policy:step,gamma:0.5,stepsize:2}"]),
        ('base_lr: 0.1 max_iter: 4 lr_policy: "plateau"', ["solver.lr.policy=cosine"]),
        ('base_lr: 0.1 max_iter: 4 lr_policy: "step" gamma: 0.5', ["solver.lr.stepsize=3"]),
        ('base_lr: 0.1 max_iter: 4 lr_policy: "multistep"', ["solver.lr.gamma=0.5", "solver.lr.stepvalue=[2,3]"]),
        ('base_lr: 0.1 max_iter: 4 lr_policy: "inv" gamma: 0.5', ["solver.lr.policy=exp"]),
        ('base_lr: 0.1 max_iter: 4 lr_policy: "fixed" type: "Lion"', ["solver.type=adamw"]),
        ('base_lr: 0.1 max_iter: 4 lr_policy: "fixed" regularization_type: "L0"', ["solver.regularization_type=l2"]),
        ('base_lr: 0.1 max_iter: 4 lr_policy: "fixed" test_iter: 1 test_iter: 2', ["solver.test_iter=3"]),
        ('base_lr: 0.1 max_iter: 4 lr_policy: "fixed" weights: "a,b"', ["solver.weights=null"]),
        ('base_lr: -1 max_iter: 4 lr_policy: "fixed"', ["solver.base_lr=0.1"]),
        ('base_lr: 0.1 max_iter: 4 lr_policy: "fixed" momentum: 7', ["solver.momentum=0.9"]),
    ],
)
def test_a_solver_prototxt_needs_only_what_the_command_line_does_not_set(
    text: str, words: list[str], tmp_path: Path
) -> None:
    # Fast R-CNN's own solver.prototxt has no max_iter: its program gives it.
    (tmp_path / "solver.prototxt").write_text(text)
    prototxt = f"solver.prototxt={tmp_path / 'solver.prototxt'}"
    setting = words[0].partition("=")[0]
    with pytest.raises(ValueError, match=r"solver\.prototxt: .*(expected|range)|solver\.\w+: expected"):
        made("train-cls", prototxt)
    solver = made("train-cls", prototxt, *words).solver
    assert solver.base_lr == 0.1
    assert setting == "solver.epochs" or solver.max_iter == 4


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("# none\n", "solver.max_iter=..."),
        ("max_iter: 5", "solver.base_lr=..."),
        ("max_iter: 5 base_lr: 1", "solver.lr.policy=..."),
        ('max_iter: 5 base_lr: 1 lr_policy: "step"', "solver.lr.gamma=... solver.lr.stepsize=..."),
    ],
)
def test_a_solver_prototxt_without_a_value_names_the_setting_that_gives_it(
    text: str, setting: str, tmp_path: Path
) -> None:
    (tmp_path / "solver.prototxt").write_text(text)
    with pytest.raises(ValueError, match=re.escape(f"add it to the file, or set {setting}")):
        made("train-cls", f"solver.prototxt={tmp_path / 'solver.prototxt'}")


def test_rcnn_2014_learns_from_the_objects_own_boxes_and_lets_another_head_in() -> None:
    as_rcnn = made("run", "experiment=rcnn_2014")
    assert (as_rcnn.head.positive_iou, as_rcnn.head.rounds, as_rcnn.sampling.own_boxes) == (1.0, 3, True)
    assert made("run", "experiment=rcnn_2014", "head=linear").head.l2 == 0.01


def test_a_solver_prototxt_wins_over_experiments(prototxt: str) -> None:
    assert made("run", "experiment=fast_rcnn", prototxt).solver.max_iter == 70
    assert made("run", "experiment=rcnn_2014", prototxt).solver.momentum == 0.8


def test_a_preset_beside_a_solver_prototxt_is_refused(prototxt: str) -> None:
    with pytest.raises(ValueError, match=r"solver=\.\.\. and solver\.prototxt=.*: expected one of them"):
        made("train-cls", "solver=sgd", prototxt)


def test_a_solver_prototxt_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError, match=r"solver\.prototxt: no such file: nowhere"):
        made("train-cls", "solver.prototxt=nowhere")


def test_googlenets_proposals() -> None:
    fused = made("propose", "proposals=googlenet", "proposals.weights=runs/mine/multibox").proposals
    assert (fused.sources, fused.budgets) == (["selective_search", "multibox"], [1000, 200])
    assert fused.weights == "runs/mine/multibox"


def settings_objects() -> Iterator[Any]:
    """An object of each settings class: the commands, the options of groups, and the dataclasses in them."""
    seen: set[type] = set()
    options = [load_class(path) for group in GROUPS.values() for path in group.values()]
    waiting = [default_object(kind) for kind in [row.load_settings() for row in config.APPLICATIONS.values()] + options]
    while waiting:
        one = waiting.pop()
        if type(one) not in seen:
            seen.add(type(one))
            yield one
            waiting += [value for value in vars(one).values() if dataclasses.is_dataclass(value)]


def default_object(kind: type) -> Any:
    """An object with the defaults, and "a" for what is required."""
    needed = [
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    needed += ["train_json", "train_images"] if kind.__name__ == "CocoSource" else []
    return kind(**dict.fromkeys(needed, "a"))


def test_an_extreme_number_is_accepted_or_refused_by_name() -> None:
    """With one sentence that names the setting."""
    tried = 0
    for one in settings_objects():
        for field in dataclasses.fields(one):
            hint = typing.get_type_hints(type(one))[field.name]
            numeric = {int, float} & {hint, *typing.get_args(hint)}
            for value in (-1, 10**30, -(10**30)) if numeric and typing.get_origin(hint) is not dict else ():
                tried += 1
                try:
                    dataclasses.replace(one, **{field.name: [value] if typing.get_origin(hint) is list else value})
                except ValueError as refused:
                    said = str(refused)
                    if field.name not in said or "\n" in said:
                        pytest.fail(f"{type(one).__name__}.{field.name}={value}: {said}")
    assert tried > 300


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("solver.epochs=inf", "solver.epochs: expected a finite number, got inf"),
        ("head.box_loss_weight=nan", "head.box_loss_weight: expected a finite number, got nan"),
        ("head.box_loss_weight=-1", "head.box_loss_weight: expected at least 0"),
        ("solver.max_iter=1" + "0" * 30, "solver.max_iter: expected an integer below"),
        ("workers=-2", "workers: expected -1"),
        ("workers=100000", "workers: expected -1"),
        ("head.freeze_stages=-1", "freeze_stages: expected at least 0"),
        ('run_dir=""', "run_dir: expected a folder, got an empty text"),
    ],
)
def test_numbers_that_no_setting_can_use(word: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made("train-cls", word)


def test_home_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    words = ["run_dir=~/run", "dataset=voc", "dataset.root=~", "dataset.classes=[~/a,b~]"]
    one = made("check", *hydra_words(config.APPLICATIONS["check"], words))
    assert (one.run_dir, one.dataset.root, one.dataset.classes) == ("/home/me/run", "/home/me", ["/home/me/a", "b~"])
