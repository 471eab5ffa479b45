"""What dialling is compared with: mutual TLS 1.3 with Ed25519 certificates, over trio."""

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trio
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

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
    at = datetime.now(UTC)
    builder = x509.CertificateBuilder(
        subject_name=_name(name), issuer_name=_name(issuer), public_key=key.public_key(),
        serial_number=x509.random_serial_number(), not_valid_before=at - timedelta(hours=1), not_valid_after=at + timedelta(days=1),
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


async def serve(stream: trio.SocketStream, context: ssl.SSLContext) -> None:
    """One connection."""
    secured = trio.SSLStream(stream, context, server_side=True)
    async with secured:
        await secured.do_handshake()
        await secured.send_all(READY)
        await secured.receive_some()


async def connect(port: int, context: ssl.SSLContext) -> None:
    """Dial, and return when each has verified the other."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    secured = trio.SSLStream(stream, context, server_hostname="server")
    await secured.do_handshake()
    assert await secured.receive_some(1) == READY
    await trio.aclose_forcefully(secured)
