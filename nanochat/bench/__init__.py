"""`nanochat bench`: how fast this machine is at what we do, beside the best tool that does the same.

Every benchmark does both sides in turn, in one process, and gives ratios: shared machines swing by a factor of two from
one minute to the next, and only what was measured in the same minute compares (`measure`). Records are kept in `runs/`;
`benchmarks/README.md` quotes them.
"""

from collections.abc import Callable, Sequence
from typing import Any

from nanochat.bench.infer import InferBench, bench_infer
from nanochat.bench.tokenizer import TokenizerBench, bench_tokenizer
from nanochat.bench.train import TrainBench, bench_train
from nanochat.config import parse
from nanochat.errors import UsageError

# benchmark: (its fields, what measures it and returns the exit code)
BENCHES: dict[str, tuple[type[Any], Callable[[Any], int]]] = {
    "infer": (InferBench, bench_infer),
    "train": (TrainBench, bench_train),
    "tokenizer": (TokenizerBench, bench_tokenizer),
}


def main(argv: Sequence[str]) -> int:
    """The verb `bench`; 0 when done. Raises UsageError where no benchmark of that name is."""
    name = argv[0] if argv else ""
    if name in ("-h", "--help"):
        print("usage: nanochat bench NAME [--field value ...]\n")
        print("\n".join(f"  {known:<10} {(fields.__doc__ or '').strip()}" for known, (fields, _) in BENCHES.items()))
        print("\nnanochat bench NAME --help shows a benchmark's fields.")
        return 0
    if name not in BENCHES:
        raise UsageError("a benchmark", repr(name), f"one of: {', '.join(BENCHES)}")
    fields, bench = BENCHES[name]
    return bench(parse(fields, argv[1:], prog=f"nanochat bench {name}"))
