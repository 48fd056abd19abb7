"""Modules of torch, importable by name as a user's are."""

import torch
from torch import nn
from torch.nn import functional


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Linear(width * 36, 2)
        self.activation = functional.relu
        self.config = {"width": width, "rate": 1e-3}
        self.register_buffer("scale", torch.tensor(2.0), persistent=False)
        for parameter in self.first.parameters():
            parameter.requires_grad = False

    def forward(self, x):
        return self.last(self.activation(self.norm(self.first(x))).flatten(1)) * self.scale


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, x):
        return self.head(self.embedding(x))
