"""Signed notes against the examples of others, and what is refused."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit.notes import (
    COSIGNATURE,
    ED25519,
    NOTE_MAX,
    SIGNATURES_MAX,
    Note,
    NoteKey,
    NoteSignature,
    cosign,
    parse_line,
    parse_note,
    sign_note,
    verify_line,
)
from overlay.core.keys import Ed25519Signer
from overlay.errors import Refused
from overlay.registry import Reason

# golang.org/x/mod/sumdb/note, documentation of the package: one key and what it signed
GO_SECRET = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_NOTE = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
).encode()
# c2sp.org/signed-note, verifier keys, example
C2SP_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
C2SP_NOTE = (
    "This is an example message.\n\n"
    "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
).encode()
# c2sp.org/tlog-cosignature, the example at its top; the specification does not give its keys
C2SP_COSIGNED = (
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "— example.com/behind-the-sofa"
    " Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "— witness.example.com/w1"
    " jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
).encode()

SIGNER = Ed25519Signer(bytes(range(32)))
TEXT = "a text\n"


@pytest.mark.parametrize(("key", "raw"), [(GO_KEY, GO_NOTE), (C2SP_KEY, C2SP_NOTE)])
def test_notes_of_others_verify(key: str, raw: bytes) -> None:
    known = NoteKey.parse(key)
    note = parse_note(raw)
    assert note.verify(known) == note.signatures[0]
    assert (known.text, note.raw) == (key, raw)


def test_our_signature_is_the_one_that_go_makes() -> None:
    signer = Ed25519Signer(base64.b64decode(GO_SECRET)[1:])
    note = parse_note(GO_NOTE)
    assert Note(note.text, (sign_note(note.text, "PeterNeumann", signer),)).raw == GO_NOTE


def test_the_example_of_a_cosignature_is_read() -> None:
    note = parse_note(C2SP_COSIGNED)
    assert note.raw == C2SP_COSIGNED
    assert [one.name for one in note.signatures] == ["example.com/behind-the-sofa", "witness.example.com/w1"]
    assert note.signatures[1].timestamp == 1679315147
    with pytest.raises(Refused, match="72 bytes"):
        _ = note.signatures[0].timestamp


def test_a_cosignature_signs_the_time_and_the_text() -> None:
    line = cosign(TEXT, "w", SIGNER, 1679315147)
    key = NoteKey("w", COSIGNATURE, SIGNER.public_key)
    assert line.signature[8:] == SIGNER.sign(b"cosignature/v1\ntime 1679315147\na text\n")
    assert Note(TEXT, (line,)).verify(key).timestamp == 1679315147


def test_the_time_of_a_cosignature_cannot_be_changed() -> None:
    line = cosign(TEXT, "w", SIGNER, 1679315147)
    later = NoteSignature("w", line.key_id, (1679315148).to_bytes(8, "big") + line.signature[8:])
    with pytest.raises(Refused) as refused:
        verify_line(TEXT, later, NoteKey("w", COSIGNATURE, SIGNER.public_key))
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_a_cosignature_beyond_the_largest_time_is_refused() -> None:
    line = cosign(TEXT, "w", SIGNER, 2**63)
    with pytest.raises(Refused, match="beyond"):
        verify_line(TEXT, line, NoteKey("w", COSIGNATURE, SIGNER.public_key))


def test_a_changed_text_does_not_verify() -> None:
    note = parse_note(GO_NOTE)
    with pytest.raises(Refused) as refused:
        Note(note.text.replace("answer", "problem"), note.signatures).verify(NoteKey.parse(GO_KEY))
    assert refused.value.reason is Reason.BAD_SIGNATURE


def test_a_note_of_another_key_does_not_count() -> None:
    note = Note(TEXT, (sign_note(TEXT, "a", SIGNER),))
    for key in (NoteKey("b", ED25519, SIGNER.public_key), NoteKey("a", ED25519, bytes(32))):
        with pytest.raises(Refused, match="no signature of"):
            note.verify(key)
    with pytest.raises(Refused, match="another key"):
        verify_line(TEXT, note.signatures[0], NoteKey("b", ED25519, SIGNER.public_key))


def test_a_plain_signature_is_no_cosignature() -> None:
    plain, timed = NoteKey("a", ED25519, SIGNER.public_key), NoteKey("a", COSIGNATURE, SIGNER.public_key)
    assert plain.id != timed.id
    with pytest.raises(Refused):
        Note(TEXT, (sign_note(TEXT, "a", SIGNER),)).verify(timed)


def test_a_type_that_is_not_ours_is_refused() -> None:
    key = NoteKey("a", 2, SIGNER.public_key)
    with pytest.raises(Refused) as refused:
        verify_line(TEXT, NoteSignature("a", key.id, bytes(64)), key)
    assert refused.value.reason is Reason.UNSUPPORTED
    with pytest.raises(Refused) as refused:
        NoteKey.parse(key.text)
    assert refused.value.reason is Reason.UNSUPPORTED


@pytest.mark.parametrize("text", [
    "", "a", "a+b", GO_KEY.replace("c74f20a3", "c74f20a4"), GO_KEY.replace("c74f20a3", "C74F20A3"), GO_KEY + "=",
    NoteKey("a", ED25519, bytes(31)).text, GO_KEY.replace("Peter", "Peter "),
])  # fmt: skip
def test_a_damaged_verifier_key_is_refused(text: str) -> None:
    with pytest.raises(Refused):
        NoteKey.parse(text)


LINE = sign_note(TEXT, "a", SIGNER).line


@pytest.mark.parametrize("raw", [
    b"", b"\n", b"\n\n", b"text\n", b"text\n\n", b"text\n\nno dash\n", (TEXT + "\n" + LINE[:-1]).encode(),
    (TEXT + LINE).encode(), (TEXT + "\n" + LINE + "x\n").encode(), ("a\ttab\n\n" + LINE).encode(), b"\xff\n\n",
    ("text\r\n\n" + LINE).encode(), (TEXT + "\n" + LINE.replace("a ", "a+b ")).encode(),
    (TEXT + "\n" + LINE.replace(" a ", "  ")).encode(), (TEXT + "\n— a AAAAAA==\n").encode(),
    (TEXT + "\n— a AAAAA\n").encode(), (TEXT + "\n— a " + base64.urlsafe_b64encode(b"\xff" * 9).decode() + "\n").encode(),
    (TEXT + "\n— a AAAAAAB=\n").encode(),  # its last bits are not zero
    (TEXT + "\n— a\u00a0b AAAAAAAA\n").encode(),
])  # fmt: skip
def test_what_is_no_note_is_refused(raw: bytes) -> None:
    with pytest.raises(Refused) as refused:
        parse_note(raw)
    assert refused.value.reason is Reason.MALFORMED


def test_a_note_may_have_empty_lines_in_its_text() -> None:
    note = parse_note(("one\n\ntwo\n\n" + LINE).encode())
    assert note.text == "one\n\ntwo\n"


def test_too_many_signatures_and_too_many_bytes_are_refused() -> None:
    assert len(parse_note((TEXT + "\n" + LINE * SIGNATURES_MAX).encode()).signatures) == SIGNATURES_MAX
    for raw in ((TEXT + "\n" + LINE * (SIGNATURES_MAX + 1)).encode(), b"x" * (NOTE_MAX + 1)):
        with pytest.raises(Refused) as refused:
            parse_note(raw)
        assert refused.value.reason is Reason.TOO_LARGE


def test_more_lines_can_be_put_under_a_note() -> None:
    line = parse_line(LINE.rstrip("\n"))
    assert parse_note(Note(TEXT).with_signatures(line, line).raw).signatures == (line, line)


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_come_out_again(raw: bytes) -> None:
    with contextlib.suppress(Refused):
        assert parse_note(raw).raw == raw
