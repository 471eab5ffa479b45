"""Renewal between real nodes: in time, by order, after the end over links of mode 3, and never twice."""

from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from overlay.app.authority.renewing import Renewing
from overlay.core.authority import signer
from overlay.core.authority.requests import pack_request
from overlay.core.authority.round_messages import RoundMessage
from overlay.core.authority.signing_bodies import SignRequest
from overlay.core.certificate_request import build_request
from overlay.core.certificates import VerifiedCertificate
from overlay.core.join_frames import Finish, Renewal
from overlay.core.keys import Ed25519Signer, NodeId
from overlay.core.policy import Policy
from overlay.core.revocation_profile import serial_bytes
from overlay.core.trust_update import TrustUpdate
from overlay.core.wire import sign1
from overlay.errors import OverlayError, PeerUnreachable, Refused
from overlay.events import AuthorityAlarm, CertificateSigned, PolicyChanged
from overlay.net.system import wall_clock
from overlay.registry import Label, Reason, RoundKind
from overlay.store.identity import load_founding_key
from overlay.store.state import StateFolder
from tests.shell.authority_kit import (
    DAY,
    HOUR,
    Running,
    admitted,
    founded,
    join,
    linked,
    met,
    opened,
    set_calendar,
    token_of,
    until,
)
from tests.unit.core.authority_kit import seed


async def joined(tmp_path: Path, *names: str) -> list[Path]:
    """A founder and nodes that have joined, each with a certificate of a day."""
    path = founded(tmp_path)
    async with opened(path) as alice:
        for name in names:
            await join(tmp_path / name, await token_of(alice), name=name)
    return [path, *(tmp_path / name for name in names)]


def certificate(one: Running) -> VerifiedCertificate:
    return one.node.engine.identity.verified.certificate


def later(paths: list[Path], at: datetime) -> None:
    for path in paths:
        set_calendar(path, at)


def renewal_of(one: Running, *, csr: bytes = b"", at: datetime | None = None) -> Renewal:
    """As the node asks, with its own key unless said."""
    own = certificate(one)
    request = csr or one.node.seat.parts.make_request()
    return Renewal(csr=request, serial=own.serial, not_before=(at or one.node.seat.parts.at()).replace(microsecond=0))


async def test_a_node_renews_its_certificate_at_two_thirds_of_its_life(tmp_path: Path) -> None:
    alices, bobs = paths = await joined(tmp_path, "bob")
    later(paths, wall_clock() + 15 * HOUR)
    async with linked(alices, bobs) as (alice, bob):
        assert not bob.node.seat.renewing.is_due
        assert alice.all(CertificateSigned) == []
        old_end = certificate(bob).not_after
    later(paths, wall_clock() + 17 * HOUR)
    async with linked(alices, bobs) as (alice, bob):
        found = await alice.heard(CertificateSigned)
        assert found.name == "bob"
        await until(lambda: certificate(bob).not_after > old_end)
        assert not bob.node.seat.renewing.is_due
        await met(alice, bob)
    async with opened(bobs) as bob:
        assert certificate(bob).not_after > old_end


async def test_a_node_renews_by_command_and_keeps_name_and_roles(tmp_path: Path) -> None:
    alices, bobs = paths = await joined(tmp_path, "bob")
    later(paths, wall_clock() + HOUR)
    async with linked(alices, bobs) as (alice, bob):
        before = certificate(bob)
        report = await bob.node.authority.renew()
        after = certificate(bob)
        assert after.serial != before.serial and after.not_after > before.not_after
        assert (after.name, after.roles, after.node_id) == (before.name, before.roles, before.node_id)
        assert report.fields["serial"] == f"{after.serial:040x}"
        await met(alice, bob)


async def test_a_link_that_ends_while_a_signer_is_asked_is_no_refusal(tmp_path: Path) -> None:
    path = founded(tmp_path)
    async with linked(path, admitted(path, "bob")) as (_alice, bob):
        engine, before, asked = bob.node.engine, certificate(bob), list[str]()
        call = engine.call

        async def replaced(peer: NodeId, method: str, *rest: Any) -> bytes:
            asked.append(method)
            if len(asked) == 1:
                raise PeerUnreachable("the link was replaced")
            return await call(peer, method, *rest)

        engine.call = replaced  # type: ignore[method-assign]
        await bob.node.authority.renew()
        assert certificate(bob) != before
        assert len(asked) == 3  # the one that was lost, again, and to finish


async def test_the_founder_renews_its_own_certificate(tmp_path: Path) -> None:
    path = founded(tmp_path)
    set_calendar(path, wall_clock() + HOUR)
    async with opened(path) as alice:
        await alice.node.authority.renew()
        assert certificate(alice).roles == ("operator", "signer")


async def test_a_renewed_certificate_names_the_policy_in_force(tmp_path: Path) -> None:
    alices, bobs = paths = await joined(tmp_path, "bob")
    later(paths, wall_clock() + HOUR)
    async with linked(alices, bobs) as (alice, bob):
        with StateFolder.open(alices, exclusive=False) as folder:
            key = Ed25519Signer(load_founding_key(folder) or b"")
        payload = replace(Policy.default(), version=2).pack()
        signed = sign1(payload, signer=key, aad=Label.POLICY + alice.node.mesh_id, kid=None)
        alice.node.seat.keeper.take_update(TrustUpdate(policy=signed))
        await bob.heard(PolicyChanged)
        await bob.node.authority.renew()
        assert certificate(bob).facts.policy_version == 2


async def test_a_node_that_was_off_for_two_days_renews_over_a_link_of_mode_3(tmp_path: Path) -> None:
    alices, bobs = paths = await joined(tmp_path, "bob")
    async with linked(alices, bobs):
        pass  # bob remembers where alice is
    later(paths, wall_clock() + 2 * DAY)
    async with opened(alices) as alice, opened(bobs, alice) as bob:
        await alice.heard(CertificateSigned)
        await met(alice, bob)
        assert not certificate(bob).in_grace


async def test_a_node_beyond_its_grace_is_told_to_join_again(tmp_path: Path) -> None:
    alices, bobs = paths = await joined(tmp_path, "bob")
    async with linked(alices, bobs):
        pass
    later(paths, wall_clock() + 5 * DAY)
    async with opened(alices):
        with pytest.raises(Refused) as refused:
            async with opened(bobs):
                pass
        assert refused.value.reason is Reason.NO_GRACE and "invite" in refused.value.hint


async def test_a_signer_takes_no_renewal_of_a_node_beyond_its_grace(tmp_path: Path) -> None:
    alices, bobs = await joined(tmp_path, "bob")
    async with opened(bobs) as bob:
        own, request = certificate(bob), bob.node.seat.parts.make_request()
    set_calendar(alices, wall_clock() + 5 * DAY)
    async with opened(alices) as alice:
        hosting, at = alice.node.seat._hosting, alice.node.seat.parts.at()
        assert hosting is not None
        late = Renewal(csr=request, serial=own.serial, not_before=at.replace(microsecond=0))
        assert (await hosting.renew(late, own)).reason is Reason.NO_GRACE
        assert alice.all(CertificateSigned) == []


async def test_one_serial_renewed_twice_with_another_csr_is_a_clone(tmp_path: Path) -> None:
    alices, bobs = paths = await joined(tmp_path, "bob")
    later(paths, wall_clock() + HOUR)
    async with linked(alices, bobs) as (alice, bob):
        hosting, own = alice.node.seat._hosting, certificate(bob)
        assert hosting is not None
        first = renewal_of(bob)
        assert (await hosting.renew(first, own)).approved
        assert (await hosting.renew(first, own)).approved  # a retry
        moved = replace(first, not_before=first.not_before - HOUR / 2)
        assert (await hosting.renew(moved, own)).reason is Reason.CLONED_IDENTITY


async def test_a_node_renews_no_certificate_of_another(tmp_path: Path) -> None:
    alices, bobs = paths = await joined(tmp_path, "bob")
    later(paths, wall_clock() + HOUR)
    async with linked(alices, bobs) as (alice, bob):
        hosting = alice.node.seat._hosting
        assert hosting is not None
        strange = renewal_of(bob, csr=build_request(Ed25519Signer(seed("somebody")), "bob"))
        assert (await hosting.renew(strange, certificate(bob))).reason is Reason.WRONG_AUTHOR
        other = replace(renewal_of(bob), serial=certificate(alice).serial)
        assert (await hosting.renew(other, certificate(bob))).reason is Reason.NOT_ALLOWED


async def test_a_node_without_a_share_renews_nobody(tmp_path: Path) -> None:
    alices, bobs = paths = await joined(tmp_path, "bob")
    later(paths, wall_clock() + HOUR)
    async with linked(alices, bobs) as (alice, bob):
        hosting = bob.node.seat._hosting
        assert hosting is not None
        assert (await hosting.renew(renewal_of(alice), certificate(alice))).reason is Reason.NOT_A_SIGNER
        assert bob.node.seat.ledger.renewals.replaced == {}


async def test_a_renewal_is_bound_on_the_disk_before_it_is_approved(tmp_path: Path) -> None:
    alices, bobs = paths = await joined(tmp_path, "bob")
    later(paths, wall_clock() + HOUR)
    async with linked(alices, bobs) as (alice, bob):
        own, first = certificate(bob), renewal_of(bob)
        hosting = alice.node.seat._hosting
        assert hosting is not None
        assert (await hosting.renew(first, own)).approved
    async with linked(alices, bobs) as (alice, bob):  # it outlives a restart
        hosting = alice.node.seat._hosting
        assert hosting is not None
        if certificate(bob).serial == own.serial:
            moved = replace(first, not_before=first.not_before - HOUR / 2)
            assert (await hosting.renew(moved, own)).reason is Reason.CLONED_IDENTITY


async def test_nobody_who_could_renew_is_said_so_and_tried_again(tmp_path: Path) -> None:
    _alices, bobs = paths = await joined(tmp_path, "bob")
    later(paths, wall_clock() + 17 * HOUR)
    async with opened(bobs) as bob:
        with pytest.raises(OverlayError, match="0 of 1 signers renew"):
            await bob.node.authority.renew()
        alarm = await bob.heard(AuthorityAlarm)
        assert alarm.reason is Reason.CERTIFICATE_EXPIRED
        assert isinstance(bob.node.seat.renewing, Renewing)


async def test_a_finish_that_nobody_approved_is_signed_by_nobody_else(tmp_path: Path) -> None:
    alices, bobs = paths = await joined(tmp_path, "bob")
    later(paths, wall_clock() + HOUR)
    async with linked(alices, bobs) as (alice, bob):
        hosting = alice.node.seat._hosting
        assert hosting is not None
        wrong = replace(renewal_of(bob), finish=Finish((alice.node.node_id,)), serial=1)
        assert (await hosting.renew(wrong, certificate(bob))).bundle is None
        assert alice.all(CertificateSigned) == []


async def test_a_renewal_that_was_begun_a_day_ago_and_signed_by_nobody_is_begun_anew(tmp_path: Path) -> None:
    alices, bobs = paths = await joined(tmp_path, "bob")
    later(paths, wall_clock() + HOUR)
    async with linked(alices, bobs) as (alice, bob):
        hosting, old = alice.node.seat._hosting, certificate(bob)
        assert hosting is not None
        assert (await hosting.renew(renewal_of(bob), old)).approved  # and never finished: too few others, say
    later(paths, wall_clock() + 27 * HOUR)
    async with opened(alices) as alice, opened(bobs, alice) as bob:
        await alice.heard(CertificateSigned)
        await met(alice, bob)
        assert certificate(bob).serial != old.serial and not certificate(bob).in_grace


async def test_a_copy_of_a_node_that_has_renewed_is_noticed_also_a_day_later(tmp_path: Path) -> None:
    alices, bobs = paths = await joined(tmp_path, "bob")
    later(paths, wall_clock() + HOUR)
    async with linked(alices, bobs) as (alice, bob):
        old, request = certificate(bob), bob.node.seat.parts.make_request()
        await bob.node.authority.renew()
    later(paths, wall_clock() + 27 * HOUR)
    async with opened(alices) as alice:
        hosting, at = alice.node.seat._hosting, alice.node.seat.parts.at().replace(microsecond=0)
        assert hosting is not None
        copied = Renewal(csr=request, serial=old.serial, not_before=at)
        assert (await hosting.renew(copied, old)).reason is Reason.CLONED_IDENTITY
        async with opened(bobs, alice) as bob:  # which renews its own, the one after that
            await met(alice, bob)
            assert not certificate(bob).in_grace
            assert (await hosting.renew(copied, old)).reason is Reason.CLONED_IDENTITY


async def test_a_signature_that_is_never_asked_for_frees_what_was_bound_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signer, "NONCE_LIFE", 0.2)
    alices, bobs = paths = await joined(tmp_path, "bob")
    later(paths, wall_clock() + HOUR)
    async with linked(alices, bobs) as (alice, bob):
        seat, old, first = alice.node.seat, certificate(bob), renewal_of(bob)
        serial, keys = serial_bytes(old.serial), [seat.ledger.chain.newest_root.issuer.spki]
        assert seat._hosting is not None
        assert (await seat._hosting.renew(first, old)).approved
        [held] = seat.keeper.approvals.renewals.values()
        request = seat.keeper.approvals.request_for_renewal(*held)
        asked = SignRequest(0, pack_request(request)).pack()
        seat.keeper.desk.heard(RoundMessage(
            sender=bob.node.node_id, to=alice.node.node_id, session=bytes(16), kind=RoundKind.SIGN_REQUEST, body=asked, raw=b"",
        ))  # fmt: skip
        await until(lambda: seat.ledger.bindings.is_renewed(serial, keys))
        await until(lambda: not seat.ledger.bindings.is_renewed(serial, keys))
