"""Where units go: what tracing claims is what it may claim, and never more.

Every row of the table is a forward pass around one bidirectional LSTM and a head. Sound: the model cut as traced,
without the check that ``compact`` makes afterwards, computes what the masked model computes. Useful: it shrinks the head
where the table says so.
"""

import math
import operator
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, prune
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import jali
from jali.batches import example
from jali.flow import Port, occurrences, trace
from jali.flow.rules import RULES
from jali.flow.rules.elementwise import ZERO_PRESERVING, ZERO_PRESERVING_MODULES
from jali.site import sites
from jali.surgery.compact import _cut
from jali.surgery.mask import mask
from tests.test_compact import largest_difference, random_plan

STEPS, WIDTH = 4, 12  # of the input; the LSTM has 6 units in each direction

EVEN = "where the widths of the directions are equal"
# name: (forward(model, x), what the head sees of the layer: features per unit, whether the head shrinks)
TABLE = {
    "last step": (lambda m, x: m.head(m.rnn(x)[0][:, -1]), 1, True),
    "last step, ellipsis": (lambda m, x: m.head(m.rnn(x)[0][:, -1, ...]), 1, True),
    "last step, select by slice": (lambda m, x: m.head(m.rnn(x)[0][:, -1:, :].squeeze(1)), 1, True),
    "all steps": (lambda m, x: m.head(m.rnn(x)[0]), 1, True),
    "two steps joined": (lambda m, x: m.head(torch.cat((m.rnn(x)[0][:, 0], m.rnn(x)[0][:, -1]), -1)), 2, True),
    "final states": (lambda m, x: m.head(torch.cat((m.rnn(x)[1][0][-2], m.rnn(x)[1][0][-1]), 1)), 1, True),
    "final states, the other order": (lambda m, x: m.head(torch.cat((m.rnn(x)[1][0][1], m.rnn(x)[1][0][0]), 1)), 1, True),
    "cell states": (lambda m, x: m.head(torch.cat((m.rnn(x)[1][1][0], m.rnn(x)[1][1][1]), 1)), 1, True),
    "states as they lie": (lambda m, x: m.head(m.rnn(x)[1][0].transpose(0, 1).reshape(-1, WIDTH)), 1, False),
    "mean over time": (lambda m, x: m.head(m.rnn(x)[0].mean(1)), 1, True),
    "maximum over time": (lambda m, x: m.head(m.rnn(x)[0].max(1).values), 1, True),
    "maximum over time, indexed": (lambda m, x: m.head(m.rnn(x)[0].max(1)[0]), 1, True),
    "positions of the maximum": (lambda m, x: m.head(m.rnn(x)[0].max(1)[1].to(x.dtype)), 1, False),
    "amax over time": (lambda m, x: m.head(torch.amax(m.rnn(x)[0], dim=1, keepdim=True)), 1, True),
    "pooling over time": (lambda m, x: m.head(F.adaptive_avg_pool1d(m.rnn(x)[0].transpose(1, 2), 1).squeeze(2)), 1, True),
    "mean over everything": (lambda m, x: m.head(m.rnn(x)[0].mean().expand(3, WIDTH)), 1, False),
    "mean over the features": (lambda m, x: m.head(m.rnn(x)[0].mean(-1, keepdim=True).expand(3, STEPS, WIDTH)), 1, False),
    "flatten": (lambda m, x: m.head(m.rnn(x)[0].flatten(1)), STEPS, True),
    "reshape to the batch": (lambda m, x: m.head(m.rnn(x)[0].reshape(x.shape[0], -1)), STEPS, True),
    "view with a fixed width": (lambda m, x: m.head(m.rnn(x)[0].contiguous().view(-1, WIDTH)), 1, False),
    "view that splits directions": (lambda m, x: m.head(m.rnn(x)[0].reshape(3, STEPS, 2, -1)[:, -1, 0]), 0.5, EVEN),
    "features before time": (lambda m, x: m.head(m.rnn(x)[0].permute(0, 2, 1).permute(0, 2, 1)[:, 0]), 1, True),
    "flattened features before time": (lambda m, x: m.head(m.rnn(x)[0].transpose(1, 2).flatten(1)), STEPS, True),
    "relu, dropout, tanh": (lambda m, x: m.head(F.dropout(torch.relu(m.rnn(x)[0]).tanh(), 0.5, m.training)), 1, True),
    "gelu": (lambda m, x: m.head(F.gelu(m.rnn(x)[0])), 1, True),
    "sigmoid": (lambda m, x: m.head(torch.sigmoid(m.rnn(x)[0])), 1, False),
    "exp": (lambda m, x: m.head(m.rnn(x)[0].exp()), 1, False),
    "softmax": (lambda m, x: m.head(m.rnn(x)[0].softmax(-1)), 1, False),
    "layer norm": (lambda m, x: m.head(F.layer_norm(m.rnn(x)[0], (WIDTH,))), 1, False),
    "scaled": (lambda m, x: m.head(m.rnn(x)[0] * 0.5 / math.sqrt(WIDTH)), 1, True),
    "shifted": (lambda m, x: m.head(m.rnn(x)[0] + 1), 1, False),
    "gated by a number per step": (lambda m, x: m.head(x[..., :1] * m.rnn(x)[0]), 1, True),
    "gated by a vector": (lambda m, x: m.head(m.rnn(x)[0] * m.scale), 1, False),
    "attention over time": (lambda m, x: m.head(torch.softmax(x @ x.transpose(1, 2), -1) @ m.rnn(x)[0]), 1, True),
    "attention by the states": (lambda m, x: m.head(m.rnn(x)[0].transpose(1, 2) @ x[..., :1]), 1 / WIDTH, False),
    "residual with itself": (lambda m, x: m.head(m.rnn(x)[0] + m.rnn(x)[0]), 1, True),
    "joined with the input": (lambda m, x: m.head(torch.cat((x, m.rnn(x)[0]), -1)), 1.25, True),
    "joined along time": (lambda m, x: m.head(torch.cat((m.rnn(x)[0], m.rnn(x)[0]), 1)), 1, True),
    "stacked steps": (lambda m, x: m.head(torch.stack((m.rnn(x)[0][:, 0], m.rnn(x)[0][:, 1]))), 1, True),
    "halves by number": (lambda m, x: m.head(m.rnn(x)[0][..., :6]), 0.5, False),
    "chunks": (lambda m, x: m.head(m.rnn(x)[0].chunk(2, -1)[1]), 0.5, EVEN),
    "reversed features": (lambda m, x: m.head(m.rnn(x)[0].flip(-1)), 1, False),
    "functional head": (lambda m, x: F.linear(m.rnn(x)[0], m.head.weight, m.head.bias), 1, False),
    "einsum": (lambda m, x: torch.einsum("btf,of->bto", m.rnn(x)[0], m.head.weight), 1, False),
    "head and output": (lambda m, x: (m.head(m.rnn(x)[0]), m.rnn(x)[0]), 1, False),
    "head and states": (lambda m, x: (m.head(m.rnn(x)[0]), m.rnn(x)[1]), 1, True),
    "head twice": (lambda m, x: m.head(m.rnn(x)[0][:, 0]) - m.head(m.rnn(x)[0][:, -1]), 1, True),
    "head on something else, too": (lambda m, x: m.head(m.rnn(x)[0]) + m.head(m.scale), 1, False),
    "width used as a number": (lambda m, x: m.head(m.rnn(x)[0]) / m.rnn(x)[0].shape[-1], 1, False),
    "time used as a number": (lambda m, x: m.head(m.rnn(x)[0].sum(1) / m.rnn(x)[0].shape[1]), 1, True),
    "view with every size fixed": (lambda m, x: m.head(m.rnn(x)[0].contiguous().view(3, STEPS, WIDTH)), 1, False),
    "features before time, last step": (lambda m, x: m.head(m.rnn(x)[0].transpose(1, 2)[:, :, -1]), 1, True),
    "permuted and reshaped": (lambda m, x: m.head(m.rnn(x)[0].permute(0, 2, 1).reshape(x.size(0), -1)), STEPS, True),
    "permuted and reshaped to half": (
        lambda m, x: m.head(m.rnn(x)[0].permute(0, 2, 1).reshape(x.size(0), 2, -1)), STEPS / 2, False
    ),
    "permuted, flattened, chunked": (
        lambda m, x: m.head(m.rnn(x)[0].permute(0, 2, 1).flatten(1).chunk(2, 1)[0]), STEPS / 2, False
    ),
    "permuted and flattened": (lambda m, x: m.head(m.rnn(x)[0].permute(0, 2, 1).flatten(1)), STEPS, True),
    "mean over the features, over time": (lambda m, x: m.head(m.rnn(x)[0].mean(-1)), STEPS / WIDTH, False),
    "weighted features": (
        lambda m, x: m.head((m.scale.expand(3, 1, WIDTH) @ m.rnn(x)[0].transpose(1, 2)).squeeze(1)), STEPS / WIDTH, False
    ),
    "head whose weights are read elsewhere": (lambda m, x: m.head(m.rnn(x)[0]) + F.linear(m.scale, m.head.weight), 1, False),
    "features in another order": (lambda m, x: m.head(m.rnn(x)[0][:, :, m.order]), 1, False),
    "features in another order, ellipsis": (lambda m, x: m.head(m.rnn(x)[0][..., m.order]), 1, False),
    "every other feature": (lambda m, x: m.head(m.rnn(x)[0][:, :, m.order % 2 == 0]), 0.5, False),
    "one feature by a computed number": (lambda m, x: m.head(m.rnn(x)[0][..., x.shape[1]]), STEPS / WIDTH, False),
    "batch as last, and as features": (lambda m, x: m.head(m.rnn(x)[0].permute(1, 2, 0)[:, x.shape[0]]), 3 / WIDTH, False),
    "last valid step": (lambda m, x: m.head(m.rnn(x)[0][torch.arange(x.shape[0]), (x[..., 0] > 9).sum(1)]), 1, True),
    "last valid step, colon": (lambda m, x: m.head(m.rnn(x)[0][torch.arange(3), (x[..., 0] > 9).sum(1), :]), 1, True),
    "valid steps": (lambda m, x: m.head(m.rnn(x)[0][x[..., 0] > 0]), 1, True),
    "valid entries": (lambda m, x: m.head(m.rnn(x)[0][(x[..., :1] < 99).expand(3, STEPS, WIDTH)].view(-1, WIDTH)), 1, False),
    "mixed by a matrix": (lambda m, x: m.head(m.matrix @ m.rnn(x)[0][0, -1]), 1, False),
    "axis from a computed number": (lambda m, x: m.head(m.rnn(x)[0].transpose(0, x.dim() - 1).transpose(0, 2)), 1, False),
    "flattened from a computed axis": (lambda m, x: m.head(m.rnn(x)[0].flatten(start_dim=x.dim() - 2)), STEPS, False),
    "sizes cut at a computed place": (lambda m, x: m.head(m.rnn(x)[0]) / m.rnn(x)[0].shape[: x.dim() - 1][0], 1, False),
    "joined by name": (lambda m, x: m.head(torch.cat(tensors=(x, m.rnn(x)[0]), dim=-1)), 1.25, False),
    "width by name": (lambda m, x: m.head(m.rnn(x)[0]) / m.rnn(x)[0].size(dim=-1), 1, False),
    "time by name": (lambda m, x: m.head(m.rnn(x)[0]) / m.rnn(x)[0].size(dim=1), 1, True),
    "head and output in a dictionary": (lambda m, x: {"a": m.head(m.rnn(x)[0]), "b": [m.rnn(x)[0]]}, 1, False),
    "head and output in a record": (lambda m, x: Record(m.head(m.rnn(x)[0]), m.rnn(x)[0]), 1, False),
    "states made of zeros": (
        lambda m, x: m.head(m.rnn(x, (torch.zeros(x.shape[0], 2, 6).to(x).transpose(0, 1).contiguous(),) * 2)[0]), 1, True
    ),
    "step by select": (lambda m, x: m.head(m.rnn(x)[0].select(1, -1)), 1, True),
    "step by select of a computed step": (lambda m, x: m.head(torch.select(m.rnn(x)[0], 1, x.shape[1] - 2)), 1, True),
    "feature by select": (lambda m, x: m.head(m.rnn(x)[0].select(-1, 3)), STEPS / WIDTH, False),
    "step by unbind": (lambda m, x: m.head(m.rnn(x)[0].unbind(1)[-1]), 1, True),
    "features by unbind": (lambda m, x: m.head(torch.unbind(m.rnn(x)[0], 2)[-1]), STEPS / WIDTH, False),
    "final states by unbind, as a sequence": (lambda m, x: m.head(torch.hstack(m.rnn(x)[1][0].unbind(0)[::-1])), 1, False),
    "final states by unbind, the other order": (lambda m, x: m.head(halves(m.rnn(x)[1][0].unbind(0))), 1, True),
    "final states, hstack": (lambda m, x: m.head(torch.hstack((m.rnn(x)[1][0][-2], m.rnn(x)[1][0][-1]))), 1, True),
    "steps, vstack": (lambda m, x: m.head(torch.vstack((m.rnn(x)[0][:, 0], m.rnn(x)[0][:, 1]))), 1, True),
    "unbatched steps, vstack": (lambda m, x: m.head(torch.vstack((m.rnn(x)[0][0, 0], m.rnn(x)[0][0, 1]))), 1, True),
    "final states, vstack": (lambda m, x: m.head(torch.vstack((m.rnn(x)[1][0][0], m.rnn(x)[1][0][1]))), 0.5, False),
    "steps, dstack": (lambda m, x: m.head(torch.dstack((m.rnn(x)[0], m.rnn(x)[0]))), 2, True),
    "steps, dstack to a new axis": (
        lambda m, x: m.head(torch.dstack((m.rnn(x)[0][:, 0], m.rnn(x)[0][:, 1])).transpose(1, 2)), 1, True
    ),
    "final states stacked and flattened": (
        lambda m, x: m.head(torch.stack((m.rnn(x)[1][0][-2], m.rnn(x)[1][0][-1]), dim=1).flatten(1)), 1, True
    ),
    "final states stacked last and flattened": (
        lambda m, x: m.head(torch.stack((m.rnn(x)[1][0][-2], m.rnn(x)[1][0][-1]), dim=-1).flatten(1)), 1, False
    ),
    "final states stacked and read by slot": (
        lambda m, x: m.head(torch.stack((m.rnn(x)[1][0][-2], m.rnn(x)[1][0][-1]), dim=1)), 0.5, False
    ),
    "final states, batch first, flattened": (lambda m, x: m.head(m.rnn(x)[1][0].transpose(0, 1).flatten(1)), 1, True),
    "final states, permuted, reshaped": (
        lambda m, x: m.head(m.rnn(x)[1][0].permute(1, 0, 2).reshape(x.size(0), -1)), 1, True
    ),
    "final states, by layer and direction": (
        lambda m, x: m.head(m.rnn(x)[1][0].view(1, 2, x.size(0), -1)[-1].transpose(0, 1).reshape(x.size(0), -1)), 1, True
    ),
    "final states, the slots in a list": (
        lambda m, x: m.head(torch.cat([m.rnn(x)[1][0][i] for i in (1, 0)], -1)), 1, True
    ),
    "final states, slots joined": (
        lambda m, x: m.head(torch.cat((m.rnn(x)[1][0][1:], m.rnn(x)[1][0][:1])).transpose(0, 1).flatten(1)), 1, True
    ),
    "final states, batch last in the row": (lambda m, x: m.head(m.rnn(x)[1][0].reshape(3, -1)), 1, False),
    "final states, features before slots": (lambda m, x: m.head(m.rnn(x)[1][0].permute(1, 2, 0).flatten(1)), 1, False),
    "final states, mean of slots": (lambda m, x: m.head(m.rnn(x)[1][0].mean(0)), 0.5, False),
    "final states, sum of slots": (lambda m, x: m.head(m.rnn(x)[1][0][0] + m.rnn(x)[1][0][1]), 0.5, False),
    "final states, mean of the batch": (lambda m, x: m.head(m.rnn(x)[1][0].mean(1).flatten()), 1, True),
    "final states, scaled and widened": (
        lambda m, x: m.head((m.rnn(x)[1][0] * 0.5)[:, :, None].expand(-1, -1, 2, -1)[:, :, 1].permute(1, 0, 2).flatten(1)),
        1, True
    ),
    "step repeated": (lambda m, x: m.head(m.rnn(x)[0][:, -1:].expand(-1, x.shape[1], -1)), 1, True),
    "step repeated, all sizes": (lambda m, x: m.head(m.rnn(x)[0][:, -1:].expand(3, STEPS, WIDTH)), 1, False),
    "step repeated as its sequence": (lambda m, x: m.head(m.rnn(x)[0][:, -1:].expand_as(m.rnn(x)[0])), 1, True),
    "step repeated as the weights": (lambda m, x: m.head(m.rnn(x)[0][:, -1].expand_as(m.scale.expand(3, 12))), 1, False),
    "step repeated in memory": (lambda m, x: m.head(m.rnn(x)[0][:, -1:].repeat(1, 3, 1)), 1, True),
    "features repeated": (lambda m, x: m.head(m.rnn(x)[0][:, -1].repeat(1, 2)), 2, True),
    "features repeated one by one": (lambda m, x: m.head(m.rnn(x)[0].repeat_interleave(2, -1)), 2, False),
    "maximum over time, by name, unpacked": (lambda m, x: m.head(torch.max(m.rnn(x)[0], dim=1)[0]), 1, True),
    "maximum by name, its positions": (lambda m, x: m.head(m.rnn(x)[0].max(1).indices.to(x.dtype)), 1, False),
    "argmax over time": (lambda m, x: m.head(m.rnn(x)[0].argmax(1).to(x.dtype)), 1, False),
    "product over time": (lambda m, x: m.head(m.rnn(x)[0].prod(1)), 1, False),
    "pooling module": (lambda m, x: m.head(m.pool(m.rnn(x)[0].transpose(1, 2)).flatten(1)), 1, True),
    "pooling module over the features": (lambda m, x: m.head(m.pool(m.rnn(x)[0]).flatten(1)), STEPS / WIDTH, False),
    "residual of two steps": (lambda m, x: m.head(m.rnn(x)[0][:, 1:] - m.rnn(x)[0][:, :-1]), 1, True),
    "residual by a method": (lambda m, x: m.head(m.rnn(x)[0].add(m.rnn(x)[0][:, -1:], alpha=0.5)), 1, True),
    "residual in another order": (
        lambda m, x: m.head(m.rnn(x)[0] + torch.cat(m.rnn(x)[0].chunk(2, -1)[::-1], -1)), 1, False
    ),
    "step times step": (lambda m, x: m.head(m.rnn(x)[0][:, -1] * m.rnn(x)[0][:, 0]), 1, True),
    "step divided by step": (lambda m, x: m.head(m.rnn(x)[0][:, -1] / (m.rnn(x)[0][:, 0] ** 2 + 1)), 1, False),
    "larger of two steps": (lambda m, x: m.head(torch.maximum(m.rnn(x)[0][:, -1], m.rnn(x)[0][:, 0])), 1, True),
    "directions swapped": (lambda m, x: m.head(torch.cat(m.rnn(x)[0].chunk(2, -1)[::-1], -1)), 1, False),
    "directions swapped, unpacked": (lambda m, x: m.head(halves(m.rnn(x)[0].chunk(2, -1))), 1, EVEN),
    "thirds": (lambda m, x: m.head(m.rnn(x)[0].chunk(3, -1)[1]), 1 / 3, False),
    "directions of several steps": (lambda m, x: m.head(torch.chunk(m.rnn(x)[0].flatten(1), 4, 1)[2]), 1, EVEN),
    "quarters of the steps": (lambda m, x: m.head(torch.chunk(m.rnn(x)[0].flatten(1), 16, 1)[2]), 0.25, False),
    "split by number": (lambda m, x: m.head(m.rnn(x)[0].split(6, -1)[0]), 0.5, False),
    "steps by chunk and split": (lambda m, x: m.head(m.rnn(x)[0].chunk(2, 1)[1].split([1, 1], 1)[1]), 1, True),
    "masked by zeros": (lambda m, x: m.head(m.rnn(x)[0].masked_fill(x[..., :1] > 0, 0)), 1, True),
    "masked by zeros, one by one": (lambda m, x: m.head(m.rnn(x)[0].masked_fill(m.scale > 0, 0.0)), 1, False),
    "masked by infinity": (lambda m, x: m.head(m.rnn(x)[0].masked_fill(x[..., :1] > 9, -9.0).amax(1)), 1, False),
    "masked by an expanded mask": (
        lambda m, x: m.head(m.rnn(x)[0] * (x[..., :1] > 0).expand(m.rnn(x)[0].size()).to(x.dtype)), 1, True
    ),
    "masked by a mask expanded as the output": (
        lambda m, x: m.head(m.rnn(x)[0].masked_fill(~(x[..., :1] > 0).expand_as(m.rnn(x)[0]), 0.0)), 1, True
    ),
    "masked by a mask of fixed width": (
        lambda m, x: m.head(m.rnn(x)[0].masked_fill((x[..., :1] > 0).expand(3, STEPS, WIDTH), 0.0)), 1, False
    ),
    "chosen by where": (lambda m, x: m.head(torch.where(x[..., :1] > 0, m.rnn(x)[0], 0.0)), 1, True),
    "chosen by where, or one": (lambda m, x: m.head(torch.where(x[..., :1] > 0, m.rnn(x)[0], 1.0)), 1, False),
    "chosen by where, or a step": (lambda m, x: m.head(torch.where(x[..., :1] > 0, m.rnn(x)[0], m.rnn(x)[0][:, :1])), 1, True),
    "last valid step by gather": (
        lambda m, x: m.head(gathered(m.rnn(x)[0], last(x).view(-1, 1, 1).expand(-1, 1, m.rnn(x)[0].size(2)))), 1, True
    ),
    "last valid step by gather, in two steps": (
        lambda m, x: m.head(gathered(m.rnn(x)[0], last(x).view(-1, 1).expand(3, m.rnn(x)[0].shape[-1]).unsqueeze(1))), 1, True
    ),
    "last valid step by gather, repeated": (
        lambda m, x: m.head(gathered(m.rnn(x)[0], last(x).view(-1, 1, 1).repeat(1, 1, m.rnn(x)[0].size(2)))), 1, True
    ),
    "last valid step by gather, fixed width": (
        lambda m, x: m.head(gathered(m.rnn(x)[0], last(x).view(-1, 1, 1).expand(-1, 1, WIDTH))), 1, False
    ),
    "features by gather": (
        lambda m, x: m.head(m.rnn(x)[0].gather(2, last(x).view(-1, 1, 1).expand(3, STEPS, WIDTH))), 1, False
    ),
    "last valid step, along": (lambda m, x: m.head(torch.take_along_dim(m.rnn(x)[0], last(x)[:, None, None], 1)), 1, True),
    "expanded width as numbers": (lambda m, x: m.head(last(x).view(-1, 1).expand(3, m.rnn(x)[0].size(2)).to(x.dtype)), 1, False),
    "steps as rows of their own width": (lambda m, x: m.head(m.rnn(x)[0].reshape(-1, m.rnn(x)[0].size(-1))), 1, True),
    "steps as rows of another width": (
        lambda m, x: m.head(m.rnn(x)[0].reshape(-1, m.rnn(x)[0].size(1) * m.rnn(x)[0].size(2))), STEPS, False
    ),
    "sum up to each step": (lambda m, x: m.head(m.rnn(x)[0].cumsum(1).narrow(1, 1, 2)), 1, True),
    "sum up to each feature": (lambda m, x: m.head(m.rnn(x)[0].cumsum(-1)), 1, False),
    "backwards in time": (lambda m, x: m.head(m.rnn(x)[0].flip(1).index_select(1, last(x)[:1])), 1, True),
    "gated by an expanded vector": (lambda m, x: m.head(m.rnn(x)[0] * m.scale.expand(m.rnn(x)[0].size())), 1, False),
    "width of the states used as a number": (
        lambda m, x: m.head(m.rnn(x)[1][0].transpose(0, 1).flatten(1)) / m.rnn(x)[1][0].size(-1), 1, False
    ),
    "states fed back": (lambda m, x: m.head(m.rnn(x, m.rnn(x)[1])[0]), 1, True),
}  # fmt: skip


def halves(both):
    first, second = both
    return torch.cat((second, first), -1)


def last(x):
    return (x[..., 0] > 0).sum(1).clamp(max=STEPS - 1)


def gathered(y, index):
    return y.gather(1, index).squeeze(1)


@dataclass
class Record:
    scores: torch.Tensor
    states: torch.Tensor


def name_of(function):
    """An id that is the same in every process; str() of a function holds its address."""
    return function if isinstance(function, str) else function.__name__


class Model(nn.Module):
    def __init__(self, forward, share):
        super().__init__()
        self.rnn = nn.LSTM(3, 6, batch_first=True, bidirectional=True)
        self.head, self.scale = nn.Linear(round(share * WIDTH), 2), nn.Parameter(torch.randn(WIDTH))
        self.matrix = nn.Parameter(torch.randn(WIDTH, WIDTH))
        self.register_buffer("order", torch.randperm(WIDTH))
        self.pool = nn.AdaptiveMaxPool1d(1)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


def model_of(name):
    torch.manual_seed(0)
    forward, share, shrinks = TABLE[name]
    return Model(forward, share).double().eval(), torch.randn(3, STEPS, 3, dtype=torch.float64), shrinks


@pytest.mark.parametrize("fractions", [(0.5,), (0.5, 0.2)], ids=["equal", "unequal"])
@pytest.mark.parametrize("name", TABLE)
def test_what_is_traced_is_sound(name, fractions):
    model, x, shrinks = model_of(name)
    plan = random_plan(model, fractions)
    cut = _cut(model, plan, example(x)).compact
    assert largest_difference(mask(model, plan)(x), cut(x)) <= 1e-12
    states = any(word in name for word in ("final states", "cell states", "fed back"))
    if not (states and len(fractions) > 1):  # states of unequal width have no common tensor
        expected = len(fractions) == 1 if shrinks is EVEN else shrinks
        assert (cut.head.in_features < model.head.in_features) == expected


# "states fed back": there the unit is read by its own recurrence, too.
@pytest.mark.parametrize("name", [name for name, row in TABLE.items() if row[-1] is True and name != "states fed back"])
def test_a_claimed_unit_is_read_through_the_claimed_columns_only(name):
    """With its columns zeroed in the claimed readers, a unit may take any value: the outputs do not see it."""
    model, x, _ = model_of(name)
    flow = trace(model, sites(model), (x,))
    assert Port("rnn", "output") not in flow.escapes
    site, unit = sites(model)[1], 2
    (reader,) = [reader for reader in flow.readers if reader.module == "head"]
    columns = [place[unit] for place in occurrences(reader.labels, flow.units.labels(site))]
    assert columns
    with torch.no_grad():
        model.head.weight[:, columns] = 0.0

    def outputs(value):
        def disturb(module, args, result):
            output, (h, c) = result
            parts = [tensor.clone() for tensor in (output, h, c)]
            parts[0][..., 6 + unit] = value
            parts[1][1, :, unit] = parts[2][1, :, unit] = value
            return parts[0], (parts[1], parts[2])

        with model.rnn.register_forward_hook(disturb):
            result = model(x)
        return result[0] if isinstance(result, tuple) else result

    assert torch.equal(outputs(0.3), outputs(-5.0))


def cut_of(model, x):
    """The traced cut of half the units, and its largest difference from the masked model."""
    plan = random_plan(model, (0.5,))
    cut = _cut(model, plan, example(x)).compact
    return cut, largest_difference(mask(model, plan)(x), cut(x))


@pytest.mark.parametrize("function", [f for f in ZERO_PRESERVING if f != "cuda"], ids=name_of)
def test_functions_that_keep_zero_do(function):
    x = torch.tensor([0.0, 0.5, 2.0])

    def apply(x):
        arguments = {"to": (torch.float32,), "type_as": (x,), F.dropout: (0.5, False)}.get(function, ())
        return getattr(x.clone(), function)(*arguments) if isinstance(function, str) else function(x, *arguments)

    assert float(apply(x)[0]) == 0.0
    assert torch.equal(apply(x)[1:], apply(x[1:]))


@pytest.mark.parametrize("module", ZERO_PRESERVING_MODULES)
def test_modules_that_keep_zero_do(module):
    x = torch.tensor([0.0, 0.5, 2.0])
    y = module().eval()(x)
    assert float(y[0]) == 0.0
    torch.testing.assert_close(y[1:], module().eval()(x[1:]))


def test_every_traced_rule_is_of_a_known_kind():
    assert all(isinstance(target, str) or callable(target) for target in RULES)
    assert operator.pow not in RULES  # 0 ** 0 is not 0


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_padding_that_is_not_zero_is_not_read_as_removed(value):
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x, lengths):
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            y, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, padding_value=value)
            return self.head(y)

    torch.manual_seed(0)
    model, args = Packed().double(), (torch.randn(3, 4, 3, dtype=torch.float64), torch.tensor([2, 4, 1]))
    plan = random_plan(model, (0.5,))
    cut = _cut(model, plan, example(args)).compact
    assert largest_difference(mask(model, plan)(*args), cut(*args)) <= 1e-12
    assert (cut.head.in_features == 3) == (value == 0.0)


def test_one_trace_leaves_nothing_behind_for_the_next():
    """A model that packs, then one that does not: torch.fx keeps a global list of wrapped functions."""

    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(3, 6, batch_first=True)

        def forward(self, x):
            return pad_packed_sequence(self.rnn(x)[0], batch_first=True)[0]

    x = torch.randn(3, 4, 3)
    packed = pack_padded_sequence(x, torch.tensor([4, 2, 1]), batch_first=True)
    first = Packed()
    assert trace(first, sites(first), (packed,)).reason is None
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    flow = trace(model, sites(model, linear=True), (x,))
    assert flow.reason is None
    assert [reader.module for reader in flow.readers] == ["0", "2"]


def test_what_cannot_be_traced_claims_nothing():
    class Branching(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x):
            y = self.rnn(x)[0]
            return self.head(y) if y.sum() > 0 else self.head(-y)

    model = Branching()
    flow = trace(model, sites(model), (torch.randn(2, 3, 3),))
    assert "cannot trace" in flow.reason
    assert flow.readers == ()
    assert Port("rnn", "output") in flow.escapes
    assert trace(model, sites(model), None).reason == "no example inputs were given"


@pytest.mark.parametrize("operation", [jali.compact, jali.mask])
@pytest.mark.parametrize("where", ["two modules", "two layers of one"])
def test_shared_parameters_are_refused(operation, where):
    """What goes at the one place would go at the other, too."""
    model = nn.GRU(6, 6, 2) if where == "two layers of one" else nn.ModuleList([nn.GRU(6, 6), nn.GRU(6, 6)])
    if isinstance(model, nn.GRU):
        model.weight_hh_l1 = model.weight_hh_l0
    else:
        model[1].weight_hh_l0 = model[0].weight_hh_l0
    other = "weight_hh_l1" if isinstance(model, nn.GRU) else "1.weight_hh_l0"
    with pytest.raises(jali.errors.ModelError, match=f"is shared with {other}, so it cannot be cut; untie it"):
        operation(model, random_plan(model, (0.5,)))


class TiedReaders(nn.Module):
    """A layer whose units are read with a weight that also serves elsewhere."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.embed, self.rnn = kind, nn.Embedding(9, 6), nn.GRU(6, 6, batch_first=True)
        self.head, self.other = nn.Linear(6, 9), nn.Linear(6, 9)
        self.both = nn.LSTM(6, 4, batch_first=True, bidirectional=True)
        if kind == "head and embedding":
            self.head.weight = self.embed.weight
        elif kind == "two heads":
            self.head.weight = self.other.weight
        else:
            self.both.weight_ih_l0_reverse = self.both.weight_ih_l0

    def forward(self, x):
        y = self.rnn(self.embed(x))[0]
        return self.both(y)[0] if self.kind == "two directions" else self.head(y) + self.other(y.flip(1))


@pytest.mark.parametrize("kind", ["head and embedding", "two heads", "two directions"])
def test_readers_with_tied_weights_stay_tied(kind):
    """A weight that shrinks on its own would no longer be one with the other: training would part them."""
    torch.manual_seed(0)
    model, x = TiedReaders(kind).eval(), torch.randint(0, 9, (3, 5))
    plan = jali.plan(model, "magnitude", 0.5, sites=["rnn.*"])
    small = jali.compact(model, plan, x)
    torch.testing.assert_close(small(x), jali.mask(model, plan)(x))
    ties = {
        "head and embedding": (small.head.weight, small.embed.weight),
        "two heads": (small.head.weight, small.other.weight),
        "two directions": (small.both.weight_ih_l0, small.both.weight_ih_l0_reverse),
    }
    assert ties[kind][0] is ties[kind][1]


def test_labels_follow_the_units_through_directions_and_layers():
    model, x, _ = model_of("joined with the input")
    flow = trace(model, sites(model), (x,))
    (head,) = [reader for reader in flow.readers if reader.module == "head"]
    forward, backward = (flow.units.labels(site) for site in sites(model))
    np.testing.assert_array_equal(head.labels, [-1, -1, -1, *forward, *backward])


@pytest.mark.parametrize(
    "join",
    [
        lambda a, b: torch.stack((a[0], b[0])),
        lambda a, b: torch.cat((a[0], b[0]), 1),
        lambda a, b: torch.vstack((a[1], b[1])),
        lambda a, b: torch.stack((a[0][:, -1], b[0][:, -1]), 1).flatten(1),
        lambda a, b: torch.cat((a[1], b[1])).transpose(0, 1).flatten(1),
        lambda a, b: a[0].reshape(-1, b[0].size(-1)),
    ],
    ids=[
        "outputs stacked",
        "outputs one after the other",
        "states stacked",
        "outputs in rows",
        "states in rows",
        "width of the other",
    ],
)
@pytest.mark.parametrize("fractions", [(0.5,), (0.5, 0.2)], ids=["equal", "unequal"])
def test_layers_that_may_keep_different_widths_are_not_joined_in_one_tensor(join, fractions):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.GRU(3, 6, batch_first=True), nn.GRU(3, 6, batch_first=True)
            self.head = nn.LazyLinear(2)

        def forward(self, x):
            return self.head(join(self.a(x), self.b(x)))

    torch.manual_seed(0)
    model, x = Two().double().eval(), torch.randn(3, STEPS, 3, dtype=torch.float64)
    model(x)
    plan = random_plan(model, fractions)
    cut = _cut(model, plan, example(x)).compact
    assert largest_difference(mask(model, plan)(x), cut(x)) <= 1e-12
    assert cut.head.in_features == model.head.in_features


def plain(head):
    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 6, batch_first=True), head

        def forward(self, x):
            return self.head(self.rnn(x)[0])

    torch.manual_seed(0)
    return Plain().double().eval(), torch.randn(3, 4, 3, dtype=torch.float64)


def prune_half(head):
    return prune.l1_unstructured(head, "weight", 0.5)


@pytest.mark.parametrize(
    "norm", [parametrizations.weight_norm, parametrizations.spectral_norm, prune_half], ids=name_of
)
def test_weights_that_are_computed_from_others_are_not_cut(norm):
    model, x = plain(norm(nn.Linear(6, 2)))
    cut, difference = cut_of(model, x)
    assert difference <= 1e-12
    assert cut.head.in_features == 6


def test_a_reader_with_hooks_is_not_cut():
    """The hook sees the features, and a new head would not have it."""
    head = nn.Linear(6, 2)
    head.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    model, x = plain(head)
    cut, difference = cut_of(model, x)
    assert difference <= 1e-12
    assert cut.head.in_features == 6


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_nothing_is_claimed_of_a_layer_with_hooks(hook):
    model, x = plain(nn.Linear(6, 2))
    getattr(model.rnn, hook)(lambda *args: None)
    flow = trace(model, sites(model), (x,))
    assert set(flow.escapes) == {Port("rnn", what) for what in ("output", "h", "c")}
    assert all((reader.labels == -1).all() for reader in flow.readers)


def test_a_masked_model_is_cut_as_far_as_the_model_itself():
    model, x = plain(nn.Linear(6, 2))
    masked = mask(model, random_plan(model, (0.5,)))
    cut, difference = cut_of(masked, x)
    assert difference <= 1e-12
    assert cut.head.in_features == 3


def test_a_result_written_into_another_layers_states():
    class Overwriting(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.GRU(3, 6, batch_first=True), nn.GRU(3, 6, batch_first=True)
            self.head = nn.Linear(6, 2)

        def forward(self, x):
            y = self.first(x)[0].detach()
            torch.neg(self.second(x)[0].detach(), out=y)
            return self.head(y)

    torch.manual_seed(0)
    cut, difference = cut_of(Overwriting().double().eval(), torch.randn(3, 4, 3, dtype=torch.float64))
    assert difference <= 1e-12
    assert cut.head.in_features == 6


def test_features_inside_packed_sequences_are_followed():
    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.top = nn.GRU(3, 6, batch_first=True), nn.GRU(6, 4, batch_first=True)
            self.head = nn.Linear(6, 2)

        def forward(self, x):
            packed = pack_padded_sequence(x, torch.tensor([4, 2, 1]), batch_first=True)
            y = self.rnn(packed)[0]
            y = y._replace(data=F.dropout(y.data, 0.5, self.training))
            return self.head(y.data), self.top(y)[1]

    torch.manual_seed(0)
    cut, difference = cut_of(Packed().double().eval(), torch.randn(3, 4, 3, dtype=torch.float64))
    assert difference <= 1e-12
    assert (cut.head.in_features, cut.top.input_size) == (3, 3)


@pytest.mark.parametrize("cls", [nn.RNNCell, nn.GRUCell, nn.LSTMCell])
def test_cells_in_a_loop_are_read_with_their_inputs_only(cls):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.cell, self.head = nn.GRU(3, 6, batch_first=True), cls(6, 6), nn.Linear(6, 2)

        def forward(self, x):
            y, state = self.rnn(x)[0], None
            for t in range(4):
                state = self.cell(y[:, t], state)
            return self.head(state[0] if cls is nn.LSTMCell else state)

    torch.manual_seed(0)
    model, x = Loop().double().eval(), torch.randn(3, 4, 3, dtype=torch.float64)
    flow = trace(model, sites(model), (x,))
    labels = {reader.module: reader.labels for reader in flow.readers}
    np.testing.assert_array_equal(labels["cell"], flow.units.labels(sites(model)[0]))
    cut, difference = cut_of(model, x)
    assert difference <= 1e-12
    assert (cut.cell.inner.input_size, cut.head.in_features) == (3, 6)


def test_the_reasons_come_in_a_fixed_order():
    model, x, _ = model_of("states fed back")
    whole = trace(nn.Sequential(model.rnn), sites(nn.Sequential(model.rnn)), (x,))
    assert list(whole.escapes) == [Port("0", what) for what in ("output", "h", "c")]


def test_a_forward_that_reads_the_weights_of_a_layer_is_refused():
    class Penalised(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn, self.head = nn.GRU(3, 6, batch_first=True), nn.Linear(6, 2)

        def forward(self, x):
            return self.head(self.rnn(x)[0]), self.rnn.weight_hh_l0

    model = Penalised()
    with pytest.raises(jali.errors.ModelError, match="depends on the inside of a pruned layer"):
        jali.compact(model, random_plan(model, (0.5,)), torch.randn(2, 4, 3))
