"""Step 4 of 5, blocks: what each layer finds is added to a stream, so that layers can be stacked.

    python educational/staircase/04_block.py [SEED]

The text is the Cookbook's, as bytes; it is there after `python -m nanochat data fetch`.
"""

import math
import sys
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nanochat.data.sources import documents
from nanochat.data.split import split_documents

VOCAB, CONTEXT, BATCH = 256, 64, 8  # a byte is one of 256; rows of 64 of them; 8 rows a step
STEPS, EVERY, RATE = 400, 40, 0.02
C, LAYERS = 64, 4  # features of a byte; blocks


def rotate(x: Tensor) -> Tensor:
    """`x` (.., T, D) with feature pairs turned by an angle that grows with the position: RoPE."""
    half = x.shape[-1] // 2
    angles = torch.arange(x.shape[-2])[:, None] * 100_000.0 ** (-torch.arange(half) / half)
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * angles.cos() + second * angles.sin(), second * angles.cos() - first * angles.sin()), -1)


class Attention(nn.Module):
    """Each position takes a weighted mean of all positions up to its own, by weights that it works out itself."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(C, C, bias=False) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        scores = rotate(self.query(x)) @ rotate(self.key(x)).transpose(1, 2) / math.sqrt(C)  # (B, T, T)
        future = torch.ones(scores.shape[1:], dtype=torch.bool).triu(diagonal=1)
        return self.output(scores.masked_fill(future, -math.inf).softmax(dim=-1) @ self.value(x))


class Block(nn.Module):
    """Attention, then MLP; each reads the stream through a norm, and adds to it what it finds."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList((nn.RMSNorm(C), nn.RMSNorm(C)))
        self.attention = Attention()
        self.mlp = nn.Sequential(nn.Linear(C, 4 * C), nn.ReLU(), nn.Linear(4 * C, C))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norms[0](x))
        return x + self.mlp(self.norms[1](x))


class Model(nn.Module):
    """Ids in, one score for each possible next byte out."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCAB, C)
        self.blocks, self.norm = nn.Sequential(*(Block() for _ in range(LAYERS))), nn.RMSNorm(C)
        self.head = nn.Linear(C, VOCAB, bias=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.embedding(ids))))


def read() -> tuple[Tensor, Tensor]:
    """(training, held out): recipes as one long row of bytes each."""
    parts = split_documents(documents("cookbook"))
    texts = ("\n\n".join(document.text for document in part) for part in parts)
    training, held = (torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8).long() for text in texts)
    return training, held


def draw(text: Tensor, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Rows cut at random places, and the byte that follows each of theirs."""
    starts = torch.randint(0, len(text) - CONTEXT, (rows, 1), generator=generator)
    windows = text[starts + torch.arange(CONTEXT + 1)]
    return windows[:, :-1], windows[:, 1:]


def nll(model: Model, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of the next byte, in nats."""
    return F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def train(seed: int = 0, steps: int = STEPS) -> tuple[Model, list[tuple[int, float]]]:
    """The trained model, and its bits per held-out byte as it learned."""
    torch.manual_seed(seed)
    (training, held), draws = read(), torch.Generator().manual_seed(seed)
    fixed = draw(held, 64, torch.Generator().manual_seed(0))  # the same held-out rows for everyone
    model, curve = Model(), []
    inner = [w for name, w in model.named_parameters() if w.ndim == 2 and not name.startswith(("embedding", "head"))]
    others = [w for w in model.parameters() if all(w is not one for one in inner)]
    optimizers = [torch.optim.AdamW(others, lr=RATE, betas=(0.8, 0.95), weight_decay=0.0)]
    optimizers += [torch.optim.Muon(inner, lr=RATE, weight_decay=0.0)] if inner else []
    for step in range(steps + 1):
        if step % EVERY == 0:
            with torch.no_grad():
                curve.append((step, nll(model, *fixed).item() / math.log(2)))
        nll(model, *draw(training, BATCH, draws)).backward()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = RATE * min(1, (step + 1) / 20) * (1 - step / steps)
            optimizer.step()
            optimizer.zero_grad()
    return model, curve


def write(model: Model, start: str = "2 cups of", more: int = 120) -> str:
    """`start`, and what the model thinks comes next, byte by byte."""
    ids = torch.tensor([list(start.encode())])
    draws = torch.Generator().manual_seed(0)
    for _ in range(more):
        with torch.no_grad():
            chances = model(ids[:, -CONTEXT:])[0, -1].softmax(-1)
        ids = torch.cat((ids, torch.multinomial(chances, 1, generator=draws)[None]), dim=1)
    return bytes(ids[0].tolist()).decode(errors="replace")


if __name__ == "__main__":
    began = time.perf_counter()
    model, curve = train(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    for step, bits in curve:
        print(f"step {step:4d}  {bits:.3f} bits per byte  {'#' * round(6 * bits)}")
    numbers = sum(weight.numel() for weight in model.parameters())
    print(f"{numbers:,} parameters, {time.perf_counter() - began:.0f} s\n{write(model)}")
