"""The server of docs/serve.md: the page's own program, asked without a network."""

from __future__ import annotations

import io
from types import ModuleType
from typing import Any

import numpy as np
import PIL.Image
import pytest

from tests.runs.tiny_export import write_export
from tests.test_docs import ROOT, blocks_of

PAGE = ROOT / "docs" / "serve.md"

pytest.importorskip("onnxruntime")
testclient = pytest.importorskip("fastapi.testclient")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The page's program as a module, with a detector whose one object is the whole image."""
    place = tmp_path_factory.mktemp("place")
    write_export(place / "runs/fast/export")
    (block,) = [one for one in blocks_of(PAGE, PAGE.read_text("utf-8")) if one.language == "python"]
    assert len([line for line in block.text.splitlines() if line.strip()]) <= 32
    module = ModuleType("serve")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(place)
        exec(compile("\n" * block.line + block.text, str(PAGE), "exec"), module.__dict__)
    return module


@pytest.fixture
def client(page: ModuleType) -> Any:
    with testclient.TestClient(page.app) as one:
        yield one


def encoded(image: np.ndarray, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(image).save(file, kind)
    return file.getvalue()


GREY = np.full((20, 30, 3), 51, np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_an_image_gives_its_detections(client: Any, kind: str) -> None:
    answer = client.post("/detect?threshold=0.1", content=encoded(GREY, kind))
    assert answer.status_code == 200, answer.text
    (one,) = answer.json()
    assert (one["class"], one["box"]) == ("cat", [0, 0, 30, 20])
    assert one["score"] == pytest.approx(0.2, abs=0.01)
    assert client.post("/detect", content=encoded(GREY)).json() == []


@pytest.mark.parametrize("content", [b"", b"no image", encoded(GREY)[:60], encoded(GREY, "GIF")])
def test_what_is_no_image_is_refused(client: Any, content: bytes) -> None:
    answer = client.post("/detect", content=content)
    assert (answer.status_code, "expected an image" in answer.text) == (422, True)


def test_too_many_bytes_are_refused_with_and_without_a_stated_length(client: Any, page: ModuleType) -> None:
    parts = [bytes(1_000_000)] * (page.LARGEST // 1_000_000 + 1)
    for content in (b"".join(parts), iter(parts)):
        assert client.post("/detect", content=content).status_code == 413


def test_too_many_pixels_are_refused(client: Any) -> None:
    """A file of some kilobytes: it is refused by its header."""
    huge = encoded(np.zeros((8000, 6000), np.uint8))
    assert len(huge) < 1_000_000
    answer = client.post("/detect", content=huge)
    assert (answer.status_code, "48" in answer.text or "6000" in answer.text) == (422, True)


@pytest.mark.parametrize("threshold", ["-1", "2", "high", "nan"])
def test_a_wrong_threshold_is_refused(client: Any, threshold: str) -> None:
    assert client.post(f"/detect?threshold={threshold}", content=encoded(GREY)).status_code == 422
