"""openimages: shares, codes and names of classes, groups, and images that are not there."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from detpipe.datasets.entry import RawObject
from detpipe.datasets.open_images import OpenImagesSource
from detpipe.datasets.source import Split
from tests.datasets.other_formats import image

HEADER = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsInside\n"
CAT = "{},xclick,/m/01yrx,1,0.25,0.75,0.5,1,0,0,{},0\n"


def test_boxes_are_shares_of_the_image_and_groups_are_crowds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for folder, name in (("train", "00a"), ("validation", "00b")):
        image(tmp_path / folder / f"{name}.jpg")
        rows = HEADER + CAT.format(name, 0) + CAT.format(name, 1) + CAT.format("not_here", 0)
        (tmp_path / f"{folder}-annotations-bbox.csv").write_text(rows)
    source = OpenImagesSource(root=str(tmp_path))
    with caplog.at_level(logging.WARNING):
        (entry,) = source.entries(Split.train)
    box = (10.0, 10.0, 30.0, 20.0)
    assert entry.objects == (RawObject("/m/01yrx", box), RawObject("/m/01yrx", box, crowd=True))
    assert "1 of 2 images have no file" in caplog.text
    assert source.load(Split.test).records[0].image_id == "00b"  # the validation images
    (tmp_path / "class-descriptions-boxable.csv").write_text("/m/01yrx,Cat\n")
    assert OpenImagesSource(root=str(tmp_path)).known_classes() == ["Cat"]
    (tmp_path / "class-descriptions-boxable.csv").rename(tmp_path / "oidv7-class-descriptions-boxable.csv")
    assert OpenImagesSource(root=str(tmp_path)).known_classes() == ["Cat"]
    (tmp_path / "names.csv").write_text('/m/01yrx,"Cat, small"\n')
    named = OpenImagesSource(root=str(tmp_path), names_file=str(tmp_path / "names.csv"))
    assert named.known_classes() == ["Cat, small"]


@pytest.mark.parametrize(("value", "said"), [("2", "from 0 to 1"), ("nan", "finite"), ("", "expected a number")])
def test_a_wrong_share_makes_its_image_unusable(tmp_path: Path, value: str, said: str) -> None:
    image(tmp_path / "a.jpg")
    image(tmp_path / "b.jpg")
    row = CAT.format("a", 0).replace("0.75", value)
    (tmp_path / "boxes.csv").write_text(HEADER + row + CAT.format("b", 0))
    (bad,) = OpenImagesSource(root=str(tmp_path), test_share=0.0, max_bad=0.5).load(Split.train).bad
    assert "line 2" in bad.reason
    assert said in bad.reason


def test_no_image_at_all_is_an_empty_split(tmp_path: Path) -> None:
    (tmp_path / "boxes.csv").write_text(HEADER + CAT.format("a", 0))
    with pytest.raises(ValueError, match=r"dataset\.images_root"):
        OpenImagesSource(root=str(tmp_path), test_share=0.0).load(Split.train)
