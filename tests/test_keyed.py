"""Draws named by what they are for."""

from nanochat.keyed import key, rng


def test_the_same_name_gives_the_same_draws_on_every_machine():
    assert key(0, "sft", 7) == 5009202625610798143
    assert [rng(1, "a").random() for _ in range(2)] == [rng(1, "a").random() for _ in range(2)]


def test_every_part_counts_and_parts_do_not_run_together():
    keys = {key(0, "sft", 7), key(1, "sft", 7), key(0, "rl", 7), key(0, "sft", 8), key(0, "sft7"), key("0sft", 7)}
    assert len(keys) == 6


def test_draws_do_not_depend_on_what_was_drawn_before():
    first = rng(3, "step", 5).random()
    other = rng(3, "step", 4)
    other.random()
    assert rng(3, "step", 5).random() == first
