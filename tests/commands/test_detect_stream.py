"""`detpipe detect source=... out=DIR.parquet engine=ray` on a cluster of two nodes with one core each."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detpipe.commands import detect_parts, detect_stream
from detpipe.commands.stage_settings import Detect
from detpipe.engines import ray_cluster
from detpipe.engines.engine import TaskError
from detpipe.engines.ray import RayEngine
from detpipe.engines.ray_cluster import LOOPBACK, check_nodes
from detpipe.integrations.ray import NodeDetector
from tests import drawn
from tests.command_line import detpipe
from tests.commands.test_kill import stopped, wait_for
from tests.engines.test_ray import cluster

__all__ = ["cluster"]
parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")


def photos(folder: Path, count: int) -> Path:
    """A folder of different images, of which the tenth is cut short and one has a name that is not UTF-8."""
    for number in range(count):
        drawn.write_jpeg(folder / f"{number:03}.jpg", drawn.draw(number)[0])
    (folder / "000.jpg").rename(folder / os.fsdecode(b"\xff.jpg"))
    (folder / "010.jpg").write_bytes((folder / "010.jpg").read_bytes()[:900])
    return folder


def words(run: Path, source: Path, out: Path, *more: str) -> list[str]:
    settings = [*drawn.settings("detect"), f"run_dir={run}", f"source={source}", f"out={out}"]
    return ["detect", *settings, "detect.max_proposals=10", *more]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_parts_are_those_of_one_process(
    cluster: Any, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three parts is there. Two actors make the others, and try its unreadable image again."""
    monkeypatch.setattr(detect_parts, "PART", 16)
    source, one = photos(tmp_path / "photos", 36), tmp_path / "one"
    assert detpipe(*words(finished_run, source, one)).status == 0
    assert sorted(contents(one)) == ["_manifest.json", *(f"part-0000{number}.parquet" for number in range(3))]
    several = drawn.copy(one, tmp_path / "several")
    for number in (1, 2):
        (several / f"part-0000{number}.parquet").unlink()
    outcome = detpipe(*words(finished_run, source, several, "engine=ray", f"engine.address={cluster.address}"))
    assert outcome.status == 0, outcome.err
    assert "2 nodes" in outcome.err
    assert "010.jpg" in outcome.err
    assert "20 new, 1 unreadable" in outcome.out + outcome.err
    for number in (0, 1):
        name = f"part-0000{number}.parquet"
        assert (several / name).read_bytes() == (one / name).read_bytes()
    tables = [parquet.read_table(folder).sort_by("image_id") for folder in (one, several)]
    assert len(tables[0]) > 0
    assert tables[0].equals(tables[1])


def test_nodes_are_checked(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = RayEngine(address=cluster.address)
    with engine.cluster() as ray:
        nodes = engine.nodes(ray)
        assert len(nodes) == 2
        driver = engine.driver(None, str(tmp_path))
        check_nodes(ray, nodes, driver)
        assert not caplog.records
        with pytest.raises(TaskError, match=rf"node {LOOPBACK}.*{tmp_path}/none"):
            check_nodes(ray, nodes, dataclasses.replace(driver, source=str(tmp_path / "none")))
        other = dataclasses.replace(driver, versions={**driver.versions, "torch": "0.1"})
        check_nodes(ray, nodes, other)
        assert sum("torch 0.1" in line for line in caplog.messages) == 2
        with pytest.raises(TaskError, match=r"torch 0.1.*engine.strict"):
            check_nodes(ray, nodes, dataclasses.replace(other, strict=True))


@pytest.mark.slow
def test_the_example_of_the_docs(
    cluster: Any, finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs/ray.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    drawn.copy(finished_run, tmp_path / "runs/mine")
    for number, name in enumerate(("one", "two")):
        drawn.write_jpeg(tmp_path / f"photos/{name}.jpg", drawn.draw(number)[0])
    with RayEngine(address=cluster.address).cluster():
        exec(code.replace("/shared", str(tmp_path)), {})
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "photos" in line] == [
        f"{tmp_path}/photos/{name}.jpg" for name in ("one", "two")
    ]


def test_an_error_of_an_actor_is_named(
    cluster: Any, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = ray_cluster.versions()
    monkeypatch.setattr(ray_cluster, "versions", lambda: {**here, "torch": "0.1"})  # only of the driver
    monkeypatch.setattr(detect_stream, "check_nodes", lambda *_: None)  # as for a node that joins later
    source, out = tmp_path / "photos", tmp_path / "out"
    drawn.write_jpeg(source / "a.jpg", drawn.draw(1)[0])
    engine = ("engine=ray", f"engine.address={cluster.address}", "engine.strict=true")
    outcome = detpipe(*words(finished_run, source, out, *engine))
    assert outcome.status == 1
    assert "torch 0.1" in outcome.err
    assert f"node {LOOPBACK}" in outcome.err
    assert "Traceback" not in outcome.err


def test_what_an_actor_raised() -> None:
    """Of the messages of Ray 2.60: the error of the actor, also among errors and advice of Ray Data."""
    raised = "detpipe.engines.engine.TaskError: 2 processes were killed: a.jpg"
    start = "ray::MapWorker(MapBatches(NodeDetector)).submit() (pid=7, ip=127.0.0.2)\n    raise TaskError(\n"
    data = (
        "\n\nThe above exception was the direct cause of the following exception:\n\n"
        "ray.data.exceptions.UserCodeException: UDF failed to process a data block.\nTo change retries, configure it"
    )
    for text, line in (
        (f"{start}{raised}{data}", "2 processes were killed: a.jpg"),
        (f"{start}{raised}", "2 processes were killed: a.jpg"),
        (f"{start}KeyError: 'a'\n\nDuring handling\n\nValueError: expected b", "ValueError: expected b"),
        ("The actor died unexpectedly.\n\tip: 127.0.0.2\nIts node has died.", "Its node has died."),
    ):
        assert detect_stream._raised(RuntimeError(text)) == line


class Dying(NodeDetector):
    """An actor that ends, as a decoder that crashes does, when it reads an image."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        read = self._detector.with_regions

        def with_regions(image: Any) -> Any:
            if Path(image).name == "011.jpg":
                os.kill(os.getpid(), signal.SIGKILL)
            return read(image)

        object.__setattr__(self._detector, "with_regions", with_regions)


@pytest.mark.slow  # 50 s: three actors start, one after the other
def test_an_image_that_ends_each_actor_is_named(
    cluster: Any, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = photos(tmp_path / "photos", 20), tmp_path / "out"
    arguments = words(finished_run, source, out, "engine=ray", f"engine.address={cluster.address}")
    with monkeypatch.context() as patch:
        patch.setattr(detect_stream, "NodeDetector", Dying)
        outcome = detpipe(*arguments, "engine.retries=1")
    assert outcome.status == 1
    last = outcome.err.strip().splitlines()[-1]
    assert "2 processes" in last
    assert f"{source}/011.jpg" in last
    assert f"{source}/001.jpg" not in last  # of another chunk
    assert "engine.retries=1" in last
    assert str(out) in last
    assert "Traceback" not in outcome.err
    (source / "011.jpg").unlink()
    outcome = detpipe(*arguments)
    assert outcome.status == 0, outcome.err
    assert len([image for part in out.glob("*.parquet") for image in images_of(part)]) == 18


class DyingAtOnce(NodeDetector):
    """An actor that ends while it loads the detector."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        from detpipe.runs.detector import Detector

        def killed(*_: Any, **__: Any) -> Any:
            os.kill(os.getpid(), signal.SIGKILL)

        Detector.from_run = killed  # type: ignore[method-assign]
        super().__init__(*arguments, **options)


@pytest.mark.slow
def test_an_actor_that_always_ends_while_it_starts(
    cluster: Any, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = tmp_path / "photos", tmp_path / "out"
    drawn.write_jpeg(source / "a.jpg", drawn.draw(1)[0])
    monkeypatch.setattr(detect_stream, "NodeDetector", DyingAtOnce)
    outcome = detpipe(
        *words(finished_run, source, out, "engine=ray", f"engine.address={cluster.address}", "engine.retries=1")
    )
    assert outcome.status == 1
    assert f"loaded the detector of {finished_run}" in outcome.err
    assert "engine.retries=1" in outcome.err


@pytest.mark.parametrize("module", ["ray", "ray.data"])
def test_without_ray(module: str, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "photos"
    drawn.write_jpeg(source / "a.jpg", drawn.draw(1)[0])
    monkeypatch.setitem(sys.modules, module, None)
    outcome = detpipe(*words(finished_run, source, tmp_path / "out", "engine=ray", "engine.address=127.0.0.1:1"))
    assert outcome.status != 0
    assert "detpipe[ray]" in outcome.err


def test_ray_needs_out_or_tasks() -> None:
    with pytest.raises(ValueError, match=r"engine.*out.*tasks"):
        Detect(source="photos", engine=RayEngine())
    Detect(source="photos", engine=RayEngine(), tasks=2)
    Detect(source="photos", engine=RayEngine(), out="out")
    Detect(engine=RayEngine())  # a step of `detpipe run`


PARTS_OF_16 = "from detpipe.commands import detect_parts; detect_parts.PART = 16; from detpipe.cli import main; main()"


def started(arguments: list[str]) -> subprocess.Popen[str]:
    """The command in a process of its own, with a part for every 16 images."""
    command = [sys.executable, "-c", PARTS_OF_16, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def megabytes(process: subprocess.Popen[str]) -> float:
    """The resident memory of a process."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)


def has_parts(out: Path, count: int) -> Callable[[], bool]:
    return lambda: len(list(out.glob("part-*.parquet"))) >= count


@pytest.mark.slow
def test_a_killed_driver_a_killed_actor_and_an_interrupt(cluster: Any, finished_run: Path, tmp_path: Path) -> None:
    source, out = photos(tmp_path / "photos", 400), tmp_path / "out"
    arguments = words(finished_run, source, out, "engine=ray", f"engine.address={cluster.address}")
    for parts in (2, 5):
        process = started(arguments)
        wait_for(has_parts(out, parts), process)
        assert stopped(process, signal.SIGKILL).status == -signal.SIGKILL
    process = started(arguments)
    wait_for(has_parts(out, 8), process)
    outcome = stopped(process, signal.SIGINT)
    assert outcome.status == 130, outcome.err
    assert str(out) in outcome.err
    assert "Traceback" not in outcome.err

    process = started(arguments)
    wait_for(has_parts(out, 10), process)
    begun = peak = megabytes(process)
    os.kill(actors(cluster)[0], signal.SIGKILL)

    def is_done() -> bool:
        nonlocal peak
        peak = max(peak, megabytes(process))
        return has_parts(out, 24)()

    wait_for(is_done, process)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert peak - begun < 40, (begun, peak)
    one = tmp_path / "one"
    assert detpipe(*words(finished_run, source, one)).status == 0
    tables = [parquet.read_table(folder).sort_by("image_id") for folder in (one, out)]
    assert tables[0].equals(tables[1])
    ids = [image for part in out.glob("*.parquet") for image in images_of(part)]
    assert len(ids) == len(set(ids)) == 399


def images_of(part: Path) -> list[str]:
    import json

    footer: list[str] = json.loads(parquet.read_metadata(part).metadata[b"detpipe"])["images"]
    return footer


def actors(cluster: Any) -> list[int]:
    """The processes of Ray Data's actors: children of the nodes' own processes."""
    raylets = {one.process.pid for node in cluster.list_all_nodes() for one in node.all_processes["raylet"]}
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = re.search(r"^PPid:\t(\d+)$", (folder / "status").read_text(), re.M)
            if parent and int(parent[1]) in raylets and b"ray::MapWorker" in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has ended
            continue
    return found
