"""What the original's last chapter gets wrong, shown right."""

import ast
import builtins
import re
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from educational.lesson import changed
from nanochat import gpt
from nanochat.data.packing import rows
from nanochat.data.shards import Record, TokenStore
from nanochat.gpt import GPT, GPTConfig
from nanochat.train import Batch

ROOT = Path(__file__).parents[2]
CHAPTER = ROOT / "educational" / "08_putting_it_together.md"
BLOCKS = re.findall(r"<!-- run -->\n+```python\n(.*?)```", CHAPTER.read_text("utf-8"), re.DOTALL)


def noisy(layers: int = 2) -> GPT:
    """A model in which every matrix matters: at the usual initialisation attention writes nothing."""
    model, draws = GPT(GPTConfig(50, layers, 2, 1, 32, 32), torch.float64), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=draws) * 0.2)
    return model


def moved(model: GPT) -> float:
    """How far scores move before token 7 when everything from there on is another."""
    ids = torch.randint(50, (1, 14), generator=torch.Generator().manual_seed(1))
    other = ids.clone()
    other[:, 7:] = (other[:, 7:] + 1) % 50
    with torch.no_grad():
        return float((model(ids) - model(other))[:, :7].abs().max())


def unknown_names(blocks: list[str]) -> set[str]:
    """Names that some block reads and neither it nor one before it has given a meaning."""
    known, unknown = set(dir(builtins)), set()
    for block in blocks:
        nodes = list(ast.walk(ast.parse(block)))
        known |= {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Load)}
        known |= {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
        known |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        known |= {n.name for n in nodes if isinstance(n, ast.ExceptHandler) and n.name}
        for node in (n for n in nodes if isinstance(n, ast.Import | ast.ImportFrom)):
            known |= {alias.asname or alias.name.partition(".")[0] for alias in node.names}
        unknown |= {n.id for n in nodes if isinstance(n, ast.Name)} - known
    return unknown


def test_every_name_in_the_chapter_is_defined():
    assert len(BLOCKS) > 40
    assert unknown_names(BLOCKS) == set()
    assert unknown_names(["model = Transformer(config)"]) == {"Transformer", "config"}


def test_the_model_knows_positions(monkeypatch):
    """With one layer, order among earlier tokens can reach the last one by positions alone."""
    model = noisy(layers=1)
    ids = torch.tensor([[3, 7, 11, 19, 23]])
    shuffled = ids[:, [2, 0, 3, 1, 4]]
    with torch.no_grad():
        assert (model(ids) - model(shuffled))[:, -1].abs().max() > 0.1
        monkeypatch.setattr(gpt, "rotary_angles", lambda at, size, base: torch.zeros(*at.shape, size // 2))
        assert (model(ids) - model(shuffled))[:, -1].abs().max() < 1e-12


@pytest.mark.parametrize("lengths", [[1], [3, 0, 2], [90], [8, 8, 8]])
def test_the_loader_goes_on_past_the_end_of_its_data(lengths):
    """Documents shorter and longer than a row, fewer tokens than a batch: rows stay whole, targets shifted by one."""
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    store = TokenStore(
        np.arange(1, offsets[-1] + 1, dtype=np.uint32), offsets, Record("", "", 0, 0, 0, "uint32", "", "")
    )
    found = [row.ids for row in islice(rows([store], bos=0, context=8, seed=0), 40)]
    ids = torch.from_numpy(np.stack(found))
    assert ids.shape == (40, 9)
    batch = Batch(ids[:, :-1], ids[:, 1:], torch.ones(40, 8), {})
    assert torch.equal(batch.inputs[:, 1:], batch.targets[:, :-1])


def test_bfloat16_needs_no_gradient_scaling():
    """A power of two before the backward pass and its inverse after it change no bit; float16 does need it."""
    small = torch.tensor([1e-8, 3.7e-12, 2.1e-20])
    assert (small.half() == 0).all()
    assert ((small.bfloat16().float() - small).abs() / small).max() < 2**-8
    assert torch.equal((small * 65536).bfloat16() / 65536, small.bfloat16())
    assert not torch.equal(((small * 65536).half().float() / 65536), small.half().float())
    assert torch.finfo(torch.bfloat16).max > 1e38 > 65504 == torch.finfo(torch.float16).max


def test_causality_is_a_property_of_the_model_not_of_a_mask(monkeypatch):
    """An inverted mask leaves torch.tril as it was, and a fresh model silent; only a model with weights tells."""
    fresh = GPT(GPTConfig(50, 2, 2, 1, 32, 32), torch.float64)
    fresh.init_weights(0)
    assert moved(noisy()) == 0
    mask = "-math.inf, dtype=q.dtype, device=q.device).triu(diagonal=1)"
    inverted = changed("nanochat.attention", mask, mask.replace("triu(diagonal=1)", "tril(diagonal=-1)"))
    monkeypatch.setattr(gpt, "attend", inverted.attend)
    assert torch.equal(torch.tril(torch.ones(3, 3)).sum(1), torch.tensor([1.0, 2.0, 3.0]))
    assert moved(fresh) == 0
    assert moved(noisy()) > 0.1
