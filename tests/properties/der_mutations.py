"""Changes to DER that know its structure, so that they reach what bytes changed at random seldom do."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field

SEQUENCE, OCTETS, BITS, OID, UTC_TIME, GENERAL_TIME = 0x30, 0x04, 0x03, 0x06, 0x17, 0x18
TAGS = (0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0A, 0x0C, 0x13, 0x16, 0x17, 0x18, 0x30, 0x31, 0x80, 0x81, 0x82, 0x86, 0xA0, 0xA3)
ED25519 = bytes.fromhex("06032b6570")
OIDS = tuple(
    bytes.fromhex(text)
    for text in (
        "2b6570",  # Ed25519
        "2b6571",  # Ed448
        "2a8648ce3d0201",  # EC public key
        "2a8648ce3d030107",  # P-256
        "2a8648ce3d040302",  # ECDSA with SHA-256
        "550403",  # common name
        "55040a",  # organization
        "551d0e",  # subject key identifier
        "551d0f",  # key usage
        "551d11",  # subject alternative name
        "551d12",  # issuer alternative name
        "551d13",  # basic constraints
        "551d14",  # CRL number
        "551d15",  # reason
        "551d18",  # invalidity date
        "551d1b",  # delta CRL
        "551d1c",  # issuing distribution point
        "551d1d",  # certificate issuer
        "551d1e",  # name constraints
        "551d20",  # policies
        "551d23",  # authority key identifier
        "551d25",  # extended key usage
        "2b06010505070301",  # server authentication
        "2b06010505070303",  # code signing
    )
)
TIMES = (
    (UTC_TIME, b"260301115900Z"),
    (UTC_TIME, b"260301120000Z"),
    (UTC_TIME, b"260301130000Z"),
    (UTC_TIME, b"260401120000Z"),
    (UTC_TIME, b"250301120000Z"),
    (UTC_TIME, b"700101000000Z"),
    (UTC_TIME, b"2603011200Z"),
    (UTC_TIME, b"260301120000+0100"),
    (UTC_TIME, b"261301120000Z"),
    (GENERAL_TIME, b"20260301120000Z"),
    (GENERAL_TIME, b"20260301130000Z"),
    (GENERAL_TIME, b"20600301120000Z"),
    (GENERAL_TIME, b"20260301120000.5Z"),
    (GENERAL_TIME, b"99991231235959Z"),
)


@dataclass
class Node:
    """One value: its children if it has any, else its content."""

    tag: int
    content: bytes = b""
    children: list["Node"] = field(default_factory=list)
    nested: bool = False  # constructed, or an octet string that holds DER
    padding: int = 0  # bytes that the length has too many

    def write(self) -> bytes:
        """DER, unless a change made it something else."""
        body = b"".join(child.write() for child in self.children) if self.nested else self.content
        return bytes([self.tag]) + _length(len(body), self.padding) + body

    def everything(self) -> list["Node"]:
        """This one and all below."""
        return [self, *(node for child in self.children for node in child.everything())]


def _length(size: int, padding: int) -> bytes:
    if size < 0x80 and not padding:
        return bytes([size])
    digits = size.to_bytes(max(1, (size.bit_length() + 7) // 8), "big")
    digits = bytes(padding - 1) + digits if padding else digits
    return bytes([0x80 | len(digits)]) + digits


def parse(data: bytes) -> Node:
    """One value and nothing after it; raises ValueError."""
    node, rest = _one(data)
    if rest:
        raise ValueError("something follows")
    return node


def _one(data: bytes) -> tuple[Node, bytes]:
    if len(data) < 2:
        raise ValueError("short")
    tag, size, start = data[0], data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    body, rest = data[start : start + size], data[start + size :]
    if len(body) != size or not tag:
        raise ValueError("short")
    if tag & 0x20:
        return Node(tag, children=_several(body), nested=True), rest
    if tag == OCTETS:
        try:
            return Node(tag, children=[parse(body)], nested=True), rest
        except ValueError:
            pass
    return Node(tag, body), rest


def _several(data: bytes) -> list[Node]:
    found = []
    while data:
        node, data = _one(data)
        found.append(node)
    return found


# --- changes --------------------------------------------------------------------------------------------------------


def mutate(der: bytes, source: random.Random) -> bytes:
    """The value with one or two changes somewhere in it: never the same value."""
    changed = der
    while changed == der:
        tree = parse(der)
        for _ in range(source.choice([1, 1, 1, 2])):
            node = source.choice(tree.everything())
            source.choice(_CHANGES)(node, source)
        changed = tree.write()
    return changed


def _drop(node: Node, source: random.Random) -> None:
    if node.children:
        del node.children[source.randrange(len(node.children))]


def _repeat(node: Node, source: random.Random) -> None:
    if node.children:
        node.children.insert(source.randrange(len(node.children) + 1), source.choice(node.children))


def _shuffle(node: Node, source: random.Random) -> None:
    source.shuffle(node.children)


def _empty(node: Node, source: random.Random) -> None:
    node.children, node.content = [], b""


def _retag(node: Node, source: random.Random) -> None:
    node.tag = source.choice(TAGS)


def _pad_length(node: Node, source: random.Random) -> None:
    node.padding = source.randint(1, 2)


def _flip(node: Node, source: random.Random) -> None:
    if node.content:
        place = source.randrange(len(node.content))
        changed = bytearray(node.content)
        changed[place] ^= 1 << source.randrange(8)
        node.content = bytes(changed)


def _lengthen(node: Node, source: random.Random) -> None:
    if not node.nested:
        node.content = source.choice([node.content + b"\0", b"\0" + node.content, node.content * 2, node.content[:-1]])


def _insert(node: Node, source: random.Random) -> None:
    if node.nested:
        values = [Node(0x05), Node(0x01, b"\xff"), Node(0x01, b"\0"), Node(0x02, b"\0"), Node(SEQUENCE, nested=True)]
        new = source.choice(values)
        node.children.insert(source.randrange(len(node.children) + 1), new)


def _of_kind(tags: tuple[int, ...], change: Callable[[Node, random.Random], None]) -> Callable[[Node, random.Random], None]:
    def somewhere(node: Node, source: random.Random) -> None:
        found = [one for one in node.everything() if one.tag in tags and not one.nested]
        if found:
            change(source.choice(found), source)

    return somewhere


def _set_oid(node: Node, source: random.Random) -> None:
    node.content = source.choice(OIDS)


def _set_time(node: Node, source: random.Random) -> None:
    node.tag, node.content = source.choice(TIMES)


def _set_truth(node: Node, source: random.Random) -> None:
    node.content = source.choice([b"\0", b"\x01", b"\xff"])


def _set_number(node: Node, source: random.Random) -> None:
    long = [b"\x7f" * 20, b"\x80" * 20, b"\0" + node.content]
    node.content = source.choice([b"\0", b"\x01", b"\x02", b"\xff", b"\0\x01", *long])


def _set_bits(node: Node, source: random.Random) -> None:
    node.content = source.choice([b"\x07\x80", b"\x01\x06", b"\x02\x04", b"\0\xff", b"\x07\x00", b"\0"]) + node.content[2:]


_CHANGES: tuple[Callable[[Node, random.Random], None], ...] = (
    _drop, _repeat, _shuffle, _empty, _retag, _pad_length, _flip, _flip, _lengthen, _insert, _of_kind((OID,), _set_oid),
    _of_kind((UTC_TIME, GENERAL_TIME), _set_time), _of_kind((0x01,), _set_truth), _of_kind((0x02, 0x0A), _set_number),
    _of_kind((BITS,), _set_bits),
)  # fmt: skip


def signed(content: bytes, signature: bytes) -> bytes:
    """The envelope, around anything at all."""
    algorithm = Node(SEQUENCE, children=[parse(ED25519)], nested=True).write()
    bits = Node(BITS, b"\0" + signature).write()
    body = content + algorithm + bits
    return bytes([SEQUENCE]) + _length(len(body), 0) + body
