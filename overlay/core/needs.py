"""Whether somebody may use a service or publish on a topic, by what the policy says it needs."""

from collections.abc import Sequence

from overlay.core.policy_parts import Need, Needs
from overlay.errors import Refused
from overlay.registry import Reason


def check_need(needs: Needs, need: Need | None, level: int, roles: Sequence[str]) -> None:
    """Somebody of this level, with these roles in the certificate. A role counts from the level that it needs itself.

    Raises:
        Refused: LEVEL_TOO_LOW or NOT_ALLOWED.
    """
    if need is None:
        return
    if level < need.level:
        raise Refused(Reason.LEVEL_TOO_LOW, f"level {level} where {need.level} is wanted for {need.name}")
    if need.roles and not any(role in need.roles and _counts(needs, role, level) for role in roles):
        raise Refused(Reason.NOT_ALLOWED, f"none of the roles {', '.join(need.roles)}, as {need.name} wants")


def _counts(needs: Needs, role: str, level: int) -> bool:
    own = needs.role(role)
    return own is None or level >= own.level
