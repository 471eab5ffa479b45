"""What files, variables and nodes may be called in work. A name that could mean another place is refused as it is read.

The worker puts files under these names into a folder of the run, so a name is one plain word of ASCII: no separator, no
`.` or `..`, nothing hidden, no control character, no two spellings of one letter.
"""

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

from overlay.core.certificate_profile import is_name
from overlay.core.keys import NodeId
from overlay.core.wire import malformed

FILE_NAME_MAX: Final = 100  # bytes: our guess; file systems take 255
VARIABLE_MAX: Final = 128  # bytes: our guess
TEXT_MAX: Final = 4096  # bytes of one argument or value: our guess
STDOUT: Final = "stdout"
STDERR: Final = "stderr"
STREAMS: Final = frozenset({STDOUT, STDERR})  # what every run writes, so no file of a workload is called so

_FILE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")


def is_file_name(text: str) -> bool:
    """Whether an input or an output may be called so."""
    return _FILE.fullmatch(text) is not None and text.lower() not in STREAMS


def check_file_names(names: Sequence[str]) -> None:
    """Each is a good name, and none is there twice. Raises Refused(MALFORMED)."""
    for name in names:
        if not is_file_name(name):
            malformed(f"no file may be called {name[:FILE_NAME_MAX]!r}")
    if len({name.lower() for name in names}) != len(names):
        malformed("two files of one name")


def check_variables(names: Sequence[str]) -> None:
    """Names of variables of the environment, rising. Raises Refused(MALFORMED)."""
    for name in names:
        if not _VARIABLE.fullmatch(name):
            malformed(f"no variable may be called {name[:VARIABLE_MAX]!r}")
    check_rising(names, "variables")


def check_texts(texts: Sequence[str]) -> None:
    """What the kernel takes as argument or value. Raises Refused(MALFORMED)."""
    if any("\0" in text for text in texts):
        malformed("a zero byte in an argument or a value")


def check_label(text: str) -> None:
    """How people call a workload: as a node is called. Raises Refused(MALFORMED)."""
    if not is_name(text):
        malformed("a workload is called as a node may be: 1 to 63 of a-z, 0-9 and inner hyphens")


def check_nodes(nodes: Sequence[NodeId], names: Sequence[str]) -> None:
    """Nodes by id and by name, each rising. Raises Refused(MALFORMED)."""
    if not all(is_name(name) for name in names):
        malformed("no node may be called so")
    check_rising(nodes, "nodes")
    check_rising(names, "names of nodes")


def check_rising(keys: Sequence[Any], what: str) -> None:
    """Sorted, none twice: one meaning has one encoding. Raises Refused(MALFORMED)."""
    if any(first >= second for first, second in pairwise(keys)):
        malformed(f"{what} are sorted, none is there twice")
