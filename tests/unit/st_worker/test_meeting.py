"""Members of a gang: a real agent, a scripted trainer, a controller that says when all are in."""

import json
import socket

import psutil
import pytest

from st_shared.protocol.states import Outcome
from st_shared.protocol.worker import GangMember
from st_worker.meeting import (
    ADDRESS,
    Rendezvous,
    kept_port,
    network_environment,
    own_address,
)

LEADER, FOLLOWER = GangMember(node=0, nodes=2), GangMember(node=1, nodes=2)


def arguments_of(attempt):
    [text] = [text for text in attempt.messages if text.startswith("[")]
    return json.loads(text)


@pytest.mark.anyio
async def test_the_first_member_offers_a_port_and_starts_once_all_are_there(double, start_agent):
    await start_agent(slots=2)
    attempt = double.offer([["arguments"]], slots=[0, 1], gang=LEADER)
    await double.until(lambda: attempt.meetings)
    told = attempt.meetings[0]
    assert told.host == "127.0.0.1"
    assert not attempt.states.count("running")
    attempt.place = {"host": told.host, "port": told.port}
    await double.until(lambda: attempt.finish)
    assert {(each.host, each.port) for each in attempt.meetings} == {(told.host, told.port)}
    assert arguments_of(attempt)[:10] == [
        "launch",
        *("--nodes", "2", "--node-rank", "0", "--rendezvous", f"127.0.0.1:{told.port}"),
        *("--processes", "2", "run"),
    ]


@pytest.mark.anyio
async def test_another_member_is_told_where_to_go(double, start_agent):
    await start_agent()
    attempt = double.offer([["arguments"], ["exit", 3]], gang=FOLLOWER)
    attempt.place = {"host": "10.0.0.7", "port": 29500}
    await double.until(lambda: attempt.finish)
    assert (attempt.meetings[0].host, attempt.meetings[0].port) == (None, None)
    assert arguments_of(attempt)[1:7] == [
        *("--nodes", "2", "--node-rank", "1", "--rendezvous", "10.0.0.7:29500")
    ]
    assert any("node 1 of 2" in text for text in attempt.messages)
    # It stopped at a checkpoint because another member was told to.
    assert attempt.finish.outcome == Outcome.PREEMPTED


@pytest.mark.anyio
async def test_a_member_that_waits_for_the_others_can_be_stopped(double, start_agent):
    await start_agent()
    attempt = double.offer([["log", "never"]], gang=FOLLOWER)
    await double.until(lambda: attempt.meetings)
    double.order_stop(attempt, "preempt")
    await double.until(lambda: attempt.finish)
    assert attempt.finish.outcome == Outcome.PREEMPTED
    assert "never" not in attempt.messages


@pytest.mark.anyio
async def test_a_script_of_a_gang_knows_the_others(double, start_agent):
    await start_agent()
    attempt = double.offer(command={"run": "env | grep ST_N; env | grep ST_R"}, gang=FOLLOWER)
    attempt.place = {"host": "fe80::7", "port": 29500}
    await double.until(lambda: attempt.finish)
    assert {"ST_NODES=2", "ST_NODE_RANK=1", "ST_RENDEZVOUS=[fe80::7]:29500"} <= set(
        attempt.messages
    )


def test_the_address_is_that_on_the_way_to_the_controller():
    assert own_address("http://127.0.0.1:8080") == "127.0.0.1"


def test_a_port_is_kept_from_others_until_the_server_that_it_is_for_listens():
    with kept_port() as port, socket.socket() as other, socket.socket() as server:
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", port))
        server.listen()
        with socket.create_connection(("127.0.0.1", port), timeout=120):
            pass
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", port))


def test_collectives_take_the_interface_of_that_address_unless_told_otherwise():
    [name] = [
        name
        for name, addresses in psutil.net_if_addrs().items()
        if any(each.address == "127.0.0.1" for each in addresses)
    ]
    url = "http://127.0.0.1:8080"
    found = network_environment(url, {"NCCL_SOCKET_IFNAME": "ib0"})
    assert found == {"GLOO_SOCKET_IFNAME": name, "NCCL_SOCKET_IFNAME": "ib0"}
    assert network_environment(url, {ADDRESS: "gpu-7.example"}) == {}


def test_an_address_of_version_6_stands_in_brackets():
    assert Rendezvous("::1", 5, 0, 2).address == "[::1]:5"
