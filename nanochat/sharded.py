"""An optimizer whose work and state are shared out, for a model that `fully_shard` has cut up by rows.

The optimizers of `optim.py` stay as they are; each process hands them its share. To AdamW every number is a case of its
own: it gets the rows that are here. Muon needs whole matrices, so each matrix belongs to one process: that one collects
the rows of its gradient from all, keeps its momentum, orthogonalises, and sends everyone their rows of the update.
Together that moves 2 / n of the matrices' gradients each way, and no process does the work of another.
"""

from collections.abc import Iterable, Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard

from nanochat.optim import Group, Muon, Together


class Sharded(Together):
    """`optimizer` at work on this process's share. `weights` are the model's after `fully_shard`; `names` tells what
    the optimizer's own parameters, those from before, are called.
    """

    def __init__(
        self, optimizer: Together, names: Mapping[Tensor, str], weights: Mapping[str, Tensor], mesh: DeviceMesh
    ) -> None:
        super().__init__(*optimizer.optimizers)
        self.weights, self.mesh = dict(weights), mesh
        self.matrices: dict[str, Group] = {}
        for pure in optimizer.optimizers:
            for group in pure.param_groups:
                if isinstance(pure, Muon):
                    self.matrices |= {names[weight]: group for weight in group["params"]}
        self.exchange = Exchange({name: self.weights[name].shape for name in self.matrices}, mesh)
        # Muon works on stand-ins that are zero, and what it makes of them is the update.
        owned = {name: torch.zeros(weights[name].shape, device=rows(weights[name]).device, dtype=weights[name].dtype)
                 for name in self.exchange.mine}  # fmt: skip
        here = {name: rows(weight) for name, weight in weights.items() if name not in self.matrices}
        self.parameters = {name: nn.Parameter(tensor) for name, tensor in (here | owned).items()}
        for group in self.param_groups:
            group["params"] = [self.parameters[n] for w in group["params"] if (n := names[w]) in self.parameters]

    @torch.no_grad()
    def step(self) -> None:
        """Update every weight."""
        grads = {name: None if w.grad is None else rows(w.grad) for name, w in self.weights.items()}
        whole = self.exchange.collect({name: grads[name] for name in self.matrices})
        for name, parameter in self.parameters.items():
            parameter.grad = whole[name] if name in whole else grads[name]
        super().step()
        updates = self.exchange.hand_out({name: self.parameters[name].data for name in whole})
        for name, update in updates.items():
            group = self.matrices[name]
            rows(self.weights[name]).mul_(1 - group["lr"] * group["weight_decay"]).add_(update)
        for name in whole:
            self.parameters[name].zero_()

    def zero_grad(self) -> None:
        """Drop every gradient."""
        super().zero_grad()
        for weight in self.weights.values():
            weight.grad = None

    def state(self) -> dict[str, Tensor]:
        """What is to be saved by name, as `sharded_checkpoint` takes it: `blocks.0.mlp.up.weight.momentum`."""
        return {
            f"{name}.{key}": self.placed(name, tensor)
            for name, parameter in self.parameters.items()
            for key, tensor in self.state_of(parameter).items()
        }

    def empty_state(self, saved: Iterable[str]) -> dict[str, Tensor]:
        """The optimizers' state made anew, for those of the `saved` names that belong here; to be filled."""
        for full in saved:
            name, _, key = full.rpartition(".")
            if name in self.parameters:
                parameter = self.parameters[name]
                # A count of steps is a single number, and kept where Python reads it.
                empty = torch.zeros(()) if key == "step" else torch.zeros_like(parameter.data)
                self.state_of(parameter)[key] = empty
        return self.state()

    def placed(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of state as a part of its whole: rows, where the weight has its rows here; else as it is."""
        weight = self.weights[name]
        if name in self.matrices or not isinstance(weight, DTensor) or not tensor.ndim:
            return tensor
        return DTensor.from_local(
            tensor, self.mesh, [Shard(0)], run_check=False, shape=weight.shape, stride=weight.stride()
        )


class Exchange:
    """Matrices between those who hold their rows and the one who owns the whole, all in one all-to-all."""

    def __init__(self, shapes: Mapping[str, torch.Size], mesh: DeviceMesh) -> None:
        self.shapes, self.group = dict(shapes), mesh.get_group()
        self.rank, self.world = mesh.get_local_rank(), mesh.size()
        self.owned: list[list[str]] = [[] for _ in range(self.world)]
        load = [0] * self.world
        # The largest first, each to who has least to do.
        for name in sorted(shapes, key=lambda name: -shapes[name].numel()):
            owner = load.index(min(load))
            self.owned[owner].append(name)
            load[owner] += shapes[name].numel()

    @property
    def mine(self) -> list[str]:
        """The matrices that this process owns."""
        return self.owned[self.rank]

    def share(self, name: str, rank: int) -> slice:
        """The rows of a matrix that a process holds: as FSDP2 cuts them, equal but for the last."""
        count = self.shapes[name][0]
        size = -(-count // self.world)
        return slice(min(rank * size, count), min((rank + 1) * size, count))

    def size(self, name: str, rank: int) -> int:
        """How many numbers that is."""
        held = self.share(name, rank)
        return int(held.stop - held.start) * self.shapes[name][1]

    def collect(self, here: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
        """From this process's rows of every matrix to the whole of those that it owns."""
        sent = [self.given(here, name) for names in self.owned for name in names]
        incoming = [[self.size(name, source) for name in self.mine] for source in range(self.world)]
        outgoing = [[self.size(name, self.rank) for name in names] for names in self.owned]
        by_source = self.swap(sent, outgoing, incoming)
        return {
            name: torch.cat([parts[place] for parts in by_source]).view(self.shapes[name])
            for place, name in enumerate(self.mine)
        }

    def hand_out(self, whole: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Back again: from the matrices that this process owns to its rows of every one."""
        sent = [whole[name][self.share(name, to)].flatten() for to in range(self.world) for name in self.mine]
        incoming = [[self.size(name, self.rank) for name in names] for names in self.owned]
        outgoing = [[self.size(name, to) for name in self.mine] for to in range(self.world)]
        by_owner = self.swap(sent, outgoing, incoming)
        return {
            name: part.view(-1, self.shapes[name][1])
            for names, parts in zip(self.owned, by_owner, strict=True)
            for name, part in zip(names, parts, strict=True)
        }

    def given(self, here: Mapping[str, Tensor | None], name: str) -> Tensor:
        """This process's rows of a gradient, laid flat."""
        grad = here[name]
        assert grad is not None, f"{name} has no gradient"
        return grad.flatten()

    def swap(self, sent: list[Tensor], outgoing: list[list[int]], incoming: list[list[int]]) -> list[list[Tensor]]:
        """What every process sent here, in its pieces; `outgoing` and `incoming` are their sizes by process."""
        flat = torch.cat(sent)
        received = flat.new_empty(sum(map(sum, incoming)))
        dist.all_to_all_single(
            received, flat, [sum(sizes) for sizes in incoming], [sum(sizes) for sizes in outgoing], group=self.group
        )
        parts = received.split([sum(sizes) for sizes in incoming])
        return [list(part.split(sizes)) for part, sizes in zip(parts, incoming, strict=True)]


def rows(tensor: Tensor) -> Tensor:
    """What of a tensor is on this process, without a graph: its rows, or all of it where it is not cut up."""
    here: Tensor = tensor.detach()
    return here.to_local() if isinstance(here, DTensor) else here
