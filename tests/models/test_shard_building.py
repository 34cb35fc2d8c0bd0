"""Of weights that are there, a process keeps its rows; what two processes keep makes up the parameters."""

from __future__ import annotations

import torch
from torch import nn

from hftrainer.models.shard_building import is_given_up, keep_rows, keep_shards, take_rows


class Tied(nn.Module):
    """Two tables that are one, and a bias with fewer rows than there are processes."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight
        self.bias = nn.Parameter(torch.randn(1))


def test_rows_of_all_processes_are_the_parameters_and_tied_ones_stay_one():
    kept = []
    for rank in range(2):
        torch.manual_seed(0)
        module = Tied()
        values = {name: p.detach().clone() for name, p in module.named_parameters()}
        with keep_shards(rank, 2):
            keep_rows(module)
        assert is_given_up(module)
        assert all(p.is_meta for p in module.parameters())
        assert module.head.weight is module.embed.weight
        kept.append(take_rows(module))
        assert sum(rows.numel() for rows in kept[-1].values()) < sum(p.numel() for p in values.values())
    for name, value in values.items():
        assert torch.equal(torch.cat([rows[name] for rows in kept]), value), name


def test_nothing_is_given_up_where_nobody_asks_for_it():
    module = Tied()
    keep_rows(module)
    assert not is_given_up(module)
