"""What `overlay invite` prints: one string with all that a machine needs to find the mesh, to know it, and to join it once.

    text  = base32, lower case, of u16 length of data || data || the first 4 bytes of H("overlay/1 token\\0" || length || data)
    data  = {0:1, 1:mesh_id, 2:root_hash, 3:gate key number, 4:gate key, 5:seed32, 6:invite, 7:[address, ...]}

A token names the newest root, always: there is no form without. Case, spaces, line breaks and hyphens do not count. The
invite is an order; here stands only what the seed does not give (`invite_in_token.py`). The checksum finds slips, it proves
nothing: whoever can change a token on its way can lead the joiner to another mesh.
"""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, NoReturn

from overlay.core.authority.order_bodies import Invite
from overlay.core.authority.orders import SignedOrder, UnverifiedOrder, parse_order
from overlay.core.certificates import TOLERANCE, show_time
from overlay.core.invite_in_token import INVITE, fold_invite, unfold_invite
from overlay.core.keys import MeshId, base32, from_base32
from overlay.core.mesh.found import Address
from overlay.core.token_addresses import ADDRESSES, pack_address, unpack_address
from overlay.core.wire import Bytes, UInt, make_map, open_map, sha256
from overlay.errors import Refused
from overlay.registry import Label, Reason

DATA_MAX: Final = 4096  # our guess: one with all roles and eight addresses has 2 KiB
TEXT_MAX: Final = 64 * 1024  # our guess: with any breaks and indents of a mail
LENGTH_SIZE: Final = 2
CHECKSUM_SIZE: Final = 4  # one slip in four thousand million goes through
HEAD_LETTERS: Final = 4  # that hold the length

_FILLING: Final = re.compile(r"[\s-]+")
_LETTERS: Final = re.compile(r"[a-z2-7]+")
_COPY: Final = "copy the whole of it, from the first letter to the last"
_AGAIN: Final = "have an operator make another one with `overlay invite`"
_FORM: Final = (Bytes(32), Bytes(32), UInt(2**32 - 1), Bytes(32), Bytes(32), INVITE, ADDRESSES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """All of it, for people's clipboards: whoever reads it may join. Nothing in it is verified."""

    mesh_id: MeshId
    root_hash: bytes  # 32: SHA-256 of the key of the newest root
    gate_number: int
    gate_key: bytes = field(repr=False)  # 32
    seed: bytes = field(repr=False)  # 32: of the join key
    invite: bytes = field(repr=False)  # the order, COSE_Sign1, as JOIN carries it
    addresses: tuple[Address, ...] = ()  # where members may be found, beside the LAN

    @property
    def order(self) -> UnverifiedOrder:
        """The invite. Signers verify it; the joiner reads in it what it asks for."""
        return parse_order(self.invite)

    @property
    def says(self) -> Invite:
        """What the invite promises."""
        body = self.order.says.body
        assert isinstance(body, Invite)  # as both ways to make a token see to
        return body

    def __post_init__(self) -> None:
        """Raises ValueError where the invite is none, or is for another seed."""
        order = self.order
        if unfold_invite(fold_invite(order), self.seed, self.mesh_id) != self.invite:
            raise ValueError("the invite belongs to another seed or mesh")

    @classmethod
    def of(
        cls, signed: SignedOrder, *, mesh_id: MeshId, root_hash: bytes, gate: tuple[int, bytes], seed: bytes,
        addresses: tuple[Address, ...] = (),
    ) -> "Token":
        """For an invite that an operator has just signed. `gate`: number and key."""
        return cls(
            mesh_id=mesh_id, root_hash=root_hash, gate_number=gate[0], gate_key=gate[1], seed=seed,
            invite=signed.cose, addresses=addresses,
        )  # fmt: skip

    def to_text(self) -> str:
        """The string."""
        addresses = [pack_address(one) for one in self.addresses]
        data = make_map(
            self.mesh_id, self.root_hash, self.gate_number, self.gate_key, self.seed, fold_invite(self.order), addresses
        )
        framed = len(data).to_bytes(LENGTH_SIZE, "big") + data
        return base32(framed + _checksum(framed))

    def check_time(self, at: datetime) -> None:
        """Whether the invite is in force. Raises Refused: BAD_TOKEN, CLOCK."""
        order = self.order.says
        if at + TOLERANCE < order.not_before:
            raise Refused(Reason.CLOCK, f"the token is from {show_time(order.not_before)}, it is now {show_time(at)}")
        if at - TOLERANCE > order.not_after:
            _bad(f"it expired on {show_time(order.not_after)}, it is now {show_time(at)}", _AGAIN)

    def check_mesh(self, mesh_id: MeshId) -> None:
        """For a machine that is in a mesh already. Raises Refused(OTHER_MESH)."""
        if mesh_id != self.mesh_id:
            raise Refused(
                Reason.OTHER_MESH, f"the token is for mesh {self.mesh_id.short}, this node is in {mesh_id.short}",
                hint="join with another state folder",
            )  # fmt: skip


def parse_token(text: str) -> Token:
    """Read the string as people paste it.

    Raises:
        Refused: BAD_TOKEN, with a hint; UNSUPPORTED for one of another version.
    """
    if len(text) > TEXT_MAX:
        _bad("it is too long", _COPY)
    data = _checked(_FILLING.sub("", text).lower())
    try:
        mesh_id, root_hash, number, gate_key, seed, invite, addresses = open_map(data, *_FORM, limit=DATA_MAX)
        return _token(MeshId(mesh_id), root_hash, (number, gate_key), seed, invite, addresses)
    except Refused as error:
        if error.reason is Reason.UNSUPPORTED:
            hint = "use the same version of overlay here and where the token was made"
            raise Refused(Reason.UNSUPPORTED, "a token of another version", hint=hint) from None
        _bad(error.detail, _AGAIN)


def _token(
    mesh_id: MeshId, root_hash: bytes, gate: tuple[int, bytes], seed: bytes, invite: list[Any], addresses: list[Any]
) -> Token:
    raw = unfold_invite(invite, seed, mesh_id)
    return Token(
        mesh_id=mesh_id, root_hash=root_hash, gate_number=gate[0], gate_key=gate[1], seed=seed, invite=raw,
        addresses=tuple(unpack_address(one) for one in addresses),
    )  # fmt: skip


def _checked(letters: str) -> bytes:
    """The data, once length and checksum have shown that it is whole and as it was printed."""
    if not letters:
        _bad("it is empty", _COPY)
    if _LETTERS.fullmatch(letters) is None:
        _bad("it has characters that no token has", "a token has the letters a to z and the digits 2 to 7")
    if len(letters) < HEAD_LETTERS:
        _bad("it is cut short", _COPY)
    head = from_base32(letters[:HEAD_LETTERS].ljust(8, "a"))  # eight letters are five bytes, whatever the letters
    wanted = _letters_for(int.from_bytes(head[:LENGTH_SIZE], "big"))
    if len(letters) < wanted:
        _bad(f"it is cut short: {len(letters)} letters of {wanted}", _COPY)
    if len(letters) > wanted:
        _bad(f"it has {len(letters)} letters where {wanted} belong to it", _COPY)
    try:
        framed = from_base32(letters)
    except ValueError:
        _altered()
    if _checksum(framed[:-CHECKSUM_SIZE]) != framed[-CHECKSUM_SIZE:]:
        _altered()
    return framed[LENGTH_SIZE:-CHECKSUM_SIZE]


def _letters_for(size: int) -> int:
    return -(-(LENGTH_SIZE + size + CHECKSUM_SIZE) * 8 // 5)


def _checksum(framed: bytes) -> bytes:
    return sha256(Label.TOKEN, framed)[:CHECKSUM_SIZE]


def _altered() -> NoReturn:
    _bad("its checksum does not fit: a letter was changed", _COPY)


def _bad(detail: str, hint: str) -> NoReturn:
    raise Refused(Reason.BAD_TOKEN, detail, hint=hint)
