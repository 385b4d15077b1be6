"""The shapes in signatures are checked in every test of this suite."""

import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError, jaxtyped
from torch import Tensor

import shapes
from nanochat.gpt import GPT, GPTConfig


def test_a_wrong_shape_or_kind_is_an_error() -> None:
    model = GPT(GPTConfig(vocab_size=32, n_layer=2, n_head=2, n_kv_head=2, n_embd=16, context=8))
    ids = torch.zeros(2, 3, dtype=torch.long)
    assert model.features(ids).shape == (2, 3, 16)
    for wrong in (ids[0], ids.float()):
        with pytest.raises(TypeCheckError):
            model.features(wrong)


def test_axes_of_one_name_must_agree_and_other_hints_are_left_alone() -> None:
    @jaxtyped(typechecker=shapes.check)
    def add(x: Float[Tensor, "B T"], rows: list[Int[Tensor, "B"]], scale: float) -> Float[Tensor, "T"]:
        return (x * scale + rows[0][:, None]).sum(dim=0)

    x, row = torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)
    assert add(x, [row], 1).shape == (3,)
    with pytest.raises(TypeCheckError):
        add(x, [row[:1]], 1.0)
