"""`overlay ca recover` in a folder whose node does not run: once its certificate has ended, a node may have no control socket.

What is submitted here is in the chain at the next start, and goes to whoever links. Every function blocks.
"""

import secrets
from collections.abc import Callable
from datetime import datetime

from overlay.app.authority.ledger import Ledger
from overlay.app.authority.recovering import SEED_SIZE, complete
from overlay.app.authority.recovery_proposals import Proposer, check_recoverable, make, prepare
from overlay.core.authority.recovery import Candidate
from overlay.core.authority.stored_chain import pack_chain
from overlay.core.authority.succession import AuthorityChain
from overlay.core.keys import IdentityKey, Signer
from overlay.core.recovery_files import RecoveryProposal
from overlay.errors import Refused, UsageError
from overlay.registry import Reason
from overlay.store.membership import load_mesh
from overlay.store.state import AUTHORITY, StateFolder


def propose_at_rest(
    folder: StateFolder, signer: Callable[[], Signer], at: datetime, *, dry_run: bool = False
) -> RecoveryProposal:
    """As `Recovering.propose`, without the ends of the old signers' logs. Raises UsageError, StateDamaged."""
    chain = _chain(folder)
    check_recoverable(chain)
    key = signer()
    by = Proposer(
        identity=IdentityKey.parse(key.spki), sign=key.sign, heads=lambda _members: (), seed=secrets.token_bytes(SEED_SIZE)
    )
    prepared = make(chain, by, at) if dry_run else prepare(folder, chain, by, at)
    return prepared.proposal


def submit_at_rest(folder: StateFolder, proposal: RecoveryProposal, at: datetime, *, dry_run: bool = False) -> Candidate:
    """As `Recovering.submit`. Raises UsageError, Refused, StateDamaged."""
    chain = _chain(folder)
    check_recoverable(chain)
    change = chain.with_object(complete(proposal, chain), at)
    found = next((one for one in change.chain.candidates if one.object.hash == proposal.hash), None)
    if found is None:
        raise Refused(Reason.BAD_AUTHORITY_OBJECT, f"the recovery does not count here: {change.outcome.value}")
    if not dry_run and change.chain != chain:
        folder.write(AUTHORITY, pack_chain(change.chain))
    return found


def _chain(folder: StateFolder) -> AuthorityChain:
    mesh = load_mesh(folder)
    if mesh is None:
        raise UsageError(f"{folder.path} belongs to no mesh")
    return Ledger(folder, mesh).chain
