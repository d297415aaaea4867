from __future__ import annotations

import socket

import pytest

from llama_async_proxy.api.http.server import listen
from llama_async_proxy.errors import Unavailable
from support.service import free_port


def close(listeners: list[socket.socket]) -> None:
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_listens_on_both_families_where_there_are_two(host: str) -> None:
    port = free_port()
    listeners = listen(host, port)
    try:
        addresses = {listener.getsockname()[0] for listener in listeners}
        assert "127.0.0.1" in addresses
        assert addresses <= {"127.0.0.1", "::1"}
        for address in addresses:
            socket.create_connection((address, port), timeout=30).close()
    finally:
        close(listeners)


def test_another_address_has_no_twin() -> None:
    listeners = listen("127.0.0.2", free_port())
    assert [listener.getsockname()[0] for listener in listeners] == ["127.0.0.2"]
    close(listeners)


def test_a_port_in_use_is_named_with_what_to_do() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(Unavailable, match=rf"port {port} on 127\.0\.0\.1 is in use .* --port"):
            listen("127.0.0.1", port)


def test_a_twin_in_use_leaves_nothing_listening() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("this machine has no IPv6")
    with socket.socket(socket.AF_INET6) as holder:
        holder.bind(("::1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(Unavailable, match="::1"):
            listen("127.0.0.1", port)
        with socket.socket() as again:
            again.bind(("127.0.0.1", port))
            again.listen()


def test_an_address_this_machine_has_not_is_named() -> None:
    with pytest.raises(Unavailable, match=r"cannot listen on 203\.0\.113\.1"):
        listen("203.0.113.1", free_port())
