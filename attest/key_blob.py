"""A key of a TPM as the state folder keeps it: the private part is encrypted for its parent in that TPM alone."""

from dataclasses import dataclass, field
from typing import Final

from attest.areas import PublicArea, parse_area
from overlay.core.wire import Bytes, make_map, open_map
from overlay.errors import Refused, StateDamaged

BLOB_MAX: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyBlob:
    """The contents of TPM2B_PRIVATE and the TPMT_PUBLIC."""

    private: bytes = field(repr=False)
    public: bytes = field(repr=False)

    @property
    def area(self) -> PublicArea:
        """The public area, parsed."""
        return parse_area(self.public)

    def pack(self) -> bytes:
        """{0:1, 1:private, 2:public}."""
        return make_map(self.private, self.public)

    @classmethod
    def unpack(cls, data: bytes) -> "KeyBlob":
        """Raises StateDamaged."""
        try:
            private, public = open_map(data, Bytes(1, BLOB_MAX), Bytes(1, BLOB_MAX), limit=2 * BLOB_MAX)
            parse_area(public)
        except Refused as error:
            hint = "restore the state folder from a backup, or enrol the node again"
            raise StateDamaged(f"not a key of a TPM: {error.detail}", hint=hint) from None
        return cls(private=private, public=public)
