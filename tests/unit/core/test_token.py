"""The token of an invite: what it holds, how it is spoilt on its way, and the proof that somebody holds it."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from overlay.core.authority.orders import parse_order
from overlay.core.join_key import JoinKey, verify_join_proof
from overlay.core.keys import NodeId, base32
from overlay.core.mesh.found import Address
from overlay.core.token import TEXT_MAX, Token, parse_token
from overlay.core.wire import encode, sha256
from overlay.errors import Refused
from overlay.registry import Label, Reason
from tests.unit.core.authority.order_kit import (
    ALICE,
    JOIN_KEY,
    MESH,
    SEED,
    make_invite,
    make_order,
    quarantine,
    sign,
)
from tests.unit.core.authority_kit import HOUR, NOW, make_mesh, seed

LAN: Address = ("192.168.1.10", 7411)
SIX: Address = ("fd00::10", 7411)
NAMED: Address = ("node.example.org", 7411)
SCOPED: Address = ("fe80::1%eth0", 7411)


def make_token(*addresses: Address, name: str | None = None) -> Token:
    return Token.of(
        sign(make_order(make_invite(name=name), number=12)), mesh_id=MESH.mesh_id, root_hash=sha256(MESH.root.spki),
        gate=(1, seed("gate")), seed=SEED, addresses=addresses,
    )  # fmt: skip


TOKEN = make_token(LAN)
TEXT = TOKEN.to_text()


def refusal(text: str) -> Refused:
    with pytest.raises(Refused) as caught:
        parse_token(text)
    return caught.value


def retold(*, label: bytes = Label.TOKEN, version: int = 1, **fields: Any) -> str:
    """A token written out field by field; those in `fields` are replaced before the checksum is made."""
    order = TOKEN.order
    values: dict[str, Any] = {
        "mesh_id": MESH.mesh_id,
        "root_hash": TOKEN.root_hash,
        "gate_number": 1,
        "gate_key": seed("gate"),
        "seed": SEED,
        "invite": [ALICE.kid, ALICE.node_id, 12, 1772366400, 3600, ["worker"], "", 1, order.signed.signature],
        "addresses": [bytes([192, 168, 1, 10]) + (7411).to_bytes(2, "big")],
    }
    assert fields.keys() <= values.keys()
    values |= fields
    data = encode({0: version} | {index: value for index, value in enumerate(values.values(), 1) if value is not None})
    framed = len(data).to_bytes(2, "big") + data
    return base32(framed + sha256(label, framed)[:4])


def test_the_token_written_out_field_by_field_is_the_same() -> None:
    assert retold() == TEXT


@pytest.mark.parametrize("addresses", [(), (LAN,), (SIX, NAMED, SCOPED), (LAN,) * 8])
@pytest.mark.parametrize("name", [None, "worker-7"])
def test_a_token_comes_back_as_it_was(addresses: tuple[Address, ...], name: str | None) -> None:
    token = make_token(*addresses, name=name)
    found = parse_token(token.to_text())
    assert found == token
    assert found.says.name == name
    assert parse_order(found.invite).with_credentials(ALICE.credentials).verify(MESH.trust).order.number == 12


def test_a_typical_token_has_some_five_hundred_letters() -> None:
    assert len(TEXT) == 504
    assert len(TOKEN.invite) > 230  # it stands in there with less


def test_case_spaces_line_breaks_and_hyphens_do_not_count() -> None:
    lines = "\n\t ".join(TEXT[at : at + 64] for at in range(0, len(TEXT), 64))
    groups = "-".join(TEXT[at : at + 5] for at in range(0, len(TEXT), 5))
    for spoilt in (TEXT.upper(), f"  {TEXT}\r\n", lines, groups, TEXT.title()):
        assert parse_token(spoilt) == TOKEN


def test_a_token_that_is_cut_short_says_so() -> None:
    for length in range(1, len(TEXT)):
        error = refusal(TEXT[:length])
        assert error.reason is Reason.BAD_TOKEN
        assert "cut short" in error.detail
        assert "copy the whole" in error.hint


def test_a_token_with_something_behind_it_is_refused() -> None:
    error = refusal(TEXT + "a")
    assert (error.reason, error.detail) == (Reason.BAD_TOKEN, "it has 505 letters where 504 belong to it")


def test_any_letter_that_was_changed_is_noticed() -> None:
    for place, letter in enumerate(TEXT):
        error = refusal(TEXT[:place] + ("b" if letter == "a" else "a") + TEXT[place + 1 :])
        assert error.reason is Reason.BAD_TOKEN
        assert place < 4 or "checksum" in error.detail
        assert "copy" in error.hint


def test_bits_that_the_last_letter_has_left_are_zero() -> None:
    text = make_token(SIX).to_text()  # its bytes are no multiple of five
    assert len(text) * 5 % 8
    alphabet = "abcdefghijklmnopqrstuvwxyz234567"
    error = refusal(text[:-1] + alphabet[alphabet.index(text[-1]) | 1])
    assert "checksum" in error.detail


def test_two_letters_that_changed_places_are_noticed() -> None:
    for place in range(4, len(TEXT) - 1):
        one, two = TEXT[place], TEXT[place + 1]
        if one != two:
            assert "checksum" in refusal(TEXT[:place] + two + one + TEXT[place + 2 :]).detail


def test_what_is_no_token_at_all_is_refused() -> None:
    assert refusal("").detail == refusal(" \n-").detail == "it is empty"
    for text in ("0" + TEXT[1:], TEXT[:-1] + "8", "überlänge", TEXT.replace("k", "\u212b")):
        error = refusal(text)
        assert "characters that no token has" in error.detail
        assert "2 to 7" in error.hint
    assert refusal("a" * (TEXT_MAX + 1)).detail == "it is too long"


def test_a_token_of_another_version_says_so() -> None:
    error = refusal(retold(version=2))
    assert error.reason is Reason.UNSUPPORTED
    assert "same version" in error.hint


def test_the_checksum_speaks_before_anything_else() -> None:
    assert "checksum" in refusal(retold(version=2, label=b"other")).detail


@pytest.mark.parametrize(
    "field",
    [
        {"root_hash": None},
        {"root_hash": bytes(31)},
        {"seed": bytes(31)},
        {"gate_key": None},
        {"gate_number": 2**32},
        {"addresses": [bytes(5)]},
        {"addresses": [bytes(6)]},
        {"addresses": ["192.168.1.10:7411"]},
        {"addresses": ["host"]},
        {"addresses": [":1"]},
        {"addresses": ["host:"]},
        {"addresses": ["host:0"]},
        {"addresses": ["host:65536"]},
        {"addresses": ["host:07411"]},
        {"addresses": ["h" * 254 + ":1"]},
        {"addresses": [1]},
        {"addresses": ["host:1"] * 9},
        {"invite": [ALICE.kid, ALICE.node_id, 0, 1772366400, 3600, [], "", 1, bytes(64)]},
        {"invite": [ALICE.kid, ALICE.node_id, 1, 1772366400, 31 * 86_400, [], "", 1, bytes(64)]},
        {"invite": [ALICE.kid, ALICE.node_id, 1, 2**34, 2**32 - 1, [], "", 1, bytes(64)]},
        {"invite": [ALICE.kid, ALICE.node_id, 1, 1772366400, 3600, ["b", "a"], "", 1, bytes(64)]},
        {"invite": [ALICE.kid, ALICE.node_id, 1, 1772366400, 3600, [], "No", 1, bytes(64)]},
        {"invite": [ALICE.kid, ALICE.node_id, 1, 1772366400, 3600, [], "", 0, bytes(64)]},
        {"invite": []},
    ],
)
def test_a_token_that_says_what_cannot_be_is_refused(field: dict[str, Any]) -> None:
    error = refusal(retold(**field))
    assert error.reason is Reason.BAD_TOKEN
    assert "overlay invite" in error.hint


def test_there_is_no_token_without_the_hash_of_the_root() -> None:
    assert refusal(retold(root_hash=None)).detail == "field 2 is missing"


def test_a_token_that_has_expired_says_so() -> None:
    TOKEN.check_time(NOW + HOUR + timedelta(minutes=5))
    with pytest.raises(Refused, match="expired on") as caught:
        TOKEN.check_time(NOW + HOUR + timedelta(minutes=6))
    assert caught.value.reason is Reason.BAD_TOKEN
    assert "overlay invite" in caught.value.hint


def test_a_token_from_the_future_says_that_a_clock_is_wrong() -> None:
    TOKEN.check_time(NOW - timedelta(minutes=5))
    with pytest.raises(Refused) as caught:
        TOKEN.check_time(NOW - timedelta(minutes=6))
    assert caught.value.reason is Reason.CLOCK


def test_a_token_for_another_mesh_says_so() -> None:
    TOKEN.check_mesh(MESH.mesh_id)
    with pytest.raises(Refused) as caught:
        TOKEN.check_mesh(make_mesh("other").mesh_id)
    assert caught.value.reason is Reason.OTHER_MESH
    assert "another state folder" in caught.value.hint


def test_a_token_does_not_show_its_secrets() -> None:
    text = repr(TOKEN) + repr(JOIN_KEY)
    for secret in (SEED, seed("gate"), TOKEN.invite):
        assert repr(secret)[2:12] not in text
        assert secret.hex()[:8] not in text


def test_an_invite_for_another_seed_or_another_kind_of_order_makes_no_token() -> None:
    with pytest.raises(ValueError, match="another seed"):
        replace(TOKEN, seed=seed("other"))
    with pytest.raises(ValueError, match="another seed"):
        replace(TOKEN, mesh_id=make_mesh("other").mesh_id)
    with pytest.raises(ValueError, match="carries an invite"):
        replace(TOKEN, invite=sign(make_order(quarantine())).cose)


# --- the join key ---------------------------------------------------------------------------------------------------

H = seed("h(1)")
SIGNER = NodeId(seed("signer"))
CSR = b"a request"
PROOF = JOIN_KEY.prove(mesh_id=MESH.mesh_id, h=H, signer=SIGNER, csr=CSR)


def verify_proof(**other: object) -> None:
    fields: dict[str, object] = {
        "proof": PROOF, "join_public": JOIN_KEY.public, "mesh_id": MESH.mesh_id, "h": H, "signer": SIGNER,
        "invite_id": JOIN_KEY.invite_id, "csr": CSR,
    }  # fmt: skip
    assert other.keys() <= fields.keys()
    verify_join_proof(**(fields | other))  # type: ignore[arg-type]


def test_whoever_holds_the_token_proves_it() -> None:
    verify_proof()


@pytest.mark.parametrize(
    "other",
    [
        {"h": seed("another link")},
        {"signer": NodeId(seed("another signer"))},
        {"csr": b"another request"},
        {"invite_id": bytes(16)},
        {"mesh_id": make_mesh("other").mesh_id},
        {"join_public": ALICE.message.public_key},
        {"proof": PROOF[:-1] + bytes([PROOF[-1] ^ 1])},
        {"proof": b""},
    ],
)
def test_a_proof_for_something_else_is_refused(other: dict[str, object]) -> None:
    with pytest.raises(Refused) as caught:
        verify_proof(**other)
    assert caught.value.reason is Reason.BAD_PROOF


def test_the_bytes_of_the_proof_are_those_of_the_protocol() -> None:
    parts = (MESH.mesh_id, H, SIGNER, JOIN_KEY.invite_id, sha256(CSR))
    data = b"overlay/1 join\0" + b"".join(len(part).to_bytes(2, "big") + part for part in parts)
    assert JOIN_KEY.signer.sign(data) == PROOF


def test_the_same_seed_gives_another_key_in_another_mesh() -> None:
    other = JoinKey.of(SEED, make_mesh("other").mesh_id)
    assert other.public != JOIN_KEY.public
    assert other.invite_id != JOIN_KEY.invite_id
    assert JoinKey.of(SEED, MESH.mesh_id) != JoinKey.of(seed("other"), MESH.mesh_id)
    with pytest.raises(ValueError, match="32 bytes"):
        JoinKey.of(bytes(31), MESH.mesh_id)
