"""Text to token ids and back (`bpe`), how the vocabulary is learned (`training`), how it is stored (`tokenizer_json`),
and how a conversation becomes ids and a loss mask (`chat`). Read them in that order. What makes them fast on a hundred
megabytes is beside them: `counting` and `merging` do what `training` says with arrays, `bulk` encodes whole corpora."""

from nanochat.tokenizer.bpe import PATTERN, Tokenizer
from nanochat.tokenizer.bulk import BulkEncoder
from nanochat.tokenizer.chat import (
    SPECIALS,
    Call,
    Conversation,
    Message,
    Output,
    Part,
    Rendered,
    Role,
    Text,
    check,
    conversation_from_json,
    conversation_to_json,
    message,
    prompt,
    read_call,
    read_reply,
    render,
    well_formed,
)
from nanochat.tokenizer.training import train_tokenizer

__all__ = [
    "PATTERN",
    "SPECIALS",
    "BulkEncoder",
    "Call",
    "Conversation",
    "Message",
    "Output",
    "Part",
    "Rendered",
    "Role",
    "Text",
    "Tokenizer",
    "check",
    "conversation_from_json",
    "conversation_to_json",
    "message",
    "prompt",
    "read_call",
    "read_reply",
    "render",
    "train_tokenizer",
    "well_formed",
]
