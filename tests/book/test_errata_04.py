"""What the original guide's fourth chapter gets wrong, and the right values."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from nanochat.gpt import GPT, GPTConfig, Linear
from nanochat.plan import plan


def test_depth_20_has_561_million_parameters_and_not_270():
    """Attention 131 M, MLP 262 M, two tables of 84 M each: counted on the model itself, which holds no memory here."""
    chosen = plan(20, vocab_size=65_536, context=2048, kv_heads=0).model
    with torch.device("meta"):
        model = GPT(chosen)
    sizes = {name: weight.numel() for name, weight in model.named_parameters()}
    assert sum(n for name, n in sizes.items() if ".attention." in name) == 131_072_000
    assert sum(n for name, n in sizes.items() if ".mlp." in name) == 262_144_000
    assert sizes["embedding.weight"] == sizes["head.weight"] == 83_886_080
    assert sum(sizes.values()) == 560_988_160
    assert sum(sizes.values()) > 2 * 270e6


@pytest.mark.parametrize(("inputs", "outputs"), [(8, 8), (16, 64), (96, 24)])
def test_the_six_of_6n_is_two_forward_and_four_backward(inputs, outputs):
    """For one matrix of any shape; it has nothing to do with how many matrices a layer has."""
    matrix, x = Linear(inputs, outputs), torch.randn(5, inputs, requires_grad=True)
    with FlopCounterMode(display=False) as forward:
        y = matrix(x)
    with FlopCounterMode(display=False) as backward:
        y.sum().backward()
    assert forward.get_total_flops() == 2 * 5 * inputs * outputs
    assert backward.get_total_flops() == 4 * 5 * inputs * outputs


def test_as_many_key_heads_as_query_heads_is_multi_head_and_not_multi_query():
    """The original calls 6 of 6 "MQA". Multi-query attention has one key head, and key matrices of its width."""
    width = 96
    for kv_heads, key_width in ((6, width), (2, 32), (1, 16)):
        model = GPT(GPTConfig(vocab_size=10, n_layer=1, n_head=6, n_kv_head=kv_heads, n_embd=width, context=8))
        attention = model.blocks[0].attention
        assert attention.query.weight.shape == (width, width)
        assert attention.key.weight.shape == attention.value.weight.shape == (key_width, width)
