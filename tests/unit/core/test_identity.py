"""Our own identity: the keys and the papers belong together."""

from dataclasses import replace

import pytest

from overlay.core.keys import Ed25519Signer
from tests.unit.core.authority_kit import make_member, make_mesh, seed
from tests.unit.core.session_kit import ALICE, BOB, local


def test_an_identity_is_its_credentials_with_the_keys_of_the_endorsement() -> None:
    identity = local(ALICE)
    assert (identity.node_id, identity.kid) == (ALICE.node_id, ALICE.kid)
    assert identity.static.public == identity.verified.noise_public
    assert identity.message.public_key == identity.verified.message_public


@pytest.mark.parametrize("changes", [{"static": BOB.noise}, {"message": BOB.message}])
def test_other_keys_than_the_endorsed_ones_are_our_own_bug(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="not the keys of the endorsement"):
        replace(local(ALICE), **changes)  # type: ignore[arg-type]


def test_a_witness_key_is_the_one_that_the_endorsement_names() -> None:
    dave = make_member(make_mesh(), "dave", witness=True)
    identity = replace(local(dave), witness=dave.witness)
    assert identity.witness is not None
    assert identity.witness.public_key == identity.verified.endorsement.witness_public
    for who in (dave, ALICE):
        with pytest.raises(ValueError, match="not the witness key"):
            replace(local(who), witness=Ed25519Signer(seed("another")))
    assert "witness=" not in repr(identity)


def test_no_private_key_is_shown() -> None:
    shown = repr(local(ALICE))
    assert ALICE.noise.private.hex() not in shown
    assert repr(ALICE.noise.private) not in shown
    assert "static" not in shown and "message=" not in shown
