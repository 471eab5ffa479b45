"""Has a new policy signed: an operator's node asks a signer, signers judge the policy, everybody takes the signed one."""

from dataclasses import dataclass
from typing import Final

from overlay.app.authority.keeper import Keeper
from overlay.core.authority.orders import OPERATOR
from overlay.core.authority.record_requests import PolicyRequest
from overlay.core.policy import Policy
from overlay.core.trust_update import TrustUpdate
from overlay.errors import NotAllowed, OverlayError, Refused
from overlay.net.node import Node
from overlay.net.request import Request
from overlay.registry import Reason

METHOD: Final = "overlay.policy"  # the call by which an operator's node asks a signer to have a policy signed
ASK_WITHIN: Final = 25.0  # seconds for one signer, which has to ask others


@dataclass(frozen=True, slots=True)
class PolicyDesk:
    """Has policies signed, for this node and for others that ask."""

    engine: Node
    keeper: Keeper

    async def serve(self, request: Request) -> bytes:
        """The service `overlay.policy`: an operator's node asks us, as a signer; gives the signed policy."""
        if OPERATOR not in request.peer.roles:
            raise NotAllowed("only operators ask for this")
        return await self._sign(Policy.unpack(request.body))

    async def put_in_force(self, policy: Policy) -> None:
        """Signed by us, if we have a share, else by the first signer that can; then everybody hears of it.

        Raises:
            Refused: NOT_ENOUGH_SIGNERS, with what was wrong.
        """
        engine, keeper = self.engine, self.keeper
        if keeper.ledger.share is not None:
            await self._sign(policy)
            return
        said = "no signer is linked"
        for member in keeper.ledger.chain.newest.member_ids:
            if engine.verified_peer(member) is None:
                continue
            try:
                raw = await engine.call(member, METHOD, policy.pack(), ASK_WITHIN)
                keeper.take_update(TrustUpdate(policy=raw))
            except OverlayError as error:
                said = f"{member.short}: {error}"
                continue
            await keeper.ledger.flush()
            return
        raise Refused(Reason.NOT_ENOUGH_SIGNERS, said, hint="`overlay ca status` shows which signers answer")

    async def _sign(self, policy: Policy) -> bytes:
        keeper = self.keeper
        raw = await keeper.desk.sign(PolicyRequest(policy.pack()))
        keeper.take_update(TrustUpdate(policy=raw))
        await keeper.ledger.flush()
        return raw
