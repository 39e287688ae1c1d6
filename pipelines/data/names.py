"""Names of modalities as their sources write them, and the keys that carry them in files, settings and results.

A key consists of ASCII letters, digits, `_` and `-`. A name that is a valid key is its own key; other names in ASCII
get `_` in place of each other character. All other names, reserved ones and those whose key is taken get a key with a
hash of the name: 基因 → m_3304479d.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any

from postprior.pipelines.data.manifest import OPTIONAL

KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
STEM, DIGITS = 40, 8  # greatest number of readable characters, and of digits of the hash, in a key with a hash
DEVICES = {"con", "prn", "aux", "nul", *(f"{port}{digit}" for port in ("com", "lpt") for digit in range(10))}
"""Names that files must not have on Windows."""
WORDS = {"error", "observed"}
"""Names that DVC takes for a failure, and that archives of conditional generation use for something else."""
RESERVED = frozenset((*OPTIONAL, *DEVICES, *WORDS))
ATTRIBUTES = re.compile(
    r"T_destination|add_module|apply|bfloat16|buffers|call_super_init|children|clear|compile|cpu|cuda|double|dump_patches"
    r"|eval|extra_repr|float|forward|(get|set)_(buffer|extra_state|parameter|submodule)|half|ipu|items|keys"
    r"|load_state_dict|modules|mtia|(named_)?(buffers|children|modules|parameters)|pop|register_\w+|requires_grad_"
    r"|share_memory|state_dict|to|to_empty|train|training|type|update|values|xpu|zero_grad"
)
"""Names that parts of a PyTorch module must not have."""


def composed(names: Any) -> Any:
    """Return a name, or a collection of names, in Unicode's composed form (NFC): macOS decomposes names of files.

    >>> composed("re\u0301sume\u0301") == "r\xe9sum\xe9"
    True
    """
    if isinstance(names, str):
        return unicodedata.normalize("NFC", names)
    if isinstance(names, Mapping):
        return {composed(name): composed(value) for name, value in names.items()}
    return type(names)(map(composed, names)) if type(names) in (tuple, frozenset) else names


def keys_of(names: Iterable[str]) -> dict[str, str]:
    """Return the keys of different names, which also differ when capital and small letters are the same.

    >>> keys_of(["rna", "rna seq", "RNA", "labels", "基因"])
    {'rna': 'rna', 'rna seq': 'rna_seq', 'RNA': 'rna_0b51a0ae', 'labels': 'labels_d772ebb4', '基因': 'm_3304479d'}
    """
    keys: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names := list(names), key=lambda name: not KEY.fullmatch(name)):  # own keys are given out first
        key = re.sub(r"[^A-Za-z0-9_-]", "_", name) if name.isascii() else ""
        reserved = key.lower() in RESERVED or ATTRIBUTES.fullmatch(key)
        if not KEY.fullmatch(key) or reserved or key.lower() in taken:
            key = _with_hash(name, taken)
        keys[name] = key
        taken.add(key.lower())
    return {name: keys[name] for name in names}


def _with_hash(name: str, taken: set[str]) -> str:
    """Return the readable part of a name with the first digits of its hash, more of them if that key is taken."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9]+", "_", plain)[:STEM].strip("_").lower() or "m"
    digest = sha256(name.encode()).hexdigest()
    return next(key for n in range(DIGITS, len(digest)) if (key := f"{stem}_{digest[:n]}") not in taken)
