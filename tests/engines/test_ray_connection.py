"""What a driver notices of a lost head node, or node of its own; `test_ray_head.py` kills real ones."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from detpipe.engines import ray_cluster
from detpipe.engines.engine import TaskError
from detpipe.engines.ray_cluster import LOOPBACK, RECONNECT, Connection


@pytest.fixture
def head() -> Iterator[socket.socket]:
    """A port that answers."""
    with socket.create_server((LOOPBACK, 0)) as made:
        yield made


def connection(head: socket.socket, node: dict[str, Any]) -> Connection:
    address = "{}:{}".format(*head.getsockname())
    context = SimpleNamespace(gcs_address=address, get_node_id=lambda: "ab12cd34")
    return Connection(SimpleNamespace(get_runtime_context=lambda: context, nodes=lambda: [node]))


def node(number: str, *, alive: bool) -> dict[str, Any]:
    return {"NodeID": number, "Alive": alive, "NodeManagerAddress": LOOPBACK}


def test_the_head_node_may_be_gone_for_a_while(head: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "CONNECTION_TICK", -1.0)
    made = connection(head, node("ab12cd34", alive=True))
    assert made.holds()
    address = head.getsockname()
    head.close()
    assert not made.holds()
    with socket.create_server(address):
        assert made.holds()
    assert not made.holds()


def test_a_lost_head_node(head: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "CONNECTION_TICK", -1.0)
    monkeypatch.setenv(RECONNECT, "0")
    made = connection(head, node("ab12cd34", alive=True))
    address = f"{LOOPBACK}:{head.getsockname()[1]}"
    head.close()
    with pytest.raises(TaskError, match=f"{address}.*same command"):
        made.holds()


def test_a_lost_node_of_this_machine(head: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_cluster, "CONNECTION_TICK", -1.0)
    assert connection(head, node("other", alive=False)).holds()
    with pytest.raises(TaskError, match=r"ab12cd.*ray start.*same command"):
        connection(head, node("ab12cd34", alive=False)).holds()


def test_it_looks_now_and_then(head: socket.socket) -> None:
    made = connection(head, node("ab12cd34", alive=False))
    assert made.holds()  # nothing is asked in the first two seconds
