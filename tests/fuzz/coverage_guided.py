"""One reader under atheris: `python -m tests.fuzz.coverage_guided READER SECONDS CORPUS`.

atheris keeps the files that reach new code, and stops at the first finding, which it writes to CORPUS/READER/.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris  # not among the project's dependencies: see __main__.py

with atheris.instrument_imports(include=["detpipe"]):
    from tests.fuzz.readers import READERS, read_one

from detpipe.storage.input_file import InputFileError


def main(name: str, seconds: str, corpus: str) -> None:
    reader = READERS[name]
    found = Path(corpus) / name
    found.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp())
    path, seeds = work / name / f"{reader.file_name}{reader.suffix}", work / "seeds"
    path.parent.mkdir()
    seeds.mkdir()
    for number, data in enumerate(reader.make()):
        (seeds / str(number)).write_bytes(data)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read_one(path)
        except InputFileError:
            pass
        except Exception:
            if not reader.contained:
                raise

    limits = [f"-max_total_time={float(seconds):.0f}", "-rss_limit_mb=2048", "-timeout=10"]
    atheris.Setup([sys.argv[0], *limits, f"-artifact_prefix={found}/", str(seeds), str(found)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
