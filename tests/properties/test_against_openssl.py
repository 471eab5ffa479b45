"""`openssl verify -x509_strict` as judge, of certificates and of revocation lists, thousands of them changed by one field.

We never accept what it refuses, and what it calls revoked we call so. We accept all that the authority can issue, and what
was changed within what it can issue, 95 of a hundred at least. A part of each runs in the default suite, all in the slow one.
"""

import random
import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from overlay.core import certificate_profile as profile
from overlay.core.certificate_profile import LeafFacts, Life, seal
from overlay.core.certificates import TOLERANCE, VerifiedCertificate, verify_later_root, verify_leaf
from overlay.core.keys import Ed25519Signer
from overlay.core.revocation_profile import (
    ListFacts,
    Mark,
    RevocationReason,
    Revocations,
    revocation_list_to_be_signed,
    serial_bytes,
)
from overlay.core.revocations import RevocationList, verify_revocation_list
from overlay.errors import Refused
from overlay.registry import Reason
from tests.properties.der_mutations import mutate, signed
from tests.unit.core.authority_kit import DAY, HOUR, NOW, P256Signer, make_member, make_mesh
from tests.unit.core.revocation_kit import chain_to, credentials_under, make_list, revoked

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command is not here"),
    pytest.mark.filterwarnings("ignore:Parsed a serial"),
    pytest.mark.filterwarnings("ignore:Attribute's length"),
]

MESH = make_mesh()
FACTS = LeafFacts(roles=("operator",), person="Ann", level=2, ak_name=bytes(34), ak_qualified_name=bytes(34))
ALICE = make_member(MESH, "alice")
BOB = make_member(MESH, "bob", tpm_like=True, facts=FACTS)
KEY = MESH.authority.key
AT_ONCE = 500  # certificates that one process judges
SECOND = timedelta(seconds=1)
REVOKED = "certificate revoked"
OK = "OK"

few_and_many = pytest.mark.parametrize("share", ["few", pytest.param("many", marks=pytest.mark.slow)])


# --- the judge ------------------------------------------------------------------------------------------------------


class OpenSSL:
    """`openssl verify` with files in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        pem = x509.load_der_x509_certificate(MESH.root.der).public_bytes(Encoding.PEM)
        (folder / "root.pem").write_bytes(pem)

    def verdicts(
        self, leaves: Sequence[bytes], *, at: datetime = NOW, chain: Iterable[bytes] = (), crls: bytes | None = None
    ) -> list[str]:
        """OK, or why not, for each of them."""
        command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", "root.pem"]
        command += ["-attime", str(int(at.timestamp()))]
        if chain:
            pems = [x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain]
            (self.folder / "chain.pem").write_bytes(b"".join(pems))
            command += ["-untrusted", "chain.pem"]
        if crls is not None:
            (self.folder / "list.der").write_bytes(crls)
            command += ["-crl_check", "-CRLfile", "list.der"]
        found: list[str] = []
        for start in range(0, len(leaves), AT_ONCE):
            names = [f"leaf{number}.der" for number in range(len(leaves[start : start + AT_ONCE]))]
            for name, leaf in zip(names, leaves[start:], strict=False):
                (self.folder / name).write_bytes(leaf)
            done = subprocess.run([*command, *names], cwd=self.folder, capture_output=True, check=False)
            said, complained = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
            good = set(re.findall(r"^(leaf\d+\.der): OK$", said, re.MULTILINE))
            why = {name: text for text, name in re.findall(r"lookup: ?(.*)\nerror (leaf\d+\.der):", complained)}
            found += [OK if name in good else why.get(name, "not read") for name in names]
        return found


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    return OpenSSL(tmp_path)


def our_leaf(leaf: bytes, chain: Sequence[bytes] = (), at: datetime = NOW) -> VerifiedCertificate | None:
    try:
        return verify_leaf(leaf, chain, MESH.root, at)
    except Refused:
        return None


def our_list(der: bytes) -> RevocationList | None:
    try:
        return verify_revocation_list(der, [MESH.root])
    except Refused as error:
        assert error.reason is Reason.BAD_REVOCATION_LIST
        return None


def within(at: datetime, begin: datetime, end: datetime) -> datetime:
    """The nearest time between the two: we tolerate five minutes of wrong clock, openssl none, and not the last second."""
    nearest = nearest_to(at, begin, end)
    assert abs(nearest - at) <= TOLERANCE + SECOND
    return nearest


def nearest_to(at: datetime, begin: datetime, end: datetime) -> datetime:
    return min(max(at, begin), end - SECOND)


# --- certificates ---------------------------------------------------------------------------------------------------

KINDS = {"Ed25519": ALICE.credentials.leaf, "P-256 with all facts": BOB.credentials.leaf}
LEAVES = {"few": 1500, "many": 10_000}


def mutated(der: bytes, content: bytes, source: random.Random) -> bytes:
    """One in five as a thief could change it; the others as a root that errs could sign it."""
    if source.random() < 0.2:
        return mutate(der, source)
    changed = mutate(content, source)
    return signed(changed, KEY.sign(changed))


@few_and_many
@pytest.mark.parametrize("kind", KINDS)
def test_we_never_accept_a_changed_certificate_that_openssl_refuses(openssl: OpenSSL, kind: str, share: str) -> None:
    source = random.Random(f"certificates {kind} {share}")
    content = x509.load_der_x509_certificate(KINDS[kind]).tbs_certificate_bytes
    leaves = [mutated(KINDS[kind], content, source) for _ in range(LEAVES[share])]
    verdicts = openssl.verdicts(leaves)
    assert OK in verdicts, "openssl accepts none of them, so nothing was compared"
    for leaf, verdict in zip(leaves, verdicts, strict=True):
        found = our_leaf(leaf)
        if found is not None and verdict != OK:
            at = within(NOW, found.not_before, found.not_after)
            assert openssl.verdicts([leaf], at=at) == [OK], leaf.hex()


@few_and_many
def test_we_and_openssl_accept_every_certificate_changed_within_what_can_be_issued(openssl: OpenSSL, share: str) -> None:
    source = random.Random(f"issued {share}")
    leaves = [issued(source, number) for number in range(LEAVES[share] // 4)]
    assert set(openssl.verdicts(leaves)) == {OK}
    accepted = [our_leaf(leaf) is not None for leaf in leaves]
    assert sum(accepted) >= 0.95 * len(leaves)
    assert all(accepted)


def issued(source: random.Random, number: int) -> bytes:
    """Another name, key, life, role, level or person each time."""
    tpm = source.choice([None, bytes([source.randrange(256)]) * 34])
    facts = LeafFacts(
        roles=tuple(sorted(source.sample(["operator", "signer", "worker", "x"], source.randint(0, 4)))),
        person=source.choice([None, "", "Ånn", "x" * 128]), level=source.randint(0, 5), ak_name=tpm, ak_qualified_name=tpm,
        ek_tag=source.choice([None, source.randbytes(32)]), policy_version=source.randrange(2**64),
    )  # fmt: skip
    begin = NOW - timedelta(seconds=source.randint(0, 3 * 86_400))
    life = Life.between(begin, max(NOW, begin) + timedelta(seconds=source.randint(1, 3 * 86_400)))
    secret = source.randbytes(32)
    signer = P256Signer(secret) if number % 2 else Ed25519Signer(secret)
    name = source.choice(["a", "a" * 63, f"node-{number}", "xn--0"])
    content = profile.leaf_to_be_signed(MESH.root.issuer, signer.spki, name, facts, life)
    return seal(content, profile.ED25519_OID, KEY.sign(content))


@few_and_many
def test_we_never_accept_a_changed_later_root_that_openssl_refuses(openssl: OpenSSL, share: str) -> None:
    source = random.Random(f"roots {share}")
    (cross,) = chain_to(MESH, 1)
    leaf = credentials_under(MESH, ALICE, 1).leaf
    assert openssl.verdicts([leaf], chain=[cross]) == [OK]
    content = x509.load_der_x509_certificate(cross).tbs_certificate_bytes
    for _ in range(LEAVES[share] // 4):
        changed = mutated(cross, content, source)
        if our_leaf(leaf, [changed]) is not None:  # seldom, so few processes
            life = verify_later_root(changed, MESH.root).life
            at = within(NOW, life.not_before, life.not_after)
            assert openssl.verdicts([leaf], chain=[changed], at=at) == [OK], changed.hex()


# --- revocation lists -----------------------------------------------------------------------------------------------

LISTS = {"few": 250, "many": 3000}
TWO = [ALICE.credentials.leaf, BOB.credentials.leaf]
SERIALS = [serial_bytes(member.peer.certificate.serial) for member in (ALICE, BOB)]
SEED_LIST = make_list(MESH, revoked(BOB))


def compare(openssl: OpenSSL, der: bytes) -> tuple[bool, bool]:
    """Whether we and whether openssl accept a list, after a look at what each of the two makes of it."""
    verdicts = openssl.verdicts(TWO, crls=der)
    found = our_list(der)
    if found is None:
        return False, set(verdicts) <= {OK, REVOKED}
    at = nearest_to(NOW, found.facts.this_update, found.facts.next_update)
    if at != NOW:  # we honour a list at any time, and openssl at its own
        leaves = [leaf for leaf in TWO if our_leaf(leaf, at=at) is not None]
        if len(leaves) < len(TWO):
            return True, True
        verdicts = openssl.verdicts(TWO, crls=der, at=at)
    assert found.is_current(at)
    ours = [REVOKED if serial in found.revocations.serials else OK for serial in SERIALS]
    assert verdicts == ours, der.hex()
    return True, True


@few_and_many
def test_we_never_accept_a_changed_list_that_openssl_refuses_or_reads_otherwise(openssl: OpenSSL, share: str) -> None:
    source = random.Random(f"lists {share}")
    content = x509.load_der_x509_crl(SEED_LIST).tbs_certlist_bytes
    theirs = 0
    for _ in range(LISTS[share]):
        theirs += compare(openssl, mutated(SEED_LIST, content, source))[1]
    assert theirs, "openssl accepts none of them, so nothing was compared"


@few_and_many
def test_we_and_openssl_accept_every_list_that_was_changed_within_what_can_be_issued(openssl: OpenSSL, share: str) -> None:
    source = random.Random(f"issued lists {share}")
    both = [compare(openssl, issued_list(source)) for _ in range(LISTS[share] // 4)]
    assert sum(ours for ours, _ in both) >= 0.95 * len(both)
    assert all(ours and theirs for ours, theirs in both)


def issued_list(source: random.Random) -> bytes:
    """Another number, other dates and other revocations each time; the list is current and both leaves are in force."""
    revocations = Revocations(
        nodes={source.randbytes(32): mark_of(source) for _ in range(source.randint(0, 3))},
        keys={source.randbytes(32): mark_of(source) for _ in range(source.randint(0, 3))},
        machines={source.randbytes(32): mark_of(source) for _ in range(source.randint(0, 3))},
        serials={serial: mark_of(source) for serial in source.sample([*SERIALS, bytes([0x41]) * 20], source.randint(0, 3))},
    )
    this_update = NOW - timedelta(seconds=source.randint(0, 86_400))
    next_update = NOW + timedelta(seconds=source.choice([1, 86_400, 10**9]))
    facts = ListFacts(
        number=source.choice([1, 127, 128, 2**31, 2**63 - 1]), this_update=this_update, next_update=next_update,
        revocations=revocations,
    )  # fmt: skip
    content = revocation_list_to_be_signed(MESH.root.issuer, facts)
    return seal(content, profile.ED25519_OID, KEY.sign(content))


def mark_of(source: random.Random) -> Mark:
    order = NOW - DAY - timedelta(seconds=source.randint(0, 10**8))
    return Mark(order - timedelta(seconds=source.choice([0, 1, 10**8])), order, source.choice(list(RevocationReason)))


def test_openssl_calls_revoked_what_a_list_of_ours_revokes_by_serial(openssl: OpenSSL) -> None:
    assert openssl.verdicts(TWO, crls=SEED_LIST) == [OK, REVOKED]
    assert openssl.verdicts(TWO, crls=make_list(MESH, Revocations())) == [OK, OK]
    assert openssl.verdicts(TWO, crls=make_list(MESH, revoked(BOB).merged(revoked(ALICE)))) == [REVOKED, REVOKED]


def test_a_list_of_a_later_root_counts_for_its_leaves(openssl: OpenSSL) -> None:
    leaf, chain = credentials_under(MESH, ALICE, 1).leaf, chain_to(MESH, 1)
    found = our_leaf(leaf, chain)
    assert found is not None
    mark = Mark(NOW - HOUR, NOW - HOUR, RevocationReason.KEY_COMPROMISE)
    what = Revocations(serials={serial_bytes(found.serial): mark})
    assert openssl.verdicts([leaf], chain=chain, crls=make_list(MESH, what, generation=1)) == [REVOKED]
    assert openssl.verdicts([leaf], chain=chain, crls=make_list(MESH, Revocations(), generation=1)) == [OK]


def test_openssl_wants_a_newer_list_when_ours_says_so_and_we_never_forget_one(openssl: OpenSSL) -> None:
    old = make_list(MESH, revoked(BOB), this_update=NOW, next_update=NOW + HOUR)
    found = our_list(old)
    assert found is not None
    late = NOW + 2 * HOUR
    assert not found.is_current(late)
    assert openssl.verdicts(TWO, crls=old, at=late)[0] not in (OK, REVOKED)
    trust = MESH.trust.with_list(old)
    with pytest.raises(Refused) as caught:
        trust.judge(BOB.peer, late)
    assert caught.value.reason is Reason.REVOKED
