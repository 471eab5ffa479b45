"""Requests to the mesh key: their one encoding, and what becomes of a request that was signed.

    request = {0:1, 1:kind, 2:fields}     fields = {0:1, 1:a, 2:b, ...}, as each class says
"""

from collections.abc import Callable, Mapping
from typing import Final

from overlay.core import certificate_profile as profile
from overlay.core.authority.record_requests import (
    AuthorityObjectRequest,
    AuthorityTest,
    Detached,
    PolicyRequest,
    Roster,
)
from overlay.core.authority.request_kinds import REQUEST_MAX
from overlay.core.authority.x509_requests import CrossCertificate, IssueLeaf, RevocationList
from overlay.core.certificate_profile import ED25519_OID
from overlay.core.wire import Bytes, UInt, make_map, malformed, open_map, sign1
from overlay.errors import Refused
from overlay.registry import Reason

Request = IssueLeaf | RevocationList | AuthorityObjectRequest | CrossCertificate | PolicyRequest | Roster | AuthorityTest

_READERS: Final[Mapping[int, Callable[[bytes], Request]]] = {
    int(one.kind): one.read
    for one in (IssueLeaf, RevocationList, AuthorityObjectRequest, CrossCertificate, PolicyRequest, Roster, AuthorityTest)
}


def pack_request(request: Request) -> bytes:
    """The one encoding of a request."""
    return make_map(int(request.kind), request.fields())


def unpack_request(data: bytes) -> Request:
    """Raises Refused: MALFORMED, TOO_LARGE, UNSUPPORTED, BAD_REVOCATION_LIST."""
    number, fields = open_map(data, UInt(255), Bytes(1, REQUEST_MAX), limit=REQUEST_MAX)
    if number not in _READERS:
        raise Refused(Reason.UNSUPPORTED, f"kind {number} of a request")
    request = _READERS[number](fields)
    if pack_request(request) != data:
        malformed("not the one encoding of a request")
    return request


def seal(request: Request, message: bytes, signature: bytes) -> bytes:
    """What others verify: DER of a certificate or list, COSE of a policy; of all else the bare signature."""
    match request:
        case IssueLeaf() | RevocationList() | CrossCertificate():
            return profile.seal(message, ED25519_OID, signature)
        case PolicyRequest(payload=payload):
            return sign1(payload, signer=Detached(signature), aad=b"", kid=None)
        case _:
            return signature
