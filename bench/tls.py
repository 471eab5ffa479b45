"""What dialling is compared with: mutual TLS 1.3 with Ed25519 certificates, over trio."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from overlay.net.system import wall_clock

READY = b"!"  # from the server once it has verified the client: in TLS 1.3 the client's handshake ends before that


def make_certificates(folder: Path) -> None:
    """ca.pem, client.pem and server.pem; the latter two with their keys."""
    folder.mkdir()
    ca_key = Ed25519PrivateKey.generate()
    ca = _certificate("ca", ca_key, "ca", ca_key, is_ca=True)
    (folder / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    for name in ("client", "server"):
        key = Ed25519PrivateKey.generate()
        leaf = _certificate(name, key, "ca", ca_key, is_ca=False)
        secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (folder / f"{name}.pem").write_bytes(secret + leaf.public_bytes(Encoding.PEM))


def _certificate(
    name: str, key: Ed25519PrivateKey, issuer: str, issuer_key: Ed25519PrivateKey, *, is_ca: bool
) -> x509.Certificate:
    at = wall_clock()
    builder = x509.CertificateBuilder(
        subject_name=_name(name), issuer_name=_name(issuer), public_key=key.public_key(),
        serial_number=x509.random_serial_number(), not_valid_before=at - timedelta(hours=1),
        not_valid_after=at + timedelta(days=1),
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
    return builder.sign(issuer_key, None)


def _name(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def context(folder: Path, name: str) -> ssl.SSLContext:
    """For one end; both demand a certificate of the other."""
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if name == "server" else ssl.PROTOCOL_TLS_CLIENT)
    found.minimum_version = ssl.TLSVersion.TLSv1_3
    found.verify_mode = ssl.CERT_REQUIRED
    found.load_verify_locations(folder / "ca.pem")
    found.load_cert_chain(folder / f"{name}.pem")
    return found


Handler = Callable[[trio.SSLStream[trio.SocketStream]], Awaitable[None]]


async def serve(stream: trio.SocketStream, context: ssl.SSLContext, handler: Handler) -> None:
    """One connection: READY once the client has been verified, then the handler."""
    secured = trio.SSLStream(stream, context, server_side=True)
    await secured.do_handshake()
    await secured.send_all(READY)
    with suppress(trio.BrokenResourceError):  # the client goes without a word
        await handler(secured)
    await trio.aclose_forcefully(secured)


@asynccontextmanager
async def connected(port: int, context: ssl.SSLContext) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    """Dial, and go on when each has verified the other."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    secured = trio.SSLStream(stream, context, server_hostname="server")
    await secured.do_handshake()
    assert await secured.receive_some(1) == READY
    cipher = secured.cipher()
    assert cipher is not None
    assert cipher[0] == "TLS_AES_256_GCM_SHA384", cipher
    yield secured
    await trio.aclose_forcefully(secured)
