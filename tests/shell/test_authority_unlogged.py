"""Certificates that t signers have signed without a word: whoever is linked to such a node gives the alarm."""

from pathlib import Path

import pytest

from overlay.errors import Refused
from overlay.events import AuthorityAlarm
from overlay.registry import Reason
from tests.shell.authority_kit import until
from tests.shell.test_authority_ceremonies import distributed, signers


def is_unlogged(event: AuthorityAlarm) -> bool:
    return event.reason is Reason.UNLOGGED_CERTIFICATE




async def test_a_certificate_that_its_signers_keep_quiet_about_raises_an_alarm(tmp_path: Path) -> None:
    async with signers(tmp_path) as nodes:
        await distributed(nodes)
        alice, bob, carol = nodes
        watching, shown = carol.node.seat.watching, carol.node.seat.certificates_of_newest_root
        await until(lambda: all(watching.logs(one) >= 2 for one in shown()))
        for one in nodes:
            one.node.seat.keeper.desk._note = lambda _event: None  # thieves write nothing
        renewed = await bob.node.seat.renewing.renew()
        await until(lambda: any(one.serial == renewed.serial for one in shown()))
        assert watching.logs(renewed) == 0
        watching._look()
        assert not carol.all(AuthorityAlarm, is_unlogged), "logs travel for ten minutes"
        watching.issuance.patience = 0.0
        watching._look()
        watching._look()
        [alarm] = carol.all(AuthorityAlarm, is_unlogged)
        assert alarm.node == str(bob.node.node_id) and "0 of 2 logs" in alarm.detail
        with pytest.raises(Refused) as refused:
            await alice.node.authority.audit()
        assert refused.value.reason is Reason.UNLOGGED_CERTIFICATE


async def test_honest_signers_raise_no_alarm_not_even_after_the_key_has_gone_to_others(tmp_path: Path) -> None:
    async with signers(tmp_path, "dave") as nodes:
        await distributed(nodes, names=("alice", "bob", "carol"))
        alice, bob, _carol, dave = nodes
        await alice.node.authority.reshare(["alice", "carol", "dave"], 2)
        await until(lambda: all(one.node.seat.ledger.is_signer(dave.node.node_id) for one in nodes))
        for one in (alice, bob, dave):
            watching, shown = one.node.seat.watching, one.node.seat.certificates_of_newest_root
            await until(lambda w=watching, shown=shown: len(shown()) == 4 and all(w.logs(x) >= 2 for x in shown()))
            watching.issuance.patience = 0.0
            watching._look()
            assert not one.all(AuthorityAlarm, is_unlogged)
        assert (await alice.node.authority.audit()).fields["unlogged"] == []
