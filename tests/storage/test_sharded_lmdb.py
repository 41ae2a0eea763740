"""An LMDB in shards is read as the one LMDB of the same records."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from detpipe.storage import sharded_lmdb
from detpipe.storage.lmdb_store import DatabaseError, LmdbReader, LmdbWriter
from detpipe.storage.manifest import Artefact
from detpipe.storage.shard_index import INDEX, data_files, is_lmdb
from detpipe.storage.sharded_lmdb import ShardedLmdb, numbered_key, open_lmdb, shuffled_keys
from detpipe.storage.shards import Shards

PARTS: tuple[Mapping[bytes, bytes], ...] = (
    {b"train/c": b"0", b"train/a": b"1"},
    {},
    {b"train/b": b"2", b"test/a": b"3"},
)


def kept(folder: Path, parts: tuple[Mapping[bytes, bytes], ...] = PARTS, seed: int | None = None) -> Path:
    """An LMDB in shards with these records."""
    whole = Artefact(folder / "db.lmdb", stage="propose", settings={}, inputs={})
    shards = Shards(whole, len(parts))
    with whole.making(overwrite=False):
        for task, records in enumerate(parts, start=1):
            with shards.artefact(task).making(overwrite=False) as making, LmdbWriter(making.path) as writer:
                for key, value in records.items():
                    writer.put(key, value)
                making.summary = {"records": len(records)}
        shards.keep(records="records", seed=seed)
        shards.remove()
    assert not shards.folder.exists()
    return whole.path


def test_one_order_of_keys(tmp_path: Path) -> None:
    path = kept(tmp_path)
    with open_lmdb(path) as reader:
        assert list(reader.items()) == [(b"test/a", b"3"), (b"train/a", b"1"), (b"train/b", b"2"), (b"train/c", b"0")]
        assert list(reader.keys()) == [key for key, _ in reader.items()]
        assert [(key, bytes(value)) for key, value in reader.views()] == list(reader.items())
        stored = [(place, key, bytes(value)) for place, key, value in reader.stored()]
        assert [place for place, _, _ in stored] == [1, 3, 0, 2]  # shard after shard, each in the order of its keys
        assert [(key, value) for _, key, value in sorted(stored)] == list(reader.items())
        assert len(reader) == 4
        assert b"train/b" in reader
        assert b"train/bb" not in reader
        assert b"" not in reader
        assert pickle.loads(pickle.dumps(reader)).get(b"train/c") == b"0"
        with pytest.raises(KeyError, match=r"db\.lmdb.*train/z"):
            reader.get(b"train/z")
    assert is_lmdb(path)
    assert [file.parent.name for file in data_files(path)] == ["0001-of-0003", "0002-of-0003", "0003-of-0003"]


def test_stored_order_of_one_file(tmp_path: Path) -> None:
    with LmdbWriter(tmp_path / "db") as writer:
        for key, value in PARTS[0].items():
            writer.put(key, value)
    with open_lmdb(tmp_path / "db") as reader:
        assert isinstance(reader, LmdbReader)
        found = [(place, key, bytes(value)) for place, key, value in reader.stored()]
    assert found == [(0, b"train/a", b"1"), (1, b"train/c", b"0")]


def test_shuffled_keys_of_all_shards(tmp_path: Path) -> None:
    """The keys are those that the whole list of names gets, and the values follow."""
    names = [b"a", b"a", b"b_1", b"c", b"c"]
    values = dict(zip(shuffled_keys(names, 7), (b"0", b"1", b"2", b"3", b"4"), strict=True))
    order = np.random.default_rng(7).permutation(5)
    assert list(values) == [f"{index:08d}_".encode() + name for index, name in zip(order, names, strict=True)]
    first = {numbered_key(index, names[index]): b"%d" % index for index in range(2)}
    second = {numbered_key(index - 2, names[index]): b"%d" % index for index in range(2, 5)}
    with ShardedLmdb(kept(tmp_path, (first, second), seed=7)) as reader:
        assert list(reader.items()) == sorted(values.items())
        assert {key: bytes(value) for _, key, value in reader.stored()} == values
        assert [bytes(value) for _, _, value in reader.stored()] == [b"0", b"1", b"2", b"3", b"4"]


def test_no_records_at_all(tmp_path: Path) -> None:
    with ShardedLmdb(kept(tmp_path, ({}, {}), seed=0)) as reader:
        assert len(reader) == 0
        assert list(reader.items()) == list(reader.stored()) == []
        assert b"a" not in reader


def test_few_shards_are_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 30 shards and room for two, threads read all records, and others are closed again."""
    monkeypatch.setattr(sharded_lmdb, "MOST_OPEN", 2)
    parts = tuple({b"%02d" % number: b"value %d" % number} for number in range(30))
    path = kept(tmp_path, parts)

    def opened() -> int:
        links = (entry.readlink() for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
        return len({str(link) for link in links if str(link).startswith(str(path))})

    with ShardedLmdb(path) as reader:
        assert len(reader) == 30
        assert opened() == 2
        with ThreadPoolExecutor(4) as pool:
            numbers = [number % 30 for number in range(300)]
            assert list(pool.map(reader.get, [b"%02d" % number for number in numbers])) == [
                b"value %d" % number for number in numbers
            ]
        assert opened() <= 5
        assert reader.get(b"07") == b"value 7"
    assert opened() == 0


@pytest.mark.parametrize("damage", ["missing", "no file", "cut", "no manifest", "other settings", "fewer records"])
def test_a_missing_or_damaged_shard(damage: str, tmp_path: Path) -> None:
    path = kept(tmp_path)
    shard = path / "0003-of-0003"
    if damage == "missing":
        shutil.rmtree(shard)
    elif damage == "no file":
        (shard / "data.mdb").unlink()
    elif damage == "cut":
        (shard / "data.mdb").write_bytes((shard / "data.mdb").read_bytes()[:5000])
    elif damage == "no manifest":
        (shard / "manifest.json").unlink()
    elif damage == "other settings":
        manifest = json.loads((shard / "manifest.json").read_text())
        (shard / "manifest.json").write_text(json.dumps({**manifest, "inputs": {"train": "other"}}))
    else:
        shutil.copy(path / "0002-of-0003" / "data.mdb", shard / "data.mdb")
    with pytest.raises(DatabaseError) as caught, open_lmdb(path) as reader:
        reader.get(b"train/a")  # which another shard has
    assert str(caught.value).startswith(f"{shard}: ")
    assert "delete this folder and run `detpipe propose` again with tasks=3 merge=false" in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"stage": "propose", "shards": []}',
        '{"stage": "propose", "shards": [{"folder": "../elsewhere", "records": 1, "digest": ""}]}',
        '{"stage": "propose", "shards": [{"folder": "0001-of-0001", "records": -1, "digest": ""}]}',
        '{"stage": "propose", "shards": [{"folder": "0001-of-0001", "records": 1, "digest": ""}], "seed": -1}',
    ],
)
def test_a_damaged_index(text: str, tmp_path: Path) -> None:
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(DatabaseError, match=r"shards\.json.*merge=false"):
        open_lmdb(tmp_path)


def test_a_database_of_its_own_comes_first(tmp_path: Path) -> None:
    """What a killed merge leaves is an unfinished artefact, and a finished merge needs no index."""
    path = kept(tmp_path)
    with LmdbWriter(path) as writer:
        writer.put(b"merged", b"1")
    with open_lmdb(path) as reader:
        assert list(reader.keys()) == [b"merged"]
