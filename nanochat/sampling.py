"""From the model's scores to one chosen token: temperature, filters, and the draw.

Each filter takes scores (B, V) and gives scores (B, V) with -inf where a token is ruled out; `distribution` puts them
one behind the other, and `draw` picks. B rows, V tokens of the vocabulary.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from nanochat.errors import UsageError


@dataclass(frozen=True)
class Sampling:
    """How an answer is drawn. The defaults draw from the model's own distribution, as reinforcement learning does."""

    temperature: float = 1.0  # 0: always the likeliest token
    top_k: int = 0  # only the k likeliest; 0: all
    top_p: float = 1.0  # only the likeliest that together hold this share of the probability
    min_p: float = 0.0  # only tokens at least this share as likely as the likeliest
    max_tokens: int = 256  # tokens the model may draw; what a tool writes is not counted
    seed: int = 0
    stop: tuple[str, ...] = ()  # text that ends the answer, and is not part of it
    cut_circles: bool = False  # end an answer that says one phrase again and again
    logprobs_of: Literal["draw", "model"] = "draw"  # as drawn from, or the model's own (temperature 1, no filter)

    def __post_init__(self) -> None:
        allowed = {
            "temperature": self.temperature >= 0 and math.isfinite(self.temperature),
            "top_k": self.top_k >= 0,
            "top_p": 0 < self.top_p <= 1,
            "min_p": 0 <= self.min_p <= 1,
            "max_tokens": self.max_tokens >= 1,
            "stop": all(self.stop) and not isinstance(self.stop, str),
        }
        for name, is_allowed in allowed.items():
            if not is_allowed:
                raise UsageError(f"{RANGES[name]} for {name}", repr(getattr(self, name)))

    @property
    def is_greedy(self) -> bool:
        """Whether the likeliest token is always taken: also where scores over the temperature would not be finite."""
        return self.temperature < 1e-30

    @property
    def is_plain(self) -> bool:
        """Whether tokens are drawn from the model's own distribution."""
        return self.temperature == 1 and not self.top_k and self.top_p == 1 and not self.min_p


RANGES = {
    "temperature": "a number of 0 or more",
    "top_k": "a whole number of 0 or more",
    "top_p": "a share above 0 and up to 1",
    "min_p": "a share from 0 to 1",
    "max_tokens": "a whole number of 1 or more",
    "stop": "a tuple of texts that are not empty",
}


def distribution(logits: Float[Tensor, "B V"], sampling: Sampling) -> Float[Tensor, "B V"]:
    """ln p of every token under what `sampling` asks for; -inf for a token that cannot be drawn.

    Temperature first, then top-k, top-p and min-p, each judging by what the one before it left.
    """
    if sampling.is_greedy:
        return likeliest(logits)
    if sampling.temperature != 1:
        logits = logits / sampling.temperature
    if sampling.top_k:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p < 1:
        logits = keep_top_p(logits, sampling.top_p)
    if sampling.min_p:
        logits = keep_min_p(logits, sampling.min_p)
    return logits.log_softmax(dim=-1)


def likeliest(logits: Float[Tensor, "B V"]) -> Float[Tensor, "B V"]:
    """ln p where all probability lies on the highest score; on the first of them where several are equal."""
    certain = torch.full_like(logits, -math.inf)
    return certain.scatter_(-1, logits.argmax(dim=-1, keepdim=True), 0.0)


def keep_top_k(logits: Float[Tensor, "B V"], k: int) -> Float[Tensor, "B V"]:
    """The k highest scores of each row; tokens that tie with the last of them stay too."""
    floor = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < floor, -math.inf)


def keep_top_p(logits: Float[Tensor, "B V"], share: float) -> Float[Tensor, "B V"]:
    """The fewest likeliest tokens that hold at least `share` of the probability, and what ties with the last.

    Nucleus sampling, arXiv:1904.09751, section 3.1.
    """
    ordered = logits.sort(dim=-1, descending=True).values
    probability = ordered.softmax(dim=-1)
    # A token stays when those before it have not reached the share yet: so the one that crosses the line stays.
    before = probability.cumsum(dim=-1) - probability
    last = (before < share).sum(dim=-1, keepdim=True) - 1
    return logits.masked_fill(logits < ordered.gather(-1, last.clamp(min=0)), -math.inf)


def keep_min_p(logits: Float[Tensor, "B V"], share: float) -> Float[Tensor, "B V"]:
    """Tokens whose probability is at least `share` of the likeliest one's (arXiv:2407.01082)."""
    floor = logits.max(dim=-1, keepdim=True).values + math.log(share)
    return logits.masked_fill(logits < floor, -math.inf)


def draw(log_probabilities: Float[Tensor, "B V"], uniforms: Float[Tensor, " B"]) -> Int[Tensor, " B"]:
    """One token a row: the first whose cumulative probability exceeds the row's number, which is uniform in [0, 1).

    Only the row itself decides, so the same number draws the same token whatever else is in the batch.
    """
    # Sums of thousands of small numbers: in float64 where the device has it.
    exact = torch.float32 if log_probabilities.device.type == "mps" else torch.float64
    cumulative = log_probabilities.exp().cumsum(dim=-1, dtype=exact)
    total = cumulative[:, -1]
    # Rounding must not lift the line to the total, beyond which there is no token.
    line = torch.minimum(uniforms.to(exact).to(total.device) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, line[:, None], right=True).squeeze(1)


def entropy(log_probabilities: Float[Tensor, "B V"]) -> Float[Tensor, " B"]:
    """Uncertainty of each row in nats: the mean of -ln p."""
    each: Tensor = torch.special.entr(log_probabilities.exp())
    return each.sum(dim=-1)
