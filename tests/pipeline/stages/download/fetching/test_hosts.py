"""Turns at a host, and the pauses that it asks for."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.stages.download.fetching.hosts import HostPausedError, Hosts


def test_host_has_so_many_connections_at_once_and_no_more() -> None:
    hosts, lock, other = Hosts(3, 0, 0), threading.Lock(), threading.Barrier(3)
    at_once = most = 0

    def take_a_turn(_: int) -> None:
        nonlocal at_once, most
        with hosts.turn("a"):
            with lock:
                at_once += 1
                most = max(most, at_once)
            other.wait(20)  # until three have a turn
            with lock:
                at_once -= 1

    with ThreadPoolExecutor(9) as pool:
        list(pool.map(take_a_turn, range(9)))
    assert most == 3


def test_another_host_does_not_wait() -> None:
    hosts = Hosts(1, 0, 0)
    with hosts.turn("a"), hosts.turn("b"):
        pass


def test_turn_comes_after_a_short_pause() -> None:
    hosts = Hosts(1, 0, 5)
    hosts.pause("a", 0.2)
    with hosts.turn("a") as waited:
        assert 0 < waited < 5


@pytest.mark.parametrize("retry_after", [None, 0.0, -30.0])
def test_pause_lasts_as_long_as_ours_if_none_is_asked_for(retry_after: float | None) -> None:
    hosts = Hosts(1, 40, 5)
    hosts.pause("a", retry_after)
    with pytest.raises(HostPausedError, match="host asked to wait: 40 s more"), hosts.turn("a"):
        pass


def test_pause_lasts_an_hour_at_most() -> None:
    hosts = Hosts(1, 0, 5)
    hosts.pause("a", 1e12)
    with pytest.raises(HostPausedError, match="host asked to wait: 3600 s more"), hosts.turn("a"):
        pass


def test_short_pauses_of_a_part_add_up() -> None:
    """A host that refuses again and again must not hold up its part."""
    hosts = Hosts(1, 0, 0.3)
    hosts.pause("a", 0.2)
    with hosts.turn("a"):
        hosts.pause("a", 0.2)
    with pytest.raises(HostPausedError), hosts.turn("a"):
        pass


def test_pause_outlasts_its_part() -> None:
    hosts = Hosts(1, 0, 0.3)
    hosts.pause("a", 100)
    hosts.begin_part()
    hosts.pause("b", 0.2)
    with pytest.raises(HostPausedError), hosts.turn("a"):
        pass


def test_what_was_waited_is_forgotten_with_its_part() -> None:
    hosts = Hosts(1, 0, 0.3)
    for _ in range(3):
        hosts.pause("a", 0.2)
        with hosts.turn("a") as waited:
            assert waited > 0
        hosts.begin_part()
