"""Which vocabulary is best for a tiny model that may do so many operations and no more?

    python educational/experiments/vocabulary_and_model.py

Three vocabularies, of 512, 2,048 and 8,192 tokens, learned from the same text. For each a model of two layers (width
128) is trained on the Cookbook and Wikipedia from three seeds, for as many steps as 0.4 trillion floating-point
operations pay for: a larger vocabulary makes a dearer head, so fewer tokens are read, but each holds more text. What
counts is bits per byte on held-out documents, which does not depend on the vocabulary. Two minutes on one core; writes
runs/book/vocabulary_and_model.json.
"""

import json
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from nanochat.data import Row, documents, rows, split_documents, write_store
from nanochat.evaluate.bits import encode_held, score_held
from nanochat.gpt import GPT
from nanochat.keyed import rng
from nanochat.optim import build_optimizer, trapezoid
from nanochat.plan import plan
from nanochat.runtime import commit, detect, home, machine, versions
from nanochat.tokenizer import SPECIALS, BulkEncoder, Tokenizer, train_tokenizer
from nanochat.train import Batch, train

ROOT = Path(__file__).parents[2]
SIZES = (512, 2048, 8192)
SEEDS = (0, 1, 2)
FLOPS = 0.4e12
DEPTH, CONTEXT, ROWS = 2, 256, 4
TEXT = 2_000_000  # bytes of documents that are encoded: more than any of the runs can read


def main() -> None:
    """Train nine models, print as they come, write the record."""
    runtime = detect("cpu", threads=1)
    began, figures = time.process_time(), []
    train_docs, held = [], []
    for source in ("cookbook", "wikipedia"):
        learned, kept = split_documents(documents(source, home()))
        train_docs += learned
        held += [document.text for document in kept]
    rng(0, "vocabulary and model").shuffle(train_docs)
    largest = train_tokenizer([document.text for document in train_docs], max(SIZES))
    some, size = [], 0
    for document in train_docs:
        size += len(document.text.encode())
        some.append(document)
        if size > TEXT:
            break
    for vocab in SIZES:
        # A smaller vocabulary is the beginning of a larger one.
        merges = largest.merges[: vocab - 256 - len(SPECIALS)]
        first = 256 + len(merges)
        tokenizer = Tokenizer(merges, specials={name: first + place for place, name in enumerate(SPECIALS)})
        chosen = plan(DEPTH, vocab_size=vocab, context=CONTEXT, tokens_per_step=ROWS * CONTEXT, rows=ROWS, steps=1)
        steps = round(FLOPS / (chosen.flops_per_token * ROWS * CONTEXT))
        total = sum(chosen.parameters.values())
        scores, seconds = [], time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            store = write_store(Path(folder) / "text.npy", some, BulkEncoder(tokenizer))
            tested = encode_held(tokenizer, held, 60)
            each = store.record.text_bytes / store.record.tokens
            for seed in SEEDS:
                model = GPT(chosen.model, runtime.dtype)
                model.init_weights(seed)
                optimizer = build_optimizer(
                    model, matrix_lr=chosen.matrix_lr, embedding_lr=chosen.embedding_lr, head_lr=chosen.head_lr,
                    matrix_decay=chosen.matrix_decay, dtype=runtime.dtype,
                )  # fmt: skip
                stream = rows([store], bos=tokenizer.special("<|bos|>"), context=CONTEXT, seed=seed)
                schedule = trapezoid(steps, min(20, steps // 20), round(0.6 * steps))
                for _ in train(model, optimizer, batches(stream), schedule, steps=steps):
                    pass
                scores.append(score_held(model, tested, runtime).value)
                print(f"V {vocab:5}  seed {seed}  {steps} steps  {scores[-1]:.4f} bits/byte", flush=True)
        figures.append({
            "name": f"bpb_{vocab}", "value": sum(scores) / len(scores), "low": min(scores), "high": max(scores),
            "n": len(scores), "unit": "bits/byte", "scores": scores, "steps": steps, "bytes_a_token": each,
            "bytes_read": steps * ROWS * CONTEXT * each, "parameters": total,
            "table_share": (chosen.parameters["embedding"] + chosen.parameters["head"]) / total,
            "cpu_seconds": round((time.process_time() - seconds) / len(SEEDS), 1),
        })  # fmt: skip
    record = {
        "command": "python educational/experiments/vocabulary_and_model.py",
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(runtime),
        "versions": versions(),
        "seeds": list(SEEDS),
        "flops": FLOPS,
        "cpu_seconds": round(time.process_time() - began),
        "figures": figures,
    }
    target = ROOT / "runs" / "book" / "vocabulary_and_model.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(record, indent=1) + "\n")
    print(f"{record['cpu_seconds']} s of CPU time")


def batches(stream: Iterator[Row]) -> Iterator[Batch]:
    """Four rows at a time, every token of weight 1."""
    while True:
        some = list(islice(stream, ROWS))
        ids = torch.from_numpy(np.stack([row.ids for row in some]).astype(np.int64))
        yield Batch(ids[:, :-1], ids[:, 1:], torch.ones(ROWS, CONTEXT), some[-1].cursor)


if __name__ == "__main__":
    main()
