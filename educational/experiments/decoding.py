"""How many tokens a second, by how many answers are written at once; and what this machine would allow.

    python educational/experiments/decoding.py

The shipped pretrained model continues a title, 1 to 128 rows at a time, on one thread in float32; processor time, so
that other programs disturb little. Beside it: how fast numbers can be read and multiplied here, which gives the roof.
Three rounds; writes runs/book/decoding.json.
"""

import json
import time
from pathlib import Path

import torch

from nanochat.checkpoint import load_model, run_folder
from nanochat.engine import Engine, Sampling
from nanochat.plan import num_multiplied
from nanochat.runtime import commit, detect, machine, measure_peak, versions

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)
ROUNDS, TOKENS = 3, 48


def seconds_of(work: object, times: int = 1) -> float:
    """Processor time of a call, the mean over `times`."""
    began = time.process_time()
    for _ in range(times):
        work()  # type: ignore[operator]
    return (time.process_time() - began) / times


def reading_speed(numbers: int) -> float:
    """Bytes a second that a product of a matrix of so many float32 with one vector reads."""
    matrix, vector = torch.randn(numbers // 1024, 1024), torch.randn(1024)
    matrix @ vector
    return 4 * matrix.numel() / min(seconds_of(lambda: matrix @ vector, 3) for _ in range(5))


def main() -> None:
    began, figures = time.process_time(), []
    runtime = detect("cpu", "float32", threads=1)
    model, tokenizer, _ = load_model(run_folder("reference") / "pretrain", runtime)
    engine = Engine(model, tokenizer, runtime)
    ids = [tokenizer.special("<|bos|>"), *tokenizer.encode("Chocolate Cake\n")]
    config, weights = model.config, num_multiplied(model.config)
    limits = {
        "weights_read": weights,
        "bytes_per_step": 4 * weights,
        "flops_per_token": 2 * weights,
        "cache_bytes_per_token": 2 * 4 * config.n_layer * config.n_kv_head * config.head_size,
        "bytes_per_second": reading_speed(weights),
        "bytes_per_second_memory": reading_speed(2**26),
        "flops_per_second": measure_peak(runtime, 0.5),
    }
    print(limits, flush=True)
    for batch in BATCHES:
        rates, steps = [], []
        for seed in range(ROUNDS):
            cache = model.empty_cache(batch, 64)
            step = torch.zeros(batch, 1, dtype=torch.long)
            with torch.inference_mode():
                model.features(step.expand(-1, 32).contiguous(), cache)
                steps.append(seconds_of(lambda c=cache, s=step: model.logits(model.features(s, c)[:, -1]), 24))
            start = time.process_time()
            answers = engine.generate([ids] * batch, Sampling(max_tokens=TOKENS, seed=seed))
            rates.append(sum(len(answer.ids) for answer in answers) / (time.process_time() - start))
        for name, values in (("engine", rates), ("model", [batch / seconds for seconds in steps])):
            middle = sorted(values)[1]
            about = {"low": min(values), "high": max(values), "n": ROUNDS, "unit": "tokens/s"}
            figures.append({"name": name, "batch": batch, "value": middle, **about})
        print(
            f"{batch:4} rows: engine {sorted(rates)[1]:7.0f} tokens/s; model alone {batch / sorted(steps)[1]:7.0f}",
            flush=True,
        )
    seconds = round(time.process_time() - began)
    print(f"{seconds} s of processor time")
    about = {
        "command": "python educational/experiments/decoding.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }
    about |= {"machine": machine(runtime), "versions": versions(), "seeds": list(range(ROUNDS)), "seconds": seconds}
    target = Path(__file__).parents[2] / "runs" / "book" / "decoding.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(about | {"limits": limits, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
