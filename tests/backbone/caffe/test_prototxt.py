from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detpipe.backbone.caffe.load import build_net
from detpipe.backbone.caffe.prototxt import MAX_TEXT, parse_prototxt, read_prototxt, to_prototxt
from tests.backbone.caffe.one_error import at_most_one_error

RELU = 'layer { name: "r" type: "ReLU" bottom: "a" top: "b" relu_param { negative_slope: 0.1 } }  # }{\n'


def test_text_comes_back() -> None:
    net = parse_prototxt(f'name: "n{{"\n{RELU}')
    assert net.name == "n{"
    assert parse_prototxt(to_prototxt(net)) == net
    assert len(parse_prototxt("").layer) == 0


def test_an_unknown_layer_is_named_with_its_type() -> None:
    text = f'{RELU}layer {{ name: "p" type: "PriorBox" bottom: "b" prior_box_param {{ min_size: 30 }} }}'
    with pytest.raises(
        ValueError, match=r"^x\.prototxt: layer 'p' has the type 'PriorBox', which detpipe doesn't know"
    ):
        parse_prototxt(text, "x.prototxt")
    with pytest.raises(ValueError, match="layer 'p' has the type 'PriorBox'"):
        build_net(parse_prototxt('input: "a" layer { name: "p" type: "PriorBox" bottom: "a" top: "y" }'))


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ('layer { name: "r" type: "ReLU" relu_parm { } }', r"line 1, column 32: .* got relu_parm.*mean relu_param\?"),
        ("layer {", "expected a Caffe net"),
        ("layer { convolution_param { num_output: -1 } }", "num_output|column 4"),
        ("layer { convolution_param { num_output: 99999999999 } }", "column 4"),
        ('layer { name: "a" name: "b" }', "multiple"),
        ("layers { type: NONSENSE }", "NONSENSE"),
        ("a" * (MAX_TEXT + 1), "at most 1048576 bytes"),
        ("layer { " * 2000, "at most 16 nested"),
        ("foo < " * 2000, "at most 16 nested"),
        ("foo: [" * 2000, "expected a field of Caffe's NetParameter, got foo"),
        ("\0", "expected a Caffe net"),
        ('net: "n.prototxt" base_lr: 0.1', "got a solver.prototxt; give the net's file"),
        # Each of these quotes could begin a text that does not end.
        ('\\"' * (MAX_TEXT // 2), "names of at most 1000"),
        ('name: "' + '\\"' * (MAX_TEXT // 2 - 9), "names of at most 1000"),
        ("\\'" * (MAX_TEXT // 2), "names of at most 1000"),
        (f'name: "{"a" * (MAX_TEXT - 9)}"', 'names of at most 1000.*begins with "aaa'),
        ("name: " + '"a" ' * 1000, "names of at most 1000"),
        ('"\\"\n' * (MAX_TEXT // 4), "names of at most 1000"),
        ("layer{}" * (MAX_TEXT // 7), "at most 40000 pairs of braces"),
    ],
)
def test_broken_texts(text: str, wrong: str) -> None:
    begun = time.process_time()
    with pytest.raises(ValueError, match=f"^p: .*({wrong})") as caught:
        parse_prototxt(text, "p")
    assert len(str(caught.value)) < 500
    assert time.process_time() - begun < 2


def test_files(tmp_path: Path) -> None:
    (tmp_path / "n.prototxt").write_text(RELU)
    assert read_prototxt(tmp_path / "n.prototxt").layer[0].name == "r"
    (tmp_path / "n.prototxt").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="UTF-8"):
        read_prototxt(tmp_path / "n.prototxt")
    (tmp_path / "n.prototxt").write_bytes(b"\xff" * (MAX_TEXT + 5))
    with pytest.raises(ValueError, match="at most"):
        read_prototxt(tmp_path / "n.prototxt")
    with pytest.raises(FileNotFoundError, match=r"m\.prototxt"):
        read_prototxt(tmp_path / "m.prototxt")


WORDS = (
    'layer layers { } < > [ ] : , ; # \n name type "ReLU" "Convolution" "Reshape" "a" bottom top input input_dim '
    "dim shape convolution_param pooling_param num_output kernel_size pad 0 -1 3 1e9 99999999999 input_shape "
    "include phase TRAIN"
)


@given(st.lists(st.sampled_from(WORDS.split(" ")), max_size=40).map(" ".join) | st.text(max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_is_a_net_or_one_error(text: str) -> None:
    with at_most_one_error("p: "):
        build_net(parse_prototxt(text, "p"), where="p")
