"""Toy tasks and networks in the hands of Avalanche's own classes, as its users make them."""

import torch
from avalanche.training.plugins import EvaluationPlugin

from thalnet_mtl import Network, ThalNet
from thalnet_mtl.avalanche import runner
from thalnet_mtl.avalanche.model import Loss


def tasks(**makers):
    """Toy tasks by name, loaded."""
    return {name: make().named(name).load("cpu") for name, make in makers.items()}


def network_for(known, **options):
    torch.manual_seed(0)
    network = Network(ThalNet(inputs=3, modules=2, features=5, **options))
    for name, task in known.items():
        network.add_task(name, task.spec)
    return network


def strategy_of(kind, model, **options):
    """Of Avalanche's own classes, as its users make them."""
    options = {"train_mb_size": 25, "eval_mb_size": 50, "evaluator": silent()} | options
    optimizer = options.pop("optimizer", None) or torch.optim.SGD(model.parameters(), lr=0.1)
    return kind(model=model, optimizer=optimizer, criterion=Loss(model), **options)


def silent(*metrics):
    return EvaluationPlugin(*metrics, loggers=[runner._SilentLogger()])
