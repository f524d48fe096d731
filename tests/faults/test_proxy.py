"""The proxy's ways to be broken, against a server that echoes."""

import socket
import socketserver
import threading

import pytest

from faults.proxy import Proxy


class _Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while piece := self.request.recv(1024):
            self.request.sendall(piece)


@pytest.fixture
def proxy():
    socketserver.ThreadingTCPServer.daemon_threads = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Echo) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        made = Proxy(server.server_address[1])
        yield made
        made.close()
        server.shutdown()


@pytest.fixture
def connect(proxy):
    opened = []

    def make():
        made = socket.create_connection(("127.0.0.1", proxy.port), timeout=120)
        opened.append(made)
        return made

    yield make
    for each in opened:
        each.close()


def _says(connection, text=b"GET /x HTTP/1.1\r\n"):
    connection.sendall(text)
    return connection.recv(1024)


def test_what_is_whole_passes(connect):
    assert _says(connect()) == b"GET /x HTTP/1.1\r\n"


def test_cut_resets_what_is_open_and_what_comes(proxy, connect):
    before = connect()
    _says(before)
    proxy.turn("cut")
    with pytest.raises(ConnectionResetError):
        _says(before)
    with pytest.raises(ConnectionResetError):
        _says(connect())
    proxy.turn("open")
    assert _says(connect())


def test_stall_holds_everything_back_and_loses_nothing(proxy, connect):
    before = connect()
    _says(before)
    proxy.turn("stall")
    before.settimeout(0.1)
    with pytest.raises(TimeoutError):
        _says(before, b"held")
    proxy.turn("open")
    before.settimeout(120)
    assert before.recv(1024) == b"held"


def test_deaf_swallows_answers_and_such_a_connection_stays_mute(proxy, connect):
    before = connect()
    _says(before)
    proxy.turn("deaf")
    before.settimeout(0.1)
    with pytest.raises(TimeoutError):
        _says(before)
    proxy.turn("open")
    with pytest.raises(TimeoutError):
        _says(before)
    assert _says(connect())


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_trap_springs_once_at_its_request(proxy, connect, side):
    sprung = []
    proxy.trap("/finish$", side, lambda: sprung.append(side))
    connection = connect()
    _says(connection)
    assert sprung == []
    _says(connection, b"POST /v1/finish HTTP/1.1\r\n")
    _says(connection, b"POST /v1/finish HTTP/1.1\r\n")
    assert sprung == [side]
