"""Live handshakes between our classes and noise-c, the C reference, in both roles."""

from collections.abc import Iterator

import pytest

from overlay.core.frames import Frame, pack
from overlay.core.gate import prologue
from overlay.core.handshake import _payload
from overlay.core.keys import X25519Pair
from overlay.core.limits import KEM_CIPHERTEXT_SIZE, KEM_KEY_SIZE
from overlay.core.noise import XX, Handshake, Inputs, NoiseResult, Pattern, Size
from overlay.core.records import Opener, Sealer
from overlay.core.wire import make_map
from overlay.errors import Refused
from overlay.registry import SUITE, VERSION, FrameType, Mode
from tests.interop.noise_c import NoiseC, NoiseCError, missing
from tests.unit.core.session_kit import ALICE, BOB, LAB

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())

XX_NAME, KK_NAME = "Noise_XX_25519_AESGCM_SHA256", "Noise_KK_25519_AESGCM_SHA256"
PROLOGUE = prologue(LAB.mesh_id, bytes([VERSION, SUITE, Mode.MEMBER]))
OURS, FRESH = ALICE.noise, X25519Pair.from_private(b"e" * 32)
THEIRS = BOB.noise
PAYLOADS = (
    b"", _payload(BOB.credentials, b"k" * KEM_KEY_SIZE), _payload(ALICE.credentials, b"c" * KEM_CIPHERTEXT_SIZE)
)  # fmt: skip


@pytest.fixture(scope="module")
def noise_c() -> Iterator[NoiseC]:
    with NoiseC.running() as process:
        yield process


def converse(first: Handshake | NoiseC, second: Handshake | NoiseC, payloads: tuple[bytes, ...]) -> None:
    """Take turns, the first begins."""
    for payload in payloads:
        assert second.read(first.write(payload)) == payload
        first, second = second, first


def same_transport(result: NoiseResult, noise_c: NoiseC, *, initiator: bool) -> None:
    """The hash is the same, records of ours open there and theirs here: k1 and k2 are theirs, the right way round."""
    h, our_static = noise_c.split()
    assert h == result.h
    assert our_static == OURS.public
    sending, receiving = (result.k1, result.k2) if initiator else (result.k2, result.k1)
    sealer, opener = Sealer(sending), Opener(receiving)
    for number in range(3):
        plaintext = pack(Frame(FrameType.PING, body=make_map(number, 1)))
        assert noise_c.open(sealer.seal(plaintext)[2:]) == plaintext
        assert opener.open(noise_c.seal(plaintext)) == plaintext


def test_xx_with_us_as_initiator(noise_c: NoiseC) -> None:
    ours = XX.initiator(PROLOGUE, OURS, FRESH)
    theirs = noise_c.start(XX_NAME, initiator=False, prologue=PROLOGUE, static=THEIRS.private)
    converse(ours, theirs, PAYLOADS)
    assert ours.remote_static == THEIRS.public
    same_transport(ours.result(), noise_c, initiator=True)


def test_xx_with_us_as_responder(noise_c: NoiseC) -> None:
    ours = XX.responder(PROLOGUE, OURS, FRESH)
    theirs = noise_c.start(XX_NAME, initiator=True, prologue=PROLOGUE, static=THEIRS.private)
    converse(theirs, ours, PAYLOADS)
    assert ours.remote_static == THEIRS.public
    same_transport(ours.result(), noise_c, initiator=False)


@pytest.mark.parametrize("initiator", [True, False])
def test_kk_which_a_rekey_mixes_its_psk_into(noise_c: NoiseC, initiator: bool) -> None:
    pattern = Pattern(name=KK_NAME.encode(), sizes=(Size(empty=48, most=48), Size(empty=48, most=48)))
    inputs = Inputs(prologue=PROLOGUE, static=OURS, ephemeral=FRESH, remote_static=THEIRS.public)
    ours = Handshake(pattern, inputs, initiator=initiator)
    theirs = noise_c.start(
        KK_NAME, initiator=not initiator, prologue=PROLOGUE, static=THEIRS.private, remote=OURS.public
    )
    first, second = (ours, theirs) if initiator else (theirs, ours)
    converse(first, second, (b"", b""))
    same_transport(ours.result(), noise_c, initiator=initiator)


def test_another_prologue_of_theirs_is_refused(noise_c: NoiseC) -> None:
    ours = XX.initiator(PROLOGUE, OURS, FRESH)
    theirs = noise_c.start(XX_NAME, initiator=False, prologue=b"another", static=THEIRS.private)
    theirs.read(ours.write())
    with pytest.raises(Refused):
        ours.read(theirs.write(PAYLOADS[1]))


def test_a_changed_message_of_ours_is_refused_by_them(noise_c: NoiseC) -> None:
    ours = XX.responder(PROLOGUE, OURS, FRESH)
    theirs = noise_c.start(XX_NAME, initiator=True, prologue=PROLOGUE, static=THEIRS.private)
    ours.read(theirs.write())
    message = ours.write(PAYLOADS[1])
    with pytest.raises(NoiseCError, match="MAC_FAILURE"):
        theirs.read(message[:-1] + bytes([message[-1] ^ 1]))


def test_a_changed_message_of_theirs_is_refused_by_us(noise_c: NoiseC) -> None:
    ours = XX.initiator(PROLOGUE, OURS, FRESH)
    theirs = noise_c.start(XX_NAME, initiator=False, prologue=PROLOGUE, static=THEIRS.private)
    theirs.read(ours.write())
    message = theirs.write(PAYLOADS[1])
    with pytest.raises(Refused):
        ours.read(message[:40] + bytes([message[40] ^ 1]) + message[41:])
