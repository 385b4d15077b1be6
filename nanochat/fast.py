"""The model's pass over a few tokens as one call into C++ (fast.cpp), for CPUs: several times as fast as operators.

Taken one by one, a token's operators cost more to start than to compute, and its products, of one row, take as long as
their weights take to be read from memory. So here a pass is one call, on threads that wait for each other by looking
and not by sleeping; weights lie in the order in which they are read, in bfloat16 or int8 (LLM.int8(),
arXiv:2208.07339, has the idea; here all inputs of an output share one scale). The compiler that makes it is called once
a machine, when the first decoder is made; without one `decoder_for` says so, and the plain decoder does the same work.

Only weights are rounded. Features, sums and the cache are float32 or as good, so that bfloat16 weights give the
log-probabilities of the plain model in float32 with those weights, to 0.002, where the plain model in bfloat16, which
rounds after every operation, is off by up to 0.5.

Each row is computed for itself and in one order: its scores are the same bits whatever is read beside it.
"""

import ctypes
import warnings
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nanochat.answer import Drawn
from nanochat.attention import rotary_angles
from nanochat.decoder import Decoder, PlainDecoder, Run
from nanochat.engine import Engine
from nanochat.errors import DeviceError
from nanochat.gpt import GPT, Block
from nanochat.native import compiled
from nanochat.runtime import Runtime
from nanochat.sampling import Sampling

__all__ = ["FORMATS", "FastDecoder", "decoder_for"]

FORMATS = ("float32", "bfloat16", "int8")  # of weights; numbered as in fast.cpp
BLOCK = 32  # outputs of a block of weights
MOST = 256  # tokens of one pass
SOURCE = Path(__file__).with_name("fast.cpp")
FLAGS = ("-std=c++20", "-O3", "-pthread")


class Shape(ctypes.Structure):
    """`Shape` of fast.cpp."""

    _fields_ = [
        *((name, ctypes.c_int32) for name in ("vocabulary", "layers", "heads", "kv_heads", "width", "size", "slots")),
        *((name, ctypes.c_int32) for name in ("capacity", "format", "threads", "most")),
        *((name, ctypes.c_float) for name in ("eps", "softcap", "sharpness", "share")),
        ("gates", ctypes.c_int32),
    ]


class PackedMatrix(ctypes.Structure):
    """`PackedMatrix` of fast.cpp."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("packed", "scales")),
        *((name, ctypes.c_int64) for name in ("outputs", "inputs")),
    ]


class Law(ctypes.Structure):
    """`Law` of fast.cpp."""

    _fields_ = [
        ("uniform", ctypes.c_double),
        *((name, ctypes.c_float) for name in ("temperature", "top_p", "min_p")),
        *((name, ctypes.c_int32) for name in ("top_k", "is_own")),
    ]


@cache
def library() -> ctypes.CDLL:
    """fast.cpp, compiled for this processor. Raises DeviceError."""
    loaded = compiled(SOURCE, FLAGS)
    loaded.decoder_new.restype = ctypes.c_void_p
    return loaded


@dataclass(frozen=True)
class Packed:
    """A matrix as fast.cpp reads it."""

    weights: Tensor  # (blocks, inputs / 2, BLOCK, 2), float32: (blocks, inputs, BLOCK)
    scales: Float[Tensor, " outputs"] | None
    inputs: int

    def pointers(self) -> PackedMatrix:
        """Where it lies."""
        scales = self.scales.data_ptr() if self.scales is not None else None
        return PackedMatrix(self.weights.data_ptr(), scales, self.weights.shape[0] * BLOCK, self.inputs)


def pack(weight: Float[Tensor, "outputs inputs"], format: str) -> Packed:
    """A matrix in blocks of 32 outputs, the last one filled up with zeros; int8 with a scale an output."""
    inputs = weight.shape[1]
    padded = F.pad(weight.detach().float(), (0, 0, 0, -len(weight) % BLOCK))
    if format == "float32":
        return Packed(padded.view(-1, BLOCK, inputs).transpose(1, 2).contiguous(), None, inputs)
    scales = None
    if format == "int8":
        scales = padded.abs().amax(dim=1).clamp(min=1e-12) / 127
        padded = (padded / scales[:, None]).round()
    # Pairs of inputs lie together: a processor's bfloat16 product takes two at a time.
    pairs = padded.view(-1, BLOCK, inputs // 2, 2).transpose(1, 2)
    return Packed(pairs.to(torch.int8 if format == "int8" else torch.bfloat16).contiguous(), scales, inputs)


def decoder_for(engine: Engine, slots: int, deterministic: bool = False) -> Decoder:
    """The fastest decoder that this machine and this engine's model have; `deterministic` asks it for fixed slots.

    On a CPU the fast one, in the model's number format; the plain one on other devices, for other models than `GPT`,
    and, with a warning that says why, where the fast one cannot be made.
    """
    model, formats = engine.model, {torch.float32: "float32", torch.bfloat16: "bfloat16"}
    if isinstance(model, GPT) and engine.runtime.device.type == "cpu" and model.dtype in formats:
        try:
            return FastDecoder(model, engine.runtime, slots, formats[model.dtype])
        except DeviceError as error:
            warnings.warn(f"answers will come slowly: {error}", stacklevel=2)
    return PlainDecoder(engine, slots, is_fixed=deterministic)


class FastDecoder:
    """`GPT` in one call a pass; a `Decoder`. Weights are copied, in `format`; later changes of the model do not show.

    Embeddings are float32 with float32 weights, else bfloat16. Raises DeviceError where it cannot be made: without a
    compiler, on another device than a CPU, for a width that is no multiple of 16.
    """

    is_invariant, spare = True, 16

    def __init__(self, model: GPT, runtime: Runtime, slots: int, format: str = "bfloat16") -> None:
        c = model.config
        if runtime.device.type != "cpu":
            raise DeviceError("a CPU for the fast decoder", runtime.device.type)
        if c.n_embd % 16:
            raise DeviceError("a model whose width is a multiple of 16", str(c.n_embd))
        self.config, self.slots, self.capacity, self.format = c, slots, c.context, format
        self.library = library()
        tables = torch.float32 if format == "float32" else torch.bfloat16
        self.matrices = [pack(weight, format) for weight in matrices_of(model)]
        values = [block.attention.values for block in model.blocks if isinstance(block, Block)]
        self.tables = [None if v is None else v.weight.detach().to(tables).contiguous() for v in values]
        self.embedding = model.embedding.weight.detach().to(tables).contiguous()
        angles = rotary_angles(torch.arange(self.capacity), c.head_size, c.rope_base)
        self.turns = (angles.cos().contiguous(), angles.sin().contiguous())
        smear = model.smear
        self.gate = torch.zeros(1) if smear is None else smear.gate.detach().float().contiguous()
        self.logits = torch.empty(slots, c.vocab_size)
        shape = Shape(
            c.vocab_size, c.n_layer, c.n_head, c.n_kv_head, c.n_embd, c.head_size, slots, self.capacity,
            FORMATS.index(format), runtime.threads, MOST, c.norm_eps, c.softcap, c.sharpness,
            0.0 if smear is None else float(smear.share.detach()), 0 if smear is None else len(self.gate),
        )  # fmt: skip
        self.handle = ctypes.c_void_p(
            self.library.decoder_new(
                ctypes.byref(shape),
                (PackedMatrix * len(self.matrices))(*(packed.pointers() for packed in self.matrices)),
                (ctypes.c_void_p * c.n_layer)(*(None if t is None else t.data_ptr() for t in self.tables)),
                *(ctypes.c_void_p(t.data_ptr()) for t in (self.embedding, *self.turns, self.gate)),
            )
        )
        self.close = weakref.finalize(self, self.library.decoder_free, self.handle)
        self.close.atexit = False  # at the end of the process another thread may be in the middle of a pass

    def read(self, runs: Sequence[Run]) -> Float[Tensor, "scored V"]:
        """Scores after the tokens that asked for them; they are valid until the next call."""
        for run in runs:
            within = 0 <= run.start <= self.capacity - len(run.ids) and 0 <= run.slot < self.slots
            assert within and 0 <= min(run.ids) <= max(run.ids) < self.config.vocab_size, run
        tokens = [(token, run.slot, run.start + at) for run in runs for at, token in enumerate(run.ids)]
        wanted = [at >= len(run.ids) - run.scored for run in runs for at in range(len(run.ids))]
        if sum(wanted) > len(self.logits):
            self.logits = torch.empty(sum(wanted), self.config.vocab_size)
        done = 0
        for start in range(0, len(tokens), MOST):
            part = tokens[start : start + MOST]
            chosen = [at for at, is_wanted in enumerate(wanted[start : start + MOST]) if is_wanted]
            self.library.decoder_read(
                self.handle, len(part), *(numbers(column) for column in zip(*part, strict=True)),
                len(chosen), numbers(chosen), ctypes.c_void_p(self.logits[done:].data_ptr()),
            )  # fmt: skip
            done += len(chosen)
        return self.logits[:done]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy a prefix."""
        self.library.decoder_copy(self.handle, source, target, tokens)

    def draw(
        self,
        logits: Float[Tensor, "scored V"],
        rows: Sequence[int],
        laws: Sequence[Sampling],
        uniforms: Sequence[float],
    ) -> list[Drawn]:
        """A token from each of these rows of scores, by its own law and random number: as `sampling.py` draws."""
        count = len(rows)
        asked = (Law * count)(
            *(
                Law(
                    u,
                    0 if s.is_greedy else s.temperature,
                    s.top_p,
                    s.min_p,
                    s.top_k,
                    s.logprobs_of == "model" and not s.is_plain,
                )
                for u, s in zip(uniforms, laws, strict=True)
            )
        )
        ids, logprobs = (ctypes.c_int64 * count)(), (ctypes.c_double * count)()
        scores = ctypes.c_void_p(logits.data_ptr())
        self.library.decoder_draw(self.handle, count, numbers(rows), scores, asked, ids, logprobs)
        return [Drawn(token, logprob) for token, logprob in zip(ids, logprobs, strict=True)]


def matrices_of(model: GPT) -> list[Tensor]:
    """The matrices in the order in which a pass reads them; queries, keys and values as one."""
    found: list[Tensor] = []
    for block in model.blocks:
        assert isinstance(block, Block)
        a, m = block.attention, block.mlp
        qkv = torch.cat([part.weight for part in (a.query, a.key, a.value)])
        found += [qkv, a.output.weight, m.up.weight, m.down.weight]
    return [*found, model.head.weight]


def numbers(values: Sequence[int]) -> "ctypes.Array[ctypes.c_int32]":
    """Whole numbers as C has them."""
    return (ctypes.c_int32 * len(values))(*values)
