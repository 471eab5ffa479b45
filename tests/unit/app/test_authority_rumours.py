"""What is kept of what signers say: rows of others' bindings, and messages that come before their session."""

import pytest

from overlay.app.authority.carrier import EARLY_BYTES_MAX, EARLY_MAX, Carrier
from overlay.app.authority.others_bindings import joined
from overlay.core.authority.bindings import Binding, Bindings, Bound
from overlay.core.authority.round_messages import RoundMessage
from overlay.core.keys import MeshId, NodeId
from overlay.core.wire import sha256, u64
from overlay.errors import Refused
from overlay.registry import Reason, RoundKind
from tests.unit.core.authority_kit import seed

MADE_UP = Binding(Bound.OBJECT, sha256(b"root") + u64(7), seed("made up"))
TRUE = Binding(Bound.NAME, b"bob", seed("bob"))
HONEST, LIAR = Bindings().adding([TRUE]), Bindings().adding([TRUE, MADE_UP])


def test_what_one_signer_alone_says_is_bound_binds_nobody_else_where_two_must_know() -> None:
    found = joined(Bindings(), [HONEST, LIAR, HONEST, HONEST], 4, 5)
    assert found.get(TRUE.kind, TRUE.key) == TRUE.value and found.get(MADE_UP.kind, MADE_UP.key) is None


def test_what_one_signer_alone_may_know_is_not_lost() -> None:
    assert joined(Bindings(), [HONEST, LIAR], 2, 3).get(MADE_UP.kind, MADE_UP.key) == MADE_UP.value


def test_what_is_bound_already_stays() -> None:
    other = Binding(Bound.NAME, b"bob", seed("mallory"))
    assert joined(HONEST, [Bindings().adding([other])] * 4, 4, 5).get(Bound.NAME, b"bob") == TRUE.value


def carrier() -> Carrier:
    return Carrier(own=lambda: pytest.fail("nothing is sent"), mesh_id=MeshId(bytes(32)), tell=lambda *_: True)


def said(sender: str, size: int, session: str = "any") -> RoundMessage:
    return RoundMessage(
        sender=NodeId(seed(sender)), to=NodeId(bytes(32)), session=seed(session)[:16], kind=RoundKind.GROUP_KEY,
        body=bytes(size), raw=b"",
    )


@pytest.mark.parametrize(("count", "size"), [(2 * EARLY_MAX, 1), (40, 1024 * 1024)])
def test_whoever_talks_before_a_session_begins_drives_out_its_own_words_only(count: int, size: int) -> None:
    found, heard = carrier(), list[RoundMessage]()
    found.keep(said("bob", 1000, "dealing"))
    for _ in range(count):
        found.keep(said("mallory", size))
    assert len(found._early) <= EARLY_MAX and sum(len(one.body) for one in found._early) <= EARLY_BYTES_MAX
    with found.listening(seed("dealing")[:16], heard.append):
        assert [one.sender for one in heard] == [seed("bob")]


def test_a_session_is_listened_to_once() -> None:
    found = carrier()
    with found.listening(bytes(16), lambda _message: None):
        with pytest.raises(Refused) as refused, found.listening(bytes(16), lambda _message: None):
            pass
        assert refused.value.reason is Reason.BUSY and bytes(16) in found._listeners
