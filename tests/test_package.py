"""The wheel: everything that the installed package reads is in it, and it works from anywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of a copy of the tree, so that the build leaves nothing in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    for name in ("detpipe", "conf"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree / name)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-deps"]
    built = subprocess.run(
        [*pip, "--no-build-isolation", "--wheel-dir", folder, tree], capture_output=True, text=True, check=False
    )
    if "No module named 'setuptools'" in built.stderr or "Cannot import 'setuptools" in built.stderr:
        pytest.skip("setuptools is not installed here: no wheel without the network")
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_everything_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    code = {str(path.relative_to(ROOT)) for path in (ROOT / "detpipe").rglob("*.py")}
    settings = {f"detpipe/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert "detpipe/conf/common.yaml" in settings
    assert code <= names
    assert settings <= names
    nets = {str(path.relative_to(ROOT)) for path in (ROOT / "detpipe").rglob("*.prototxt")}
    assert "detpipe/backbone/caffe/presets/vgg16.prototxt" in nets
    assert nets <= names
    pages = {str(path.relative_to(ROOT)) for path in (ROOT / "detpipe" / "report" / "templates").iterdir()}
    assert {"detpipe/report/templates/run.html", "detpipe/report/templates/style.css"} <= pages <= names
    assert {
        "detpipe/py.typed",
        "detpipe/storage/messages.proto",
        "detpipe/backbone/caffe/caffe_net.proto",
        "detpipe/conf/__init__.py",
        "detpipe/proposals/selective_search/objectness.json",
    } <= names
    outside = {name.split("/")[0] for name in names} - {"detpipe"}
    assert all(name.endswith(".dist-info") for name in outside)


def test_it_works_where_only_the_wheel_is(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "target", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps"]
    subprocess.run([*pip, "--target", target, wheel], check=True, capture_output=True)
    environment = {**os.environ, "PYTHONPATH": str(target)}
    where = subprocess.run(
        [sys.executable, "-c", "import detpipe; print(detpipe.__file__)"],
        cwd=elsewhere, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert where.stdout.strip() == str(target / "detpipe" / "__init__.py")
    shown = subprocess.run(
        [sys.executable, "-m", "detpipe", "propose", "--cfg", "job"],
        cwd=elsewhere, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert "run_dir: runs/latest" in shown.stdout
    assert "preset: turbo" in shown.stdout
    assert list(elsewhere.iterdir()) == []


def test_the_public_names() -> None:
    import detpipe

    for name in ("Detector", "evaluate", "load_dataset", "SelectiveSearch"):
        assert name in detpipe.__all__
    assert sorted(detpipe.__all__) == detpipe.__all__
    for name in detpipe.__all__:
        assert getattr(detpipe, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Detektor'"):
        _ = detpipe.Detektor


def test_importing_the_package_is_quick() -> None:
    """Torch takes seconds: it is not imported by the package itself, nor for `detpipe --help`."""
    code = "import sys, detpipe, detpipe.cli; print(sorted({'torch', 'cv2', 'hydra', 'numpy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
