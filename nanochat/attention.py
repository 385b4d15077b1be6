"""Attention: every token looks back at earlier tokens and takes a weighted mean of what they hold.

Axes here and in `gpt.py`: B rows of a batch, T tokens of a row, C features of a token, H heads, K heads of keys and
values (K <= H), D features of a head, S slots of a cache, V tokens of the vocabulary.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from nanochat.errors import UsageError


def rotary_angles(positions: Int[Tensor, "*rows T"], head_size: int, base: float) -> Float[Tensor, "*rows T half"]:
    """Angle by which each pair of features is turned at each position: position x base^(-2i / D), for i < D / 2.

    RoFormer, arXiv:2104.09864, section 3.2.2. The first pairs turn fast and tell neighbours apart, the last ones turn
    slowly and tell far from near.
    """
    powers = torch.arange(0, head_size, 2, device=positions.device, dtype=torch.float32) / head_size
    return positions[..., None].float() * (1.0 / base**powers)


def rotate(
    x: Float[Tensor, "B heads T D"], cosine: Float[Tensor, "rows 1 T half"], sine: Float[Tensor, "rows 1 T half"]
) -> Float[Tensor, "B heads T D"]:
    """`x` with its feature pairs (i, i + D/2) turned by *minus* the angle, as `NanoChatForCausalLM` has it.

    Turning queries and keys alike leaves their product a function of the distance between them, and the sign of the
    turn is a convention: but a checkpoint trained with one sign is noise under the other.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine + second * sine, second * cosine - first * sine), dim=-1)


STRIDE = 32  # sizes that grow token by token grow in steps of this


def rounded(size: int) -> int:
    """`size` up to the next multiple of STRIDE.

    A processor's library writes a kernel for each shape of product that it meets, and keeps it. Where shapes change
    with every token that is a kernel a token, and gigabytes of them.
    """
    return -(-size // STRIDE) * STRIDE


class KVCache:
    """Keys and values of the tokens seen so far, so that a new token costs one row of attention and not all of them.

    Rows may hold different numbers of tokens: `lengths[b]` of row b are real, whatever lies in later slots is
    overwritten before it can be seen. Prompts of different lengths are read in together, padded on the right, and
    `lengths` then set to the true ones.
    """

    def __init__(
        self,
        layers: int,
        batch: int,
        kv_heads: int,
        capacity: int,
        head_size: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        shape = (layers, batch, kv_heads, capacity, head_size)
        self.keys: Float[Tensor, "L B K S D"] = torch.zeros(shape, device=device, dtype=dtype)
        self.values: Float[Tensor, "L B K S D"] = torch.zeros(shape, device=device, dtype=dtype)
        self.ids: Int[Tensor, "B S"] = torch.zeros(batch, capacity, device=device, dtype=torch.long)
        self.lengths: Int[Tensor, " B"] = torch.zeros(batch, device=device, dtype=torch.long)

    @property
    def capacity(self) -> int:
        """Tokens that a row can hold."""
        return self.keys.shape[3]

    def positions(self, tokens: int) -> Int[Tensor, "B T"]:
        """Positions that the next `tokens` tokens of every row will take."""
        if int(self.lengths.max()) + tokens > self.capacity:
            raise UsageError(
                f"at most {self.capacity} tokens in this cache",
                f"{int(self.lengths.max())} held and {tokens} more",
                "make a larger cache, or shorten the prompt",
            )
        return self.lengths[:, None] + torch.arange(tokens, device=self.lengths.device)

    def previous(self, ids: Int[Tensor, "B T"], positions: Int[Tensor, "B T"]) -> Int[Tensor, "B T"]:
        """The token before each of `ids`, which are kept for the next ones; any at all before a row's first."""
        rows = torch.arange(ids.shape[0], device=ids.device)[:, None]
        self.ids[rows, positions] = ids
        return self.ids[rows, (positions - 1).clamp(min=0)]

    def layers(self, positions: Int[Tensor, "B T"]) -> list["LayerCache"]:
        """What attention reads of each layer: the slots in use, with the mask that keeps it causal."""
        used = self.used(positions)
        slots = torch.arange(used, device=positions.device)
        # (B, 1, T, S): token t of row b sees the slots up to its own position.
        visible = (slots <= positions[:, :, None])[:, None]
        held = zip(self.keys[:, :, :, :used], self.values[:, :, :, :used], strict=True)
        return [LayerCache(keys, values, positions, visible) for keys, values in held]

    def used(self, positions: Int[Tensor, "B T"]) -> int:
        """Slots that attention goes over: up to the last of these positions."""
        return min(rounded(int(positions.max()) + 1), self.capacity)

    def select(self, rows: Int[Tensor, " kept"]) -> "KVCache":
        """A cache with just these rows, in this order: finished answers are dropped, a prompt is copied to many."""
        chosen = object.__new__(KVCache)
        chosen.keys, chosen.values, chosen.ids = self.keys[:, rows], self.values[:, rows], self.ids[rows]
        chosen.lengths = self.lengths[rows]
        return chosen


class LayerCache:
    """One layer's slots, ready to be written to and read from."""

    def __init__(
        self,
        keys: Float[Tensor, "B K S D"],
        values: Float[Tensor, "B K S D"],
        positions: Int[Tensor, "B T"],
        visible: Bool[Tensor, "B 1 T S"],
    ) -> None:
        self.keys, self.values, self.positions, self.visible = keys, values, positions, visible

    def write(self, k: Float[Tensor, "B K T D"], v: Float[Tensor, "B K T D"]) -> None:
        """Put the new tokens' keys and values at their positions."""
        rows = torch.arange(k.shape[0], device=k.device)[:, None]
        self.keys.transpose(1, 2)[rows, self.positions] = k.transpose(1, 2)
        self.values.transpose(1, 2)[rows, self.positions] = v.transpose(1, 2)


BLOCK = 128  # queries at once on a CPU: what they see beyond themselves is computed and thrown away


def attend(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B K T D"],
    v: Float[Tensor, "B K T D"],
    window: int | None = None,
    cache: LayerCache | None = None,
) -> Float[Tensor, "B H T D"]:
    """Causal attention, softmax(q k^T / sqrt(D)) v: the one seam behind which kernels may change.

    With fewer key heads than query heads (K < H) each key head serves H / K neighbouring query heads: grouped-query
    attention, arXiv:2305.13245, and multi-query attention where K = 1, arXiv:1911.02150. `window` limits how many
    tokens back, itself included, a token sees. With a `cache` the new tokens are written to it first and see all
    that it holds.
    """
    grouped = k.shape[1] != q.shape[1]
    if cache is not None:
        cache.write(k, v)
        visible = cache.visible if window is None else within(cache.visible, cache.positions, window)
        if q.shape[2] == 1 and q.device.type == "cpu":
            return attend_one(q, cache.keys, cache.values, visible)
        return F.scaled_dot_product_attention(q, cache.keys, cache.values, attn_mask=visible, enable_gqa=grouped)
    if window is None and q.device.type == "cpu":
        return attend_in_blocks(q, k, v)
    if window is None:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    positions = torch.arange(q.shape[2], device=q.device)[None]
    causal = (positions[:, None, :] <= positions[:, :, None])[:, None]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=within(causal, positions, window), enable_gqa=grouped)


def attend_in_blocks(
    q: Float[Tensor, "B H T D"], k: Float[Tensor, "B K T D"], v: Float[Tensor, "B K T D"]
) -> Float[Tensor, "B H T D"]:
    """Causal attention by plain products, a block of queries at a time against all keys up to its end.

    On a CPU, at the lengths trained there, half the time of torch's kernel, forward and backward. The query heads that
    share a key head stand below one another as rows of one product, so keys and values are never repeated.
    """
    b, h, t, d = q.shape
    groups = h // k.shape[1]
    q = (q * d**-0.5).view(b, -1, groups, t, d)
    keys, mixed = k.mT, []
    for start in range(0, t, BLOCK):
        end = min(start + BLOCK, t)
        size = end - start
        scores = q[:, :, :, start:end].reshape(b, -1, groups * size, d) @ keys[..., :end]  # (B, K, groups x size, end)
        future = torch.full((size, size), -math.inf, dtype=q.dtype, device=q.device).triu(diagonal=1)
        scores.view(b, -1, groups, size, end)[..., start:].add_(future)
        mixed.append((scores.softmax(dim=-1) @ v[:, :, :end]).view(b, h, size, d))
    return torch.cat(mixed, dim=2)


def attend_one(
    q: Float[Tensor, "B H 1 D"],
    k: Float[Tensor, "B K S D"],
    v: Float[Tensor, "B K S D"],
    visible: Bool[Tensor, "B 1 1 S"],
) -> Float[Tensor, "B H 1 D"]:
    """Attention of one new token a row. On a CPU torch's kernel takes far longer for many such rows.

    The query heads that share a key head stand side by side as rows of one product, (H / K, D) x (D, S).
    """
    grouped = q.view(q.shape[0], k.shape[1], -1, q.shape[3])
    # Summed in float32, as the kernel does: what is sampled must have the probability that training gives it.
    exact = torch.promote_types(q.dtype, torch.float32)
    scores = (grouped.to(exact) @ k.to(exact).mT * q.shape[3] ** -0.5).masked_fill(~visible, -math.inf)
    mixed: Tensor = scores.softmax(dim=-1).to(v.dtype) @ v
    return mixed.view_as(q)


def within(visible: Bool[Tensor, "B 1 T S"], positions: Int[Tensor, "B T"], window: int) -> Bool[Tensor, "B 1 T S"]:
    """`visible` without what lies `window` or more tokens back."""
    slots = torch.arange(visible.shape[-1], device=visible.device)
    return visible & (slots > positions[:, :, None] - window)[:, None]


def attend_plainly(
    q: Float[Tensor, "B H T D"], k: Float[Tensor, "B K T D"], v: Float[Tensor, "B K T D"]
) -> Float[Tensor, "B H T D"]:
    """What `attend` computes, written out: the page to read, and the oracle that the fast one is held to."""
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], dim=1) for x in (k, v))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    future = torch.ones(q.shape[2], q.shape[2], dtype=torch.bool, device=q.device).triu(diagonal=1)
    return scores.masked_fill(future, -math.inf).softmax(dim=-1) @ v
