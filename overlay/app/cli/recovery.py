"""`overlay ca recover`: name a new authority by the recovery keys, when too many signers are lost for ever.

Keys are read and used in this process only: the node gets signatures. `--sign` needs neither node nor network.
"""

from contextlib import ExitStack
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import click

from overlay.app.authority.recovery_at_rest import propose_at_rest, submit_at_rest
from overlay.app.authority.recovery_commands import proposal_fields, proposal_lines
from overlay.app.cli.common import Invocation, chosen_tpm, run, standard_options
from overlay.app.client import connect_local
from overlay.app.identity import identity_signer
from overlay.app.output import note, plain, say, say_json
from overlay.core.certificates import show_time
from overlay.core.keys import Signer
from overlay.core.recovery_files import RecoveryKey, RecoveryProposal
from overlay.errors import UsageError
from overlay.net.system import wall_clock
from overlay.store.exchange import read_text, write_text
from overlay.store.state import IDENTITY_TPM, StateFolder, holder

STREAM: Final = "-"


@click.command()
@click.option("--key", "keys", metavar="FILE", type=Path, multiple=True, help="A recovery key that signs; again and again.")
@click.option("--sign", "to_sign", metavar="PROPOSAL", type=Path, help="Only sign this file, here, without a node.")
@click.option("--submit", "gathered", metavar="PROPOSAL", type=Path, multiple=True, help="Let everybody know of this file;"
              " more of them bring their signatures together.")  # fmt: skip
@click.option("-o", "--output", metavar="FILE", help="Write the proposal here, - for the output; it is not submitted then.")
@click.option("--dry-run", is_flag=True, help="Check everything, and change nothing.")
@standard_options
def recover(
    invocation: Invocation, keys: tuple[Path, ...], to_sign: Path | None, gathered: tuple[Path, ...], output: str | None,
    *, dry_run: bool,
) -> None:
    """Make this machine the authority of its mesh, when too many signers are lost. It takes recovery keys, and a day."""
    if to_sign is not None and (gathered or not keys):
        raise UsageError("--sign takes one proposal and keys", hint="overlay ca recover --sign PROPOSAL --key FILE")
    if gathered and output is not None:
        raise UsageError("what is submitted is not written to a file", hint="leave out --output, or --submit")
    asked = Recovery(invocation, dry_run=dry_run)
    if to_sign is not None:
        proposal = read_proposal(to_sign)
    elif gathered:
        proposal = read_proposal(gathered[0])
        for file in gathered[1:]:
            proposal = proposal.merged(read_proposal(file))
    else:
        proposal = asked.propose()
    for file in keys:
        proposal = proposal.signed_by(read_key(file))
    if gathered or (to_sign is None and output is None and keys):
        asked.submit(proposal)
    else:
        asked.write(proposal, output)


def read_key(file: Path) -> RecoveryKey:
    """Raises UsageError, Refused. Who else may read the file is not asked: a stick may know no permissions."""
    return RecoveryKey.from_text(read_text(file))


def read_proposal(file: Path) -> RecoveryProposal:
    """Raises UsageError, Refused."""
    return RecoveryProposal.from_text(read_text(file))


class Recovery:
    """One call of the command."""

    def __init__(self, invocation: Invocation, *, dry_run: bool) -> None:
        self._invocation = invocation
        self._dry_run = dry_run

    @property
    def _at_rest(self) -> bool:
        StateFolder.open(self._invocation.folder, exclusive=False).close()
        return holder(self._invocation.folder) is None

    # --- proposing --------------------------------------------------------------------------------------------------

    def propose(self) -> RecoveryProposal:
        """By the node that runs here, or by its folder."""
        if not self._at_rest:
            return RecoveryProposal.from_text(run(self._ask_for_proposal))
        with ExitStack() as stack:
            folder = stack.enter_context(StateFolder.open(self._invocation.folder, exclusive=True))

            def signer() -> Signer:
                has_tpm = folder.file(IDENTITY_TPM).exists()
                config = replace(self._invocation.config(), evidence="tpm" if has_tpm else "software")
                return identity_signer(folder, stack.enter_context(chosen_tpm(config)))

            return propose_at_rest(folder, signer, wall_clock(), dry_run=self._dry_run)

    async def _ask_for_proposal(self) -> str:
        async with connect_local(self._invocation.folder) as node:
            return str((await node.authority.recover(dry_run=self._dry_run)).fields["proposal"])

    def write(self, proposal: RecoveryProposal, output: str | None) -> None:
        """To a file or the output; what it says goes where people read."""
        if output not in (None, STREAM) and not self._dry_run:
            write_text(Path(str(output)), proposal.to_text(), private=False)
        if self._invocation.json:
            say_json(proposal_fields(proposal))
            return
        for line in proposal_lines(proposal):
            note(plain(line))
        if output in (None, STREAM) and not self._dry_run:
            say(proposal.to_text().rstrip("\n"))
        note(_next_step(proposal))

    # --- submitting -------------------------------------------------------------------------------------------------

    def submit(self, proposal: RecoveryProposal) -> None:
        """To the node that runs here, or into its folder."""
        if self._at_rest:
            self._submit_at_rest(proposal)
            return

        async def work() -> tuple[tuple[str, ...], dict[str, Any]]:
            async with connect_local(self._invocation.folder) as node:
                report = await node.authority.submit_recovery(proposal.to_text(), dry_run=self._dry_run)
                return report.said, dict(report.fields)

        said, fields = run(work)
        self._tell(said, fields)

    def _submit_at_rest(self, proposal: RecoveryProposal) -> None:
        with StateFolder.open(self._invocation.folder, exclusive=True) as folder:
            found = submit_at_rest(folder, proposal, wall_clock(), dry_run=self._dry_run)
        ends = found.waits_until(timedelta(seconds=self._invocation.config().recovery_wait))
        when = f"authority {proposal.contents.number} takes effect on {show_time(ends)} or later"
        said = f"{when}: start the node, it tells the others"
        fields = {**proposal_fields(proposal), "takes_effect": ends.isoformat(), "dry_run": self._dry_run}
        self._tell((f"dry run: {said}" if self._dry_run else said,), fields)

    def _tell(self, said: tuple[str, ...], fields: dict[str, Any]) -> None:
        if self._invocation.json:
            say_json(fields)
            return
        for line in said:
            say(plain(line))
        if not self._dry_run:
            note("every node raises an alarm now; until then signers of today can still answer with `overlay ca distribute`")


def _next_step(proposal: RecoveryProposal) -> str:
    if proposal.missing:
        how = "`overlay ca recover --sign PROPOSAL --key FILE`, on any machine, best one without a network"
        return f"{proposal.missing} more: {how}"
    return "enough keys have signed: `overlay ca recover --submit PROPOSAL` on a node of the mesh"
