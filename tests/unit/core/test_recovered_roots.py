"""Roots that no other root has signed: they count where they are in force, in their place, and nowhere else."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from overlay.core.authority.recovery import RECOVERY_WAIT
from overlay.core.authority.succession import AuthorityChain
from overlay.core.certificates import Root, verify_leaf
from overlay.core.guests import joiner
from overlay.core.join_frames import Renewal
from overlay.core.keys import Signer, X25519Pair
from overlay.core.renewal_book import RenewalBook
from overlay.core.trust import Credentials, TrustSet
from overlay.core.trust_update import pack_trust, unpack_trust
from overlay.errors import Refused
from overlay.registry import Reason
from tests.unit.core.authority.generations_kit import MESH, Generation, chain_of, founding
from tests.unit.core.authority_kit import NOW, make_member, seed
from tests.unit.core.revocation_kit import credentials_under

ALICE = make_member(MESH, "alice")
ZERO = founding()
ONE = ZERO.rollover("one")
RESCUE = ONE.recovered("rescue")
NEXT = RESCUE.rollover("next")
OTHER = ONE.recovered("other")
LATER = NOW + RECOVERY_WAIT
SECOND = timedelta(seconds=1)


def in_force(*after: Generation) -> AuthorityChain:
    """Founding, a roll-over, a recovery that has waited, and what follows."""
    chain = chain_of(ZERO, ONE, RESCUE).settle(LATER)
    for one in after:
        chain = chain.with_object(one.raw, LATER).chain
    return chain


def der_of(generation: Generation) -> bytes:
    """What stands in a chain of certificates."""
    return generation.contents.cross or generation.contents.root.der


def shown(generation: Generation, *chain: Generation) -> Credentials:
    """Alice under the root of that generation."""
    key: Signer = generation.key
    return credentials_under(MESH, ALICE, 0, chain=tuple(der_of(one) for one in chain), key=key)  # type: ignore[arg-type]


def trust_of(*generations: Generation) -> TrustSet:
    """A trust set that has taken these one after the other."""
    trust = MESH.trust
    for one in generations:
        cross = one.contents.cross
        trust = trust.with_recovered_root(one.contents.root, NOW) if cross is None else trust.with_root(cross, NOW)
    return trust


def knowing(chain: AuthorityChain) -> Root:
    """The founding root of a node that has this chain in force."""
    return replace(MESH.root, recovered=lambda: chain.recovered_roots)


def refusal(act: Callable[[], object]) -> Reason:
    with pytest.raises(Refused) as caught:
        act()
    return caught.value.reason


# --- leaves ---------------------------------------------------------------------------------------------------------


def test_a_leaf_under_a_recovered_root_counts_where_the_recovery_is_in_force() -> None:
    credentials = shown(RESCUE, RESCUE, ONE)
    found = verify_leaf(credentials.leaf, credentials.chain, knowing(in_force()), NOW)
    assert found.lineage == tuple(one.contents.root.key_hash for one in (ZERO, ONE, RESCUE))
    waiting = chain_of(ZERO, ONE, RESCUE)
    for root in (MESH.root, knowing(waiting)):
        assert refusal(lambda root=root: verify_leaf(credentials.leaf, credentials.chain, root, NOW)) is Reason.BAD_CERTIFICATE  # type: ignore[misc]


def test_a_recovered_root_counts_in_its_own_place_only() -> None:
    credentials = shown(RESCUE, RESCUE)  # as if it followed the founding root
    assert refusal(lambda: verify_leaf(credentials.leaf, credentials.chain, knowing(in_force()), NOW)) is Reason.BAD_CERTIFICATE
    stranger = shown(OTHER, OTHER, ONE)
    assert refusal(lambda: verify_leaf(stranger.leaf, stranger.chain, knowing(in_force()), NOW)) is Reason.BAD_CERTIFICATE


@pytest.mark.parametrize("length", [0, 1, 2, 3])
def test_a_chain_may_begin_below_a_recovered_root(length: int) -> None:
    credentials = shown(NEXT, *(NEXT, RESCUE, ONE)[:length])
    for trust in (trust_of(ONE, RESCUE, NEXT), *([trust_of(ONE, RESCUE)] * bool(length))):
        assert len(trust.verify(credentials, NOW).certificate.lineage) == 4


@pytest.mark.parametrize("length", [1, 2, 3])
def test_who_has_not_the_recovery_in_force_believes_nothing_under_it(length: int) -> None:
    trust = trust_of(ONE)
    for credentials in (shown(NEXT, *(NEXT, RESCUE, ONE)[:length]), shown(RESCUE, *(RESCUE, ONE)[:length])):
        assert refusal(lambda credentials=credentials: trust.verify(credentials, NOW)) is Reason.BAD_CERTIFICATE  # type: ignore[misc]


def test_after_a_fork_a_recovered_root_takes_the_place_of_what_followed() -> None:
    unfork = ZERO.recovered("unfork")
    trust = trust_of(ONE).with_recovered_root(unfork.contents.root, NOW, MESH.root)
    assert [one.root.key_hash for one in trust.later] == [unfork.contents.root.key_hash]
    assert trust.with_recovered_root(unfork.contents.root, NOW, MESH.root) is trust


# --- as files -------------------------------------------------------------------------------------------------------


def test_a_trust_set_with_a_recovered_root_is_read_where_the_chain_has_it() -> None:
    trust = trust_of(ONE, RESCUE, NEXT)
    assert unpack_trust(pack_trust(trust), knowing(in_force())) == trust
    assert refusal(lambda: unpack_trust(pack_trust(trust), MESH.root)) is Reason.BAD_CERTIFICATE


# --- newcomers ------------------------------------------------------------------------------------------------------


def test_a_joiner_believes_the_recovered_root_that_its_token_pins() -> None:
    host = shown(RESCUE, RESCUE, ONE)
    with_roots = replace(host, chain=(*host.chain, MESH.root.der))
    newcomer = X25519Pair.from_private(seed("newcomer"))
    pinned = joiner(MESH.mesh_id, RESCUE.contents.root.key_hash, newcomer, lambda: NOW)
    assert pinned.verify(with_roots) is not None
    for other in (ONE, OTHER):
        side = joiner(MESH.mesh_id, other.contents.root.key_hash, newcomer, lambda: NOW)
        assert refusal(lambda side=side: side.verify(with_roots)) is Reason.OTHER_MESH  # type: ignore[misc]


def test_a_newcomer_follows_recoveries_up_to_the_root_that_its_token_pins() -> None:
    chain = in_force(NEXT)
    assert AuthorityChain.leading_to(chain.to_show, MESH.root, NEXT.contents.root.key_hash, LATER).newest == chain.newest
    short = AuthorityChain.leading_to(in_force().to_show, MESH.root, RESCUE.contents.root.key_hash, LATER)
    assert short.recovered_roots == chain.recovered_roots


def test_a_recovery_that_waits_is_not_in_force_for_a_newcomer() -> None:
    waiting = chain_of(ZERO, ONE, RESCUE)
    found = AuthorityChain.leading_to(waiting.to_show, MESH.root, ONE.contents.root.key_hash, NOW)
    assert found.newest.raw == ONE.raw and len(found.candidates) == 1
    assert found.recovered_roots == {}


def test_a_newcomer_is_not_led_to_another_root_than_its_token_pins() -> None:
    shows = (ZERO.raw, ONE.raw, OTHER.raw)
    assert refusal(lambda: AuthorityChain.leading_to(shows, MESH.root, RESCUE.contents.root.key_hash, NOW)) is Reason.OTHER_MESH


def test_there_is_nothing_before_a_forked_object_0() -> None:
    assert chain_of(ZERO, ONE).to_be_recovered == chain_of(ZERO, ONE).newest
    forked = chain_of(ZERO, ONE, ZERO.rollover("rival"))
    assert forked.to_be_recovered == forked.objects[0]
    rival = founding(replace(ZERO.contents.recovery, threshold=1))
    assert chain_of(ZERO, rival).to_be_recovered is None


def test_what_the_lost_authority_has_promised_to_renew_is_free_again() -> None:
    old = ALICE.peer.certificate
    first, second = (Renewal(csr=csr, serial=old.serial, not_before=NOW) for csr in (b"first", b"second"))
    book = RenewalBook().bind(old, first, NOW)
    assert refusal(lambda: book.without({old.serial + 1}).bind(old, second, NOW)) is Reason.CLONED_IDENTITY
    assert book.without({old.serial}).bind(old, second, NOW).replaced.keys() == {old.node_id}


def test_another_wait_counts_where_it_was_told() -> None:
    waiting = chain_of(ZERO, ONE, RESCUE)
    assert waiting.candidates[0].waits_until(SECOND) == NOW + SECOND
    assert waiting.settle(NOW, SECOND) is waiting
    assert waiting.settle(NOW + SECOND, SECOND).newest.raw == RESCUE.raw
