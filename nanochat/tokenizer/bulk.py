"""Many texts at once: the ids of `Tokenizer.encode`, by the quickest library that is installed.

Whole corpora are worth a compiled encoder. `fastokens` (Rust) works on all cores and gives arrays; `tiktoken` (Rust)
works on one; where neither is installed, our own does it. All of them get our merges and our pattern, and none is told
about special tokens, so that no text can become one.

A library has its own tables of what is a letter. Before one is believed it must give our ids for a probe of many
scripts and signs, and for the spelling of every token; one that does not, or cannot read our pattern, is passed over.
"""

import json
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from nanochat.tokenizer.bpe import Tokenizer, repair_surrogates
from nanochat.tokenizer.tokenizer_json import build

Ids = npt.NDArray[np.uint32]
Lengths = npt.NDArray[np.int64]
EncodeMany = Callable[[Sequence[str]], tuple[Ids, Lengths]]

PROBE = (
    "It's 12345 o'clock, they'LL say: \"don't!\"  \n\n\t\tx = y[0] != None  # so-called\r\n   \r\n (end) ",
    "Grüße, naïve İstanbul ǅ ﬁ; Съешь ещё; 敏捷的棕色狐狸。カタカナ 다람쥐; हिन्दी ไทย; عربيّ ١٢٣",
    "e\u0301 \u00a0x\u3000y\u200bz",
    "👩‍👩‍👧‍👦 👍🏽 🇩🇪 ❤️ 1️⃣ ½ Ⅷ ² (╯°□°)╯︵ ┻━┻ \x00\x1c\x1f\x7f\x85\u2028!\u0301a !!\u0301a",
    " \n" * 50 + "a" * 500 + "=" * 500 + "7" * 501,
)


class BulkEncoder:
    """What a tokenizer encodes, many texts in one call. `backend` is the library that does it."""

    def __init__(self, tokenizer: Tokenizer, backends: Sequence[str] = ("fastokens", "tiktoken")) -> None:
        """Takes the first of `backends` that is installed and gives the ids of `tokenizer`, else our own encoder."""
        self.vocab_size, self.fingerprint = tokenizer.vocab_size, tokenizer.fingerprint
        self.backend, self._encode = "nanochat", plain_encoder(tokenizer)
        makers = {"fastokens": fastokens_encoder, "tiktoken": tiktoken_encoder}
        for name in backends:
            encode = makers[name](tokenizer)
            if encode is not None and agrees(encode, tokenizer):
                self.backend, self._encode = name, encode
                break

    def encode_batch(self, texts: Sequence[str]) -> tuple[Ids, Lengths]:
        """(the ids of all texts, one after the other, how many each text has)."""
        return self._encode([repair_surrogates(text) for text in texts])


def agrees(encode: EncodeMany, tokenizer: Tokenizer) -> bool:
    """Whether a library gives our ids for the probe and for every token that is text."""
    tokens = map(tokenizer.token_bytes, range(256 + len(tokenizer.merges)))
    probe = [*PROBE, *(data.decode("utf-8", "ignore") for data in tokens)]
    ids, lengths = encode(probe)
    ours = [tokenizer.encode(text) for text in probe]
    same: bool = ids.tolist() == list(chain.from_iterable(ours))
    return same and lengths.tolist() == list(map(len, ours))


def plain_encoder(tokenizer: Tokenizer) -> EncodeMany:
    """Our own, one text after the other."""
    return lambda texts: joined([tokenizer.encode(text) for text in texts])


def tiktoken_encoder(tokenizer: Tokenizer) -> EncodeMany | None:
    """`tiktoken` with our vocabulary; None where it is not installed or cannot take it."""
    try:
        import tiktoken
    except ImportError:
        return None
    ranks = {tokenizer.token_bytes(token): token for token in range(256 + len(tokenizer.merges))}
    try:
        encoding = tiktoken.Encoding("ours", pat_str=tokenizer.pattern, mergeable_ranks=ranks, special_tokens={})
    except ValueError:  # its regular expressions know less than ours
        return None
    return lambda texts: joined([encoding.encode_ordinary(text) for text in texts])


def fastokens_encoder(tokenizer: Tokenizer) -> EncodeMany | None:
    """`fastokens` with our vocabulary; None where it is not installed or cannot take it."""
    try:
        import fastokens
    except ImportError:
        return None
    ordinary = [tokenizer.token_bytes(token) for token in range(256 + len(tokenizer.merges))]
    document = build(tokenizer.pattern, ordinary, tokenizer.merges, {})
    try:
        encoding: Any = fastokens.Tokenizer.from_json_str(json.dumps(document))
    except ValueError:
        return None

    def encode(texts: Sequence[str]) -> tuple[Ids, Lengths]:
        ids, offsets = encoding.encode_batch_flat(list(texts))
        ends = np.frombuffer(offsets, np.uint64).astype(np.int64)
        return np.frombuffer(ids, np.uint32), ends[1:] - ends[:-1]

    return encode


def joined(rows: Sequence[Sequence[int]]) -> tuple[Ids, Lengths]:
    """Lists of ids as one array, and their lengths."""
    lengths = np.fromiter(map(len, rows), np.int64, len(rows))
    ids = np.concatenate([np.empty(0, np.uint32), *(np.asarray(row, np.uint32) for row in rows)])
    return ids, lengths
