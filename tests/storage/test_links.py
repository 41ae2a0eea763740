"""Links inside a run folder do not lead a command to write elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from detpipe.storage.links import LinkError, refuse_link, refuse_links
from detpipe.storage.manifest import Artefact


def complete(path: Path) -> Path:
    one = Artefact(path, stage="s", settings={}, inputs={})
    one.begin(overwrite=False)
    one.finish(seconds=0, summary={})
    return path


@pytest.mark.parametrize("name", ["classifier", ".hydra", "features/train", "detpipe.log"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    link, target = tmp_path / "run" / name, tmp_path / "important"
    link.parent.mkdir(parents=True)
    link.symlink_to(target)
    for exists in (False, True):  # a log would be made at the end of a link that leads nowhere
        if exists:
            target.mkdir()
        with pytest.raises(LinkError, match=r"important; replace the link by a copy") as caught:
            refuse_links(tmp_path / "run")
        assert str(link) in str(caught.value)


def test_links_that_are_allowed(tmp_path: Path) -> None:
    """To a complete artefact, to a place inside the folder, and the run folder itself."""
    (tmp_path / "disk" / "run" / "classifier").mkdir(parents=True)
    (tmp_path / "run").symlink_to(tmp_path / "disk" / "run")
    (tmp_path / "run" / "best").symlink_to("classifier")
    (tmp_path / "run" / "proposals.lmdb").symlink_to(complete(tmp_path / "other" / "proposals.lmdb"))
    refuse_links(tmp_path / "run")
    refuse_links(tmp_path / "missing")


def test_a_link_to_an_unfinished_artefact_is_refused(tmp_path: Path) -> None:
    Artefact(tmp_path / "other", stage="s", settings={}, inputs={}).begin(overwrite=False)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "crops.lmdb").symlink_to(tmp_path / "other")
    with pytest.raises(LinkError, match=r"crops\.lmdb"):
        refuse_links(tmp_path / "run")


def test_a_single_path(tmp_path: Path) -> None:
    refuse_link(tmp_path / "missing")
    refuse_link(tmp_path)
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(LinkError, match="got a link to elsewhere"):
        refuse_link(tmp_path / "link")
