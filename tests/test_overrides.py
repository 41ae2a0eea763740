"""The words of a command line: settings as they were typed, and what is said to a word that is none."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from detpipe.commands.groups import GROUPS
from detpipe.commands.table import COMMANDS
from detpipe.config import register
from detpipe.overrides import LONGEST_WORD, hydra_words, quoted, split_at_commas


def setting(command: str, name: str, *words: str) -> Any:
    """The value that a setting has after these words."""
    register()
    with initialize_config_module("detpipe.conf", version_base="1.3"):
        row = COMMANDS[command]
        value = OmegaConf.select(compose(row.application, hydra_words(row, words)), name)
    return OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def refusal(command: str, *words: str) -> str:
    """The sentence to these words."""
    with pytest.raises(ValueError) as refused:
        hydra_words(COMMANDS[command], words)
    return str(refused.value)


# --- As it was typed --------------------------------------------------------------------------------------------------

LIKE_NUMBERS = ["20241010_120000", "1.10", "2024.10", "1e5", "007", "0x1F", "1_000", "inf", "nan", "-1", "1.", ".5"]
LIKE_OTHERS = [
    "true",
    "False",
    "null",
    "a,b",
    "[2024]",
    "{a: 1}",
    "glob(x)",
    "Bücher",
    "my data (2)",
    "a: b",
    "~x",
    "a=b",
]


@pytest.mark.parametrize("typed", LIKE_NUMBERS + LIKE_OTHERS)
@pytest.mark.parametrize(
    ("command", "name", "words"),
    [
        ("check", "run_dir", []),
        ("run", "backbone.weights", []),
        ("train-cls", "solver.resume", []),
        ("propose", "proposals.path", ["proposals=import"]),
    ],
)
def test_text_is_taken_as_it_was_typed(command: str, name: str, words: Sequence[str], typed: str) -> None:
    word = hydra_words(COMMANDS[command], [*words, f"{name}={typed}"])[-1]
    assert OverridesParser.create().parse_override(word).value() == typed


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [("2024.10", "2024.10"), ("[2007,2024.10]", ["2007", "2024.10"]), ("~x", "~x"), ("true", "true")],
)
def test_a_root_is_a_text_or_a_list_of_texts(typed: str, wanted: object) -> None:
    assert setting("check", "dataset.root", "dataset=voc", f"dataset.root={typed}") == wanted


@pytest.mark.parametrize(("typed", "wanted"), [("null", None), ("1.10", "1.10"), ("true", "true"), ("2024", "2024")])
def test_text_that_may_be_null(typed: str, wanted: str | None) -> None:
    assert setting("detect", "source", f"source={typed}") == wanted


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("[1,2]", ["1", "2"]),
        ("[1.10, true ,null]", ["1.10", "true", "null"]),
        ("[Bücher,a b]", ["Bücher", "a b"]),
        ('["a,b",2]', ["a,b", "2"]),
        ("[]", []),
        ("cat", ["cat"]),
        ("cat,007", ["cat", "007"]),
    ],
)
def test_lists_of_texts(typed: str, wanted: list[str]) -> None:
    assert setting("check", "dataset.classes", "dataset=voc", "dataset.root=a", f"dataset.classes={typed}") == wanted
    assert setting("proposals show", "images", f"images={typed}") == wanted


def test_numbers_stay_numbers() -> None:
    assert setting("run", "solver.max_iter", "solver.max_iter=20") == 20
    assert setting("run", "solver.base_lr", "solver.base_lr=1e-3") == 1e-3
    assert setting("run", "head.scales", "head=fast_rcnn", "head.scales=[96]") == [96]
    assert setting("run", "overwrite", "overwrite=true") is True


def test_interpolations_and_quotes_stay() -> None:
    assert setting("check", "run_dir", "seed=3", "run_dir=runs/${seed}") == "runs/3"
    assert setting("check", "run_dir", 'run_dir="1.10"') == "1.10"


def test_a_sweep_keeps_its_commas() -> None:
    words = hydra_words(COMMANDS["check"], ["-m", "run_dir=1.10,007", "seed=1,2", "dataset=voc,demo"])
    assert words == ["-m", 'run_dir="1.10","007"', "seed=1,2", "dataset=voc,demo"]
    assert hydra_words(COMMANDS["check"], ["-m", "run_dir=choice(a,b)"]) == ["-m", "run_dir=choice(a,b)"]
    assert hydra_words(COMMANDS["check"], []) == []


def test_commas_in_quotes_and_brackets_do_not_split() -> None:
    assert split_at_commas('a,"b,c",[d,e],') == ["a", '"b,c"', "[d,e]", ""]


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("source=Bücher", 'source="Bücher"'),
        ("+a@b=(x)", '+a@b="(x)"'),
        ('source=5" (\\', 'source="5\\" (\\\\"'),  # quotes, and backslashes before quotes, are escaped
        (r"source=C:\Bücher\x", r'source="C:\Bücher\x"'),
        ("source=é${seed}", 'source="é${seed}"'),
    ],
)
def test_what_hydra_cannot_read_is_quoted(word: str, wanted: str) -> None:
    assert quoted(word) == wanted
    assert quoted(wanted) == wanted


@pytest.mark.parametrize(
    "word",
    ["", "source=", "=", "=ü", "photos", "Bücher", "--config-dir=Bücher", "source=a b/c.jpg", "seed=1,2",
     "a=range(1,9)", "a=null", "a=[1,2]", "a={x:1}", "a=${seed}", '"a=ü"', "a='ü'", "~a", "Bücher=ü",
     "a=[ü", " a= [ü", "a={ü", 'a="ü', "a='ü", "a=${ü"],
)  # fmt: skip
def test_other_words_stay(word: str) -> None:
    assert quoted(word) == word


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_quotes_keep_the_text(value: str) -> None:
    word = quoted(f"source={value}")
    if word != f"source={value}":
        assert OverridesParser.create().parse_override(word).value() == value


# --- What was meant ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words", "meant"),
    [
        ("run", ["voc"], "did you mean dataset=voc?"),
        ("run", ["fast_rcnn"], "did you mean experiment=fast_rcnn?"),
        ("propose", ["edge_boxs"], "did you mean proposals=edge_boxes?"),
        ("run", ["overwrite"], "did you mean overwrite=...?"),
        ("run", ["help"], "did you mean --help?"),
        ("eval", ["voc"], "did you mean dataset=voc?"),
        ("detect", ["a.jpg", "b.jpg"], "source is given already"),
        ("detect", ["source=a.jpg", "b.jpg"], "source is given already"),
        ("run", ["--hepl"], "did you mean --help?"),
        ("run", ["--multi-run"], "did you mean --multirun?"),
        ("detect", ["--source", "photos"], "did you mean source=photos?"),
        ("detect", ["--source=photos"], "did you mean source=photos?"),
        ("run", ["--epochs", "5"], "did you mean solver.epochs=5?"),
        ("run", ["--run-dir", "x"], "did you mean run_dir=x?"),
        ("run", ["-x"], "the options are --help"),
        ("run", ["dataset=vco"], "did you mean dataset=voc?"),
        ("run", ["dataset=vco,demo", "-m"], "did you mean dataset=voc?"),
        ("run", ["experiment=fast_rnn"], "did you mean experiment=fast_rcnn?"),
        ("run", ["dataset.root=a"], f"give dataset={'|'.join(sorted(GROUPS['dataset']))} first"),
        ("run", ["dataset="], f"expected one of {', '.join(sorted(GROUPS['dataset']))}, got nothing"),
    ],
)
def test_what_may_be_meant(command: str, words: Sequence[str], meant: str) -> None:
    assert meant in refusal(command, *words)


def test_a_folder_is_a_data_set_or_a_run(tmp_path: Path) -> None:
    assert f"did you mean dataset.root={tmp_path}?" in refusal("check", str(tmp_path))
    (tmp_path / "classifier").mkdir()
    assert f"did you mean run_dir={tmp_path}?" in refusal("check", str(tmp_path))


@pytest.mark.parametrize(
    ("command", "word", "name"),
    [
        ("detect", "photos", "source"),
        ("eval", "run1", "run_dir"),
        ("inspect db", "1.10", "db"),
        ("inspect weights", "a.pth", "path"),
        ("proposals info", "run1", "path"),
        ("classes add", "2024", "name"),
    ],
)
def test_a_first_word_is_the_argument(command: str, word: str, name: str) -> None:
    assert setting(command, name, word) == word


def test_a_folder_with_the_name_of_an_option_is_an_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voc").mkdir()
    assert setting("detect", "source", "voc") == "voc"


def test_every_argument_is_a_setting() -> None:
    for name, row in COMMANDS.items():
        if row.argument:
            assert setting(name, row.argument, f"{row.argument}=x") == "x"


def test_options_come_before_settings() -> None:
    assert hydra_words(COMMANDS["check"], ["seed=1", "-m", "workers=2", "--cfg", "job"]) == [
        "-m", "--cfg", "job", "seed=1", "workers=2",
    ]  # fmt: skip


# --- Oversized --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", [f"seed={'1' * 5001}", f"detect.nms_iou=0.{'1' * 5001}", f"run_dir={'1' * 5001}"])
def test_a_number_with_thousands_of_digits(word: str) -> None:
    assert refusal("run", word).startswith(f"{word.partition('=')[0]}: expected a number with at most")


@pytest.mark.parametrize(
    "word", ["run_dir=" + "a" * 10**6, "dataset.classes=[" + "a," * 10**6 + "]", "x" * 10**6], ids=len
)
def test_a_word_of_a_million_characters(word: str) -> None:
    begun = time.perf_counter()
    assert f"expected at most {LONGEST_WORD} characters" in refusal("run", "dataset=demo", word)
    assert time.perf_counter() - begun < 5
