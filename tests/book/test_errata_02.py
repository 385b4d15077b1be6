"""What the original's chapter on mathematics says wrongly, shown right."""

import importlib.util
import inspect
import math
import re
from pathlib import Path

import pytest
import torch

from nanochat.attention import attend, rotate
from nanochat.evaluate.bits import Held, score_held
from nanochat.gpt import GPT, GPTConfig
from nanochat.optim import AdamW, Muon
from nanochat.runtime import Runtime

ROOT = Path(__file__).parents[2]
CHAPTER = ROOT / "educational" / "02_mathematical_foundations.md"


def checks():
    spec = importlib.util.spec_from_file_location("checks_ch02", ROOT / "educational" / "checks" / "ch02.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def scored():
    """A tiny model with weights in every matrix, the nats it spends on two documents, and the package's figure."""
    model = GPT(GPTConfig(64, 1, 2, 2, 16, 32), torch.float64)
    draws = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.5 * torch.randn(weight.shape, generator=draws, dtype=torch.float64))
    ids = [torch.randint(1, 64, (size,), generator=draws).tolist() for size in (9, 20)]
    nats = 0.0
    for document in ids:
        row = torch.tensor([[0, *document]])
        logs = model(row[:, :-1])[0].log_softmax(-1)
        nats -= float(logs.gather(1, row[0, 1:, None]).sum().detach())
    held = Held(tuple((0, *document) for document in ids), (31, 70))
    figure = score_held(model, held, Runtime(torch.device("cpu"), torch.float64))
    return nats, 29, 101, figure.value


def test_the_mask_hides_the_future_and_not_the_past():
    identity = torch.eye(5, dtype=torch.float64).view(1, 1, 5, 5)
    zeros = torch.zeros(1, 1, 5, 5, dtype=torch.float64)
    weights = attend(zeros, zeros, identity)[0, 0]  # with V the identity the output is the weights
    wanted = torch.tril(torch.ones(5, 5, dtype=torch.float64)) / torch.arange(1, 6)[:, None]
    assert torch.allclose(weights, wanted)


def test_bits_per_byte_are_all_nats_over_ln_2_and_all_bytes(scored):
    nats, tokens, num_bytes, value = scored
    assert value == pytest.approx(nats / (math.log(2) * num_bytes), rel=1e-9)
    # What the original divides by, log2 256 = 8, has nothing to do with it.
    assert abs(nats / tokens / math.log2(256) - value) > 0.1


def test_perplexity_keeps_the_unit_of_its_exponent(scored):
    nats, tokens, _, _ = scored
    mean = nats / tokens
    assert 2 ** (mean / math.log(2)) == pytest.approx(math.exp(mean))
    assert math.exp(mean) > 1.5 * 2**mean


@pytest.mark.parametrize("kind", [AdamW, Muon])
def test_decay_is_scaled_by_the_learning_rate(kind):
    weight = torch.nn.Parameter(torch.eye(3))
    optimizer = kind([weight], lr=0.01, weight_decay=0.1)
    weight.grad = torch.zeros(3, 3)
    optimizer.step()
    assert torch.allclose(weight.diagonal(), torch.full((3,), 1 - 0.01 * 0.1), atol=1e-7)


def test_the_rotation_matrix_that_is_printed_is_the_one_of_the_code():
    angle = torch.full((1, 1, 1, 1), 0.3)
    columns = [rotate(x.view(1, 1, 1, 2), angle.cos(), angle.sin()).flatten() for x in torch.eye(2)]
    matrix = torch.stack(columns, dim=1)
    printed = re.search(r"= \\begin\{pmatrix\} (\\cos.*?) \\end\{pmatrix\}", CHAPTER.read_text("utf-8"))
    assert printed is not None
    signs = [[-1 if cell.strip().startswith("-") else 1 for cell in row.split("&")] for row in printed[1].split("\\\\")]
    sizes = torch.tensor([[math.cos(0.3), math.sin(0.3)], [math.sin(0.3), math.cos(0.3)]])
    assert torch.allclose(matrix, sizes * torch.tensor(signs))
    assert "\\cos\\theta & \\sin\\theta" in printed[1]


def test_backward_passes_svd_and_formats_are_there_and_right():
    module = checks()
    quoted = dict(re.findall(r"<!-- check ch02\.(\w+) (\S+) -->", CHAPTER.read_text("utf-8")))
    assert {"matmul_gradient", "rms_norm_gradient", "attention_gradient", "p_minus_y"} <= quoted.keys()
    assert {"svd_by_hand", "nearest_orthogonal", "bf16_rounds_to_eight_bits", "bound_of_a_sum"} <= quoted.keys()
    for name, bound in quoted.items():
        assert getattr(module, name)() <= float(bound), name
    written = {
        name
        for name, function in inspect.getmembers(module, inspect.isfunction)
        if function.__module__ == module.__name__ and not inspect.signature(function).parameters
    }
    assert written == set(quoted), "checks that no equation quotes"


def test_a_check_can_fail(monkeypatch):
    module = checks()
    monkeypatch.setattr(module, "rotate", lambda x, c, s: rotate(x, c, -s))  # the transpose
    assert module.rotation_as_a_matrix() > 0.1
