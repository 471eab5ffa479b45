"""JOIN and what answers it, RENEWAL: what is written is read again, and nothing else is."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overlay.core.authority.objects import OBJECT_MAX
from overlay.core.enrolment_files import Bundle
from overlay.core.join_frames import (
    EK_CERTIFICATE_MAX,
    EK_CHAIN_MAX,
    INVITE_MAX,
    PUBLIC_MAX,
    SECONDS_MAX,
    SIGNERS_MAX,
    Finish,
    Join,
    JoinChallenge,
    JoinTpm,
    Renewal,
    TpmAnswer,
    pack_answer,
    unpack_answer,
)
from overlay.core.join_result import JoinResult, SignerHint
from overlay.core.keys import NodeId
from overlay.core.limits import CHAIN_BYTES_MAX, GUEST_ANSWER_MAX, GUEST_BYTES_MAX
from overlay.core.policy import POLICY_MAX
from overlay.core.wire import make_map, sha256
from overlay.errors import Refused
from overlay.registry import Reason

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
TPM = JoinTpm(
    ek_public=b"ek", ek_chain=(b"own", b"above"), ak_public=b"ak", identity_public=b"id", parent_name=bytes(34),
    boot_log_hash=sha256(b"log"),
)
JOIN = Join(invite=b"invite", csr=b"csr", proof=bytes(64), not_before=AT, name="bob", tpm=TPM)
CHALLENGE = JoinChallenge(nonce=bytes(32), blob=b"blob", encrypted_seed=b"seed", pcr_bitmap=1 << 14)
ANSWER = TpmAnswer(
    activation=bytes(32), quote=b"quote", quote_signature=b"signature", certify_attest=b"certify", certify_signature=b"its"
)
NODES = tuple(sorted(NodeId(sha256(bytes([number]))) for number in range(3)))
BUNDLE = Bundle(
    mesh_name="lab", root=b"root", leaf=b"leaf", gate_number=1, gate_key=bytes(32), policy=b"policy", authority_object=b"o"
)
RENEWAL = Renewal(csr=b"csr", serial=0x40 << 152, not_before=AT)


def reason(read: object, *arguments: object) -> Reason:
    with pytest.raises(Refused) as refusal:
        read(*arguments)  # type: ignore[operator]
    return refusal.value.reason


@pytest.mark.parametrize(
    "join",
    [
        JOIN,
        replace(JOIN, tpm=None),
        replace(JOIN, name=None),
        replace(JOIN, tpm=replace(TPM, boot_log_hash=b"", ek_chain=())),
        replace(JOIN, not_before=datetime.fromtimestamp(SECONDS_MAX, UTC)),
    ],
)
def test_a_join_is_read_as_it_was_written(join: Join) -> None:
    assert Join.unpack(join.pack()) == join


def test_the_largest_join_fits_into_what_a_guest_may_say() -> None:
    largest = JoinTpm(
        ek_public=bytes(PUBLIC_MAX), ek_chain=(bytes(EK_CERTIFICATE_MAX),) * EK_CHAIN_MAX, ak_public=bytes(PUBLIC_MAX),
        identity_public=bytes(PUBLIC_MAX), parent_name=bytes(66), boot_log_hash=bytes(32),
    )
    join = replace(JOIN, invite=bytes(INVITE_MAX), csr=bytes(CHAIN_BYTES_MAX), tpm=largest)
    body = join.pack()
    assert Join.unpack(body) == join
    assert len(body) + 8192 < GUEST_BYTES_MAX


FIELDS: list[object] = [
    b"invite", b"csr", bytes(64), 1_700_000_000, None, b"ek", [b"own"], b"ak", b"id", bytes(34), bytes(32),
]


@pytest.mark.parametrize(
    ("index", "value"),
    [
        (0, b""),
        (0, bytes(INVITE_MAX + 1)),
        (1, bytes(CHAIN_BYTES_MAX + 1)),
        (2, bytes(63)),
        (2, bytes(65)),
        (2, None),
        (3, SECONDS_MAX + 1),
        (4, "x" * 64),
        (5, b""),
        (5, bytes(PUBLIC_MAX + 1)),
        (6, [b"c"] * (EK_CHAIN_MAX + 1)),
        (6, [bytes(EK_CERTIFICATE_MAX + 1)]),
        (9, bytes(33)),
        (10, bytes(31)),
        (10, bytes(33)),
    ],
)
def test_a_join_with_a_field_of_another_size_is_refused(index: int, value: object) -> None:
    changed = [*FIELDS]
    changed[index] = value
    assert reason(Join.unpack, make_map(*changed)) is Reason.MALFORMED
    Join.unpack(make_map(*FIELDS))


@pytest.mark.parametrize("index", [5, 6, 7, 8, 9])
def test_a_join_with_a_part_of_the_tpm_missing_is_refused(index: int) -> None:
    changed = [*FIELDS[:10], None]
    changed[index] = None
    assert reason(Join.unpack, make_map(*changed)) is Reason.MALFORMED


def test_a_boot_log_without_a_tpm_is_refused() -> None:
    assert reason(Join.unpack, make_map(*FIELDS[:5], None, None, None, None, None, bytes(32))) is Reason.MALFORMED


def test_the_largest_bundle_and_chain_of_objects_fit_into_what_a_signer_may_answer() -> None:
    bundle = Bundle(
        mesh_name="m" * 63, root=bytes(CHAIN_BYTES_MAX), leaf=bytes(CHAIN_BYTES_MAX), chain=(bytes(CHAIN_BYTES_MAX),),
        gate_number=2**63, gate_key=bytes(32), policy=bytes(POLICY_MAX), authority_object=bytes(OBJECT_MAX),
    )  # fmt: skip
    result = JoinResult(bundle=bundle, authority=(bytes(OBJECT_MAX),))
    body = result.pack()
    assert len(body) + 8192 < GUEST_ANSWER_MAX
    assert JoinResult.unpack(body) == result


def test_what_is_too_long_is_refused_before_it_is_read() -> None:
    long = bytes(GUEST_BYTES_MAX + 1)
    assert reason(Join.unpack, long) is Reason.TOO_LARGE
    assert reason(JoinResult.unpack, bytes(GUEST_ANSWER_MAX + 1)) is Reason.TOO_LARGE
    assert reason(Renewal.unpack, bytes(16 * 1024 + 1)) is Reason.TOO_LARGE
    assert reason(JoinChallenge.unpack, bytes(1025)) is Reason.TOO_LARGE
    assert reason(unpack_answer, bytes(4097)) is Reason.TOO_LARGE


def test_a_challenge_is_read_as_it_was_written() -> None:
    assert JoinChallenge.unpack(CHALLENGE.pack()) == CHALLENGE


@pytest.mark.parametrize(
    "change",
    [{"nonce": bytes(31)}, {"blob": b""}, {"blob": bytes(133)}, {"encrypted_seed": bytes(513)}, {"pcr_bitmap": 1 << 24}],
)
def test_a_challenge_with_a_field_of_another_size_is_refused(change: dict[str, object]) -> None:
    assert reason(JoinChallenge.unpack, replace(CHALLENGE, **change).pack()) is Reason.MALFORMED  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", [ANSWER, Finish(NODES), Finish(())])
def test_an_answer_is_read_as_it_was_written(answer: TpmAnswer | Finish) -> None:
    assert unpack_answer(pack_answer(answer)) == answer


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (bytes(32), b"q", b"s", b"c"),
        (None, b"q", b"s", b"c", b"s"),
        (bytes(32), b"q", b"s", b"c", b"s", [bytes(32)]),
        (bytes(31), b"q", b"s", b"c", b"s"),
        (None, None, None, None, None, [NODES[1], NODES[0]]),
        (None, None, None, None, None, [NODES[0], NODES[0]]),
        (None, None, None, None, None, [bytes(31)]),
        (None, None, None, None, None, [bytes([one]) * 32 for one in range(SIGNERS_MAX + 1)]),
    ],
)
def test_an_answer_that_is_neither_a_tpms_nor_asks_to_finish_is_refused(fields: tuple[object, ...]) -> None:
    plain = [[bytes(one) for one in field] if isinstance(field, list) else field for field in fields]
    assert reason(unpack_answer, make_map(*plain)) is Reason.MALFORMED


@pytest.mark.parametrize(
    "result",
    [
        JoinResult(),
        JoinResult(approved=True),
        JoinResult(reason=Reason.NAME_TAKEN),
        JoinResult(signers=(SignerHint(NODES[0], ("[::1]:4000", "host:4000")), SignerHint(NODES[1])), authority=(b"o",)),
        JoinResult(approved=True, bundle=BUNDLE),
    ],
)
def test_a_result_is_read_as_it_was_written(result: JoinResult) -> None:
    assert JoinResult.unpack(result.pack()) == result


@pytest.mark.parametrize(
    "result", [JoinResult(reason=Reason.BUSY, approved=True), JoinResult(reason=Reason.BUSY, bundle=BUNDLE)]
)
def test_nobody_is_refused_and_granted_at_once(result: JoinResult) -> None:
    assert reason(JoinResult.unpack, result.pack()) is Reason.MALFORMED


def test_a_reason_that_the_registry_does_not_know_is_refused() -> None:
    assert reason(JoinResult.unpack, make_map(255, False, [])) is Reason.MALFORMED


def test_authority_objects_have_64_kib_in_all() -> None:
    half = bytes(OBJECT_MAX // 2)
    JoinResult.unpack(JoinResult(authority=(half, half)).pack())
    assert reason(JoinResult.unpack, JoinResult(authority=(half, half, b"x")).pack()) is Reason.TOO_LARGE


@pytest.mark.parametrize("renewal", [RENEWAL, replace(RENEWAL, finish=Finish(NODES))])
def test_a_renewal_is_read_as_it_was_written(renewal: Renewal) -> None:
    assert Renewal.unpack(renewal.pack()) == renewal


@pytest.mark.parametrize(
    "fields",
    [
        (b"", bytes(20), 1),
        (b"csr", bytes(19), 1),
        (b"csr", bytes(20), SECONDS_MAX + 1),
        (b"csr", bytes(20), 1, [NODES[1], NODES[0]]),
    ],
)
def test_a_renewal_with_a_wrong_field_is_refused(fields: tuple[object, ...]) -> None:
    plain = [[bytes(one) for one in field] if isinstance(field, list) else field for field in fields]
    assert reason(Renewal.unpack, make_map(*plain)) is Reason.MALFORMED


READERS = [Join.unpack, JoinChallenge.unpack, unpack_answer, JoinResult.unpack, Renewal.unpack]
WRITTEN = [JOIN.pack(), CHALLENGE.pack(), pack_answer(ANSWER), pack_answer(Finish(NODES)), RENEWAL.pack()]


@given(st.sampled_from(READERS), st.binary(max_size=300) | st.sampled_from(WRITTEN))
def test_any_bytes_are_read_or_refused(read: object, data: bytes) -> None:
    try:
        read(data)  # type: ignore[operator]
    except Refused:
        return
    assert data in WRITTEN


@given(st.sampled_from(list(zip(READERS, [*WRITTEN[:3], JoinResult().pack(), WRITTEN[4]], strict=True))), st.data())
def test_a_changed_bit_never_raises_anything_else(pair: tuple[object, bytes], data: st.DataObject) -> None:
    read, good = pair
    place = data.draw(st.integers(0, len(good) * 8 - 1))
    changed = bytearray(good)
    changed[place // 8] ^= 1 << place % 8
    try:
        read(bytes(changed))  # type: ignore[operator]
    except Refused as refusal:
        assert refusal.reason in (Reason.MALFORMED, Reason.UNSUPPORTED, Reason.TOO_LARGE)


def test_what_must_not_be_shown_is_not_in_the_repr() -> None:
    for value in (JOIN, TPM, CHALLENGE, ANSWER):
        text = repr(value)
        assert "b'ek'" not in text
        assert "b'blob'" not in text
        assert "b'quote'" not in text
