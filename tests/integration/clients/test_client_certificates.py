"""Certificates shown to receivers that demand them, and private authorities."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import certifi
import pytest
import uvloop

from service.clients.address_guard import AddressGuard
from service.clients.tls import ClientContexts, make_context
from service.clients.transport import OutboundClient, open_client
from service.clients.webhook_sender import Receiver
from service.domain.delivery.outcome import Outcome, OutcomeClass
from service.domain.egress.certificates import ClientCertificate, Unusable
from service.domain.errors import SettingsError
from tests.authority import Authority
from tests.integration.clients.conftest import Exchange, Listen
from tests.integration.clients.forward_proxy import ForwardProxy
from tests.integration.clients.test_proxying import through


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "of servers")


@pytest.fixture
def clients(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "of clients")


def direct(authority: Authority) -> OutboundClient:
    return open_client(AddressGuard(["127.0.0.1"]), ca_file=authority.file)


async def push(client: OutboundClient, url: str, certificate: Any = None) -> Outcome:
    return await Receiver(client).post(url, {}, b"{}", timeout=10, certificate=certificate)


async def ok(exchange: Exchange) -> None:
    await exchange.answer()


def name_shown(exchange: Exchange) -> str | None:
    """Whose certificate the client of an exchange has shown."""
    found = exchange.writer.get_extra_info("peercert")
    return found["subject"][0][0][1] if found else None


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_receiver_that_demands_a_certificate_is_shown_it(
    listen: Listen, authority: Authority, clients: Authority, version: ssl.TLSVersion
):
    context = authority.server("127.0.0.1", demands=clients)
    context.minimum_version = context.maximum_version = version
    peer = await listen(ok, tls=context)
    certificate = clients.issue(subject="coursewire").client_certificate
    async with direct(authority) as client:
        for _ in range(3):
            outcome = await push(client, peer.url, certificate)
            assert outcome.delivered, outcome
    assert [name_shown(one) for one in peer.requests] == ["coursewire"] * 3
    assert peer.connections == 1


@contextmanager
def demanding(context: ssl.SSLContext) -> Iterator[int]:
    """The port of a server that sends alerts, which asyncio's do not. It reads on until the client
    hangs up, so that no reset overtakes the alert."""

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                with suppress(OSError):
                    # Without wrap_socket's own clean-up, which would close the connection.
                    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                    tls = context.wrap_bio(incoming, outgoing, server_side=True)
                    while data := connection.recv(65536):
                        incoming.write(data)
                        with suppress(ssl.SSLError):
                            tls.do_handshake()
                        connection.sendall(outgoing.read())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _on_uvloop(work: Any) -> Any:
    def run() -> Any:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(work())

    return asyncio.to_thread(run)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_the_lack_of_a_certificate_and_a_wrong_one_are_told(
    authority: Authority, clients: Authority, tmp_path: Path, version: ssl.TLSVersion, loop: str
):
    context = authority.server("127.0.0.1", demands=clients)
    context.minimum_version = context.maximum_version = version
    expired = clients.issue(valid=(dt.timedelta(hours=-2), dt.timedelta(hours=-1)))
    wrong = Authority(tmp_path, "unknown").issue()
    cases = {
        "none": None,
        "unknown": wrong.client_certificate,
        "expired": expired.client_certificate,
    }

    async def work() -> dict[str, Outcome]:
        async with direct(authority) as client:
            url = f"https://127.0.0.1:{port}/"
            return {name: await push(client, url, one) for name, one in cases.items()}

    with demanding(context) as port:
        outcomes = await (work() if loop == "asyncio" else _on_uvloop(work))
    for name, outcome in outcomes.items():
        assert outcome.kind is OutcomeClass.TLS, (name, outcome)
        assert "client certificate" in (outcome.error or ""), (name, outcome)
    said = {name: outcome.error or "" for name, outcome in outcomes.items()}
    assert "require" in said["none"]
    assert "has expired" in said["expired"]
    assert "has expired" not in said["unknown"] + said["none"]


async def test_no_connection_is_shared_between_different_certificates_or_none(
    listen: Listen, authority: Authority, clients: Authority
):
    context = authority.server("127.0.0.1", demands=clients)
    context.verify_mode = ssl.CERT_OPTIONAL
    peer = await listen(ok, tls=context)
    certificates = {
        name: None if name is None else clients.issue(subject=name).client_certificate
        for name in (None, "a", "b")
    }
    async with direct(authority) as client:
        for _ in range(3):
            for certificate in certificates.values():
                assert (await push(client, peer.url, certificate)).delivered
        await asyncio.gather(
            *(push(client, peer.url, one) for one in certificates.values() for _ in range(5))
        )
        # As the owner of another subscription that holds the same certificate.
        same = copied(certificates["a"])
        connections = peer.connections
        assert (await push(client, peer.url, same)).delivered
        assert peer.connections == connections
    assert [name_shown(one) for one in peer.requests[:9]] == [None, "a", "b"] * 3
    assert sorted(str(name_shown(one)) for one in peer.requests[9:24]) == sorted(
        ["None", "a", "b"] * 5
    )


def copied(one: ClientCertificate | None) -> ClientCertificate:
    assert one is not None
    return ClientCertificate(
        certificate=str(one.certificate), private_key=one.private_key, not_after=one.not_after
    )


async def test_through_a_proxy_the_receiver_is_shown_it_and_the_proxy_is_not(
    listen: Listen, authority: Authority, clients: Authority
):
    asking = authority.server("127.0.0.1", demands=clients)
    asking.verify_mode = ssl.CERT_OPTIONAL
    proxy = ForwardProxy()
    proxied: list[Any] = []
    tunnel = proxy.tunnel

    async def noting(
        target: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        proxied.append(writer.get_extra_info("peercert"))
        await tunnel(target, reader, writer)

    proxy.tunnel = noting  # type: ignore[method-assign]  # a spy
    await proxy.listen(asking)
    peer = await listen(ok, tls=authority.server("127.0.0.1", demands=clients))
    async with through(proxy, ca_file=authority.file) as client:
        outcome = await push(
            client, peer.url, clients.issue(subject="coursewire").client_certificate
        )
        refused = await push(client, peer.url)
    await proxy.stop()
    assert outcome.delivered, outcome
    assert refused.kind in (OutcomeClass.TLS, OutcomeClass.RESET)
    assert [name_shown(one) for one in peer.requests] == ["coursewire"]
    assert len(proxied) == 2
    assert not any(proxied)  # neither has shown one


@pytest.mark.parametrize("broken", ["certificate", "private_key"])
async def test_one_that_cannot_be_used_fails_the_attempt(
    listen: Listen, authority: Authority, clients: Authority, broken: str
):
    peer = await listen(ok, tls=authority.server("127.0.0.1", demands=clients))
    sound, other = clients.issue().client_certificate, clients.issue()
    parts = {"certificate": sound.certificate, "private_key": sound.private_key}
    for wrong in ("", "no PEM", getattr(other.client_certificate, broken)):
        bad = ClientCertificate(**(parts | {broken: wrong}), not_after=sound.not_after)
        async with direct(authority) as client:
            outcome = await push(client, peer.url, bad)
        assert outcome.kind is OutcomeClass.TLS
        assert "the client certificate cannot be used" in (outcome.error or "")
    assert peer.connections == 0


def test_only_so_many_contexts_are_kept(
    clients: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.clients.tls.MAX_CONTEXTS", 2)
    contexts = ClientContexts()
    first, *others = [clients.issue().client_certificate for _ in range(3)]
    made = contexts.get(first)
    assert contexts.get(first) is made
    for one in others:
        contexts.get(one)
    assert contexts.get(first) is not made
    with pytest.raises(Unusable):
        contexts.get(ClientCertificate(certificate="", private_key="", not_after=0))


def test_what_is_shown_of_one_is_not_its_key(clients: Authority) -> None:
    certificate = clients.issue().client_certificate
    assert "BEGIN" not in f"{certificate!r} {certificate.__rich_repr__()}"


# --- private authorities -------------------------------------------------------------------------


async def test_private_authorities_are_trusted_beside_the_public_ones(
    listen: Listen, authority: Authority, monkeypatch: pytest.MonkeyPatch
):
    peer = await listen(ok, tls=authority.server("127.0.0.1"))
    async with open_client(AddressGuard(["127.0.0.1"])) as client:
        outcome = await push(client, peer.url)
        assert outcome.kind is OutcomeClass.TLS
        assert "COURSEWIRE_CA_FILE" in (outcome.error or "")
    async with direct(authority) as client:
        assert (await push(client, peer.url)).delivered
        assert (await client.get(peer.url)).status_code == 200
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())
    public = make_context().cert_store_stats()["x509_ca"]
    assert public > 50
    assert make_context(authority.file).cert_store_stats()["x509_ca"] == public + 1


async def test_an_authority_may_be_an_intermediate_on_every_python(
    listen: Listen, authority: Authority, tmp_path: Path
):
    """What stands in the file is trusted as it is: here the server's own certificate."""
    issued = authority.issue("127.0.0.1")
    (tmp_path / "server.pem").write_text(issued.pem + issued.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    peer = await listen(ok, tls=context)
    (tmp_path / "trusted.pem").write_text(issued.pem)
    async with open_client(AddressGuard(["127.0.0.1"]), ca_file=tmp_path / "trusted.pem") as client:
        assert (await push(client, peer.url)).delivered


def test_a_file_that_went_bad_after_the_start_is_told(tmp_path: Path) -> None:
    for content in (None, b"", b"no PEM"):
        path = tmp_path / "gone.pem"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SettingsError, match="COURSEWIRE_CA_FILE"):
            make_context(path)


async def test_what_only_python_3_13_refuses_is_documented_by_its_error(
    listen: Listen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Its strictness is asked of whatever Python this is."""
    documented = (Path(__file__).parents[3] / "docs/operations/proxies.md").read_text()
    plain = Authority(tmp_path, "plain", plain=True)
    peer = await listen(ok, tls=plain.server("127.0.0.1"))
    strict = make_context(plain.file)
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    async with open_client(AddressGuard(["127.0.0.1"]), tls=strict) as client:
        refused = (await push(client, peer.url)).error or ""
    reason = refused.removeprefix("no secure connection: ").partition(";")[0]
    assert reason
    assert reason.lower() in documented.lower()
    lenient = make_context(plain.file)
    lenient.verify_flags &= ~ssl.VERIFY_X509_STRICT
    async with open_client(AddressGuard(["127.0.0.1"]), tls=lenient) as client:
        assert (await push(client, peer.url)).delivered
