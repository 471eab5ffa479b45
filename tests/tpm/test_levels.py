"""Whole nodes with TPMs of which a maker, or an operator, says what they are: the level of the certificate and of the link."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

pytest.importorskip("tpm2_pytss", reason="this host lacks tpm2-pytss")

from attest.areas import parse_area
from attest.tpm import Tpm
from overlay.app.authority import policy_commands
from overlay.app.authority.joining import join_mesh
from overlay.app.config import Config
from overlay.app.enrol import found_mesh
from overlay.core.certificate_profile import ek_tag
from overlay.core.certificates import VerifiedCertificate
from overlay.core.policy import Policy
from overlay.errors import OverlayError
from overlay.store.state import StateFolder
from tests.shell.authority_kit import PATIENCE, Running, opened, token_of
from tests.tpm.conftest import Swtpm, Tool
from tests.tpm.local_ca import LocalCa, store_chain

pytestmark = pytest.mark.tpm


@pytest.fixture
def authority(tmp_path: Path, swtpm: Swtpm, tpm: Tpm, tool: Tool) -> Iterator[LocalCa]:
    """A maker that has certified the EK of this TPM, and stored that in it."""
    maker = LocalCa.make(tmp_path / "maker")
    own = maker.certify(parse_area(tpm.endorsement_public()))
    store_chain(swtpm, tool, tmp_path, own, maker.between)
    yield maker


def founded_with(path: Path, policy: Policy) -> Path:
    with StateFolder.create(path / "alice") as folder:
        found_mesh(folder, "alice", "home", policy, None)
    return path / "alice"


async def joined(path: Path, host: Running, swtpm: Swtpm, tpm: Tpm) -> VerifiedCertificate:
    token = await token_of(host, name="bob")
    with StateFolder.create(path / "bob") as folder:
        return await join_mesh(folder, token, Config(mdns=False, tcti=swtpm.tcti), tpm, name="bob", patience=PATIENCE)


async def linked_level(path: Path, host: Running, swtpm: Swtpm) -> int:
    """How well bob's node is attested on its link."""
    async with opened(path / "bob", host, evidence="tpm", tcti=swtpm.tcti):
        with trio.fail_after(PATIENCE):
            return (await host.node.wait_peer("bob")).level


async def test_a_tpm_of_a_maker_whom_the_policy_names_has_level_4(
    tmp_path: Path, swtpm: Swtpm, tpm: Tpm, authority: LocalCa
) -> None:
    policy = Policy(version=1, mode=Policy.default().mode, ek_roots=(authority.root,))
    async with opened(founded_with(tmp_path, policy)) as alice:
        assert (await joined(tmp_path, alice, swtpm, tpm)).level == 4
        assert await linked_level(tmp_path, alice, swtpm) == 4


async def test_a_tpm_that_the_policy_lists_has_level_3_and_keeps_it_when_its_certificate_is_renewed(
    tmp_path: Path, swtpm: Swtpm, tpm: Tpm
) -> None:
    path = founded_with(tmp_path, Policy.default())
    async with opened(path) as alice:
        tag = ek_tag(alice.node.mesh_id, parse_area(tpm.endorsement_public()).name)
        await alice.node.authority.policy(f'version = 2\nmode = "learn"\nek_tags = ["{tag.hex()}"]\n')
        assert (await joined(tmp_path, alice, swtpm, tpm)).level == 3
        async with opened(tmp_path / "bob", alice, evidence="tpm", tcti=swtpm.tcti) as bob:
            with trio.fail_after(PATIENCE):
                assert (await alice.node.wait_peer("bob")).level == 3
            await bob.node.authority.renew()
            assert bob.node.engine.identity.verified.certificate.level == 3


async def test_a_tpm_for_which_nobody_vouches_does_not_join_where_level_4_is_wanted(
    tmp_path: Path, swtpm: Swtpm, tpm: Tpm, authority: LocalCa, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its maker has certified it, and no operator has named that maker."""
    assert len(tpm.endorsement_chain()) == 2 and authority.between in tpm.endorsement_chain()
    monkeypatch.setattr(policy_commands, "_check_own", lambda *_: None)  # alice, who has no TPM, may order it all the same
    async with opened(founded_with(tmp_path, Policy.default())) as alice:
        await alice.node.authority.policy('version = 2\nmode = "learn"\nminimum_level = 4\n')
        with pytest.raises(OverlayError, match="level_too_low") as refused:
            await joined(tmp_path, alice, swtpm, tpm)
        assert "overlay attest show" in refused.value.hint
