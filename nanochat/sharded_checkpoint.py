"""Checkpoints of a model that is cut up: each process writes, and reads, its own share.

`torch.distributed.checkpoint` (DCP) does it, through its Hugging Face storage: safetensors files whose headers say
where in the whole tensor a piece belongs. So any number of processes can read what any other number wrote: a single
one, and files of whole tensors, included. DCP's usual storage would pickle.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.metadata import MetadataIndex, TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from nanochat.errors import CheckpointError

Kind = Literal["model", "optimizer"]


def write_shares(folder: Path, kind: Kind, tensors: Mapping[str, Tensor]) -> None:
    """Write `tensors` to `folder`, one file a process. Every process calls it, with what it holds.

    Of a DTensor each process writes its own rows; a plain tensor is written once, whoever has it.
    """
    written = folder / kind
    with one_error(f"to write {folder}", "free some space; the checkpoint before it is whole"):
        save(dict(tensors), storage_writer=HuggingFaceStorageWriter(str(written), save_distributed=True))
        # DCP has names of its own for the files; on what they are called nothing depends.
        if dist.get_rank() == 0:
            files = sorted(written.iterdir())
            for number, path in enumerate(files, start=1):
                path.rename(folder / f"{kind}-{number:05d}-of-{len(files):05d}.safetensors")
            written.rmdir()


def read_into(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fill `tensors` from the files in `folder`: of a DTensor the rows that are here, of a plain one all."""
    with one_error(f"{', '.join(list(tensors)[:2])}, ... in {folder}", "delete this checkpoint, use an older one"):
        # Nothing is asked of other processes: the headers tell each what to read.
        load(dict(tensors), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)


def read_whole(folder: Path, kind: Kind) -> dict[str, Tensor]:
    """Every tensor of a kind that was saved to `folder`, put together from its pieces; none where none was saved."""
    if (single := folder / f"{kind}.safetensors").exists():
        return load_file(single)
    saved = described(folder, kind)
    whole = {name: torch.empty(about.size, dtype=about.properties.dtype) for name, about in saved.items()}
    if whole:
        read_into(folder, whole)
    return whole


def described(folder: Path, kind: Kind) -> dict[str, TensorStorageMetadata]:
    """Whole size and number format of every tensor of a kind, by name: from the headers of the files alone."""
    with one_error(f"safetensors files in {folder}", "delete this checkpoint, use an older one"):
        found = HuggingFaceStorageReader(str(folder)).read_metadata()
    pieces = cast("dict[MetadataIndex, Any]", found.storage_data)
    names = {piece.fqn for piece, where in pieces.items() if Path(where.relative_path).name.startswith(kind)}
    all_of_them = found.state_dict_metadata
    return {name: about for name, about in all_of_them.items()
            if name in names and isinstance(about, TensorStorageMetadata)}  # fmt: skip


@contextmanager
def one_error(expected: str, remedy: str) -> Iterator[None]:
    """What DCP reports from all processes, as one line. Its exception is no `Exception`, and would pass every net."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it remarks that there is one process, where there is one
            yield
    except CheckpointException as error:
        rank, (cause, _) = next(iter(error.failures.items()))
        raise CheckpointError(expected, f"{type(cause).__name__} in process {rank}: {cause}", remedy) from error
    except (OSError, SafetensorError) as error:
        raise CheckpointError(expected, str(error), remedy) from error
