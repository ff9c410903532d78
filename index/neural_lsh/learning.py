"""Learning the network, in PyTorch, on the CPU or a GPU; what comes out needs neither.

What a vector is to tell are the bins of its neighbours, not its own bin alone: the histogram of the bins of soft_k nearest and
itself, by cross-entropy (Dong et al. 2020, the released code's soft labels). So a query's probabilities say where its
neighbours are, which is what probing several bins wants.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vecdb.errors import MissingExtra
from vecdb.index.base import NeuralLshConfig, Vectors
from vecdb.index.neural_lsh.network import Network

_BATCH = 256
_RATE = 3e-3  # of AdamW, at the top of a one-cycle schedule
_DECAY = 1e-4
_DROPOUT = 0.1


def learn(
    vectors: Vectors,
    labels: NDArray[np.int32],
    nearest: NDArray[np.int32],
    bins: int,
    config: NeuralLshConfig,
    *,
    hard: bool = False,
    threads: int | None = None,
) -> Network:
    """vectors (N, D), labels (N,) their bins, nearest (N, k) rows of their neighbours, -1 where there are fewer.

    hard: own bins instead of histograms, for comparison. Raises MissingExtra without PyTorch.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtra(
            "a neural_lsh index is built with PyTorch; install it: pip install 'vecdb[learned]'"
        ) from error
    device = "cuda" if torch.cuda.is_available() else "cpu"
    before = torch.get_num_threads()
    if threads is not None:
        torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if device == "cuda" else []):
            torch.manual_seed(config.seed)
            network: Network = _learned(torch, device, vectors, labels, nearest, bins, config, hard)
            return network
    finally:
        torch.set_num_threads(before)


def _learned(torch, device, vectors, labels, nearest, bins, config, hard):
    mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
    deviation = max(float(np.sqrt(np.mean(np.square(vectors - mean, dtype=np.float64)))), 1e-12)
    model = _model(torch, vectors.shape[1], bins, config).to(device)
    points = torch.from_numpy((vectors - mean) / np.float32(deviation)).to(device)
    own = torch.from_numpy(labels.astype(np.int64)).to(device)
    near = nearest[:, : config.soft_k].astype(np.int64)
    around = torch.from_numpy(np.where(near >= 0, labels[near], labels[:, None]).astype(np.int64)).to(device)
    batches = -(-len(points) // _BATCH)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_RATE, weight_decay=_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=_RATE, total_steps=max(2, config.epochs * batches), pct_start=0.2
    )
    random = np.random.default_rng([config.seed, 2])
    model.train()
    for _ in range(config.epochs):
        order = torch.from_numpy(random.permutation(len(points))).to(device)
        for batch in order.split(_BATCH):
            if len(batch) < 2:  # a batch norm wants two
                continue
            said = torch.log_softmax(model(points[batch]), dim=1)
            # The mean log-probability of the bins of its neighbours and its own: cross-entropy with their histogram.
            told = own[batch][:, None] if hard else torch.cat([own[batch][:, None], around[batch]], dim=1)
            loss = -said.gather(1, told).mean()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
    model.eval()
    return _folded(torch, model, mean, deviation)


def _model(torch, dimension, bins, config):
    layers = []
    width = dimension
    for _ in range(config.layers):
        layers += [
            torch.nn.Linear(width, config.hidden),
            torch.nn.BatchNorm1d(config.hidden),
            torch.nn.ReLU(),
            torch.nn.Dropout(_DROPOUT),
        ]
        width = config.hidden
    layers.append(torch.nn.Linear(width, bins))
    for layer in layers:
        if isinstance(layer, torch.nn.Linear):
            torch.nn.init.xavier_uniform_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
    return torch.nn.Sequential(*layers)


def _folded(torch, model, mean, deviation):
    """The network in evaluation mode: each batch norm, and the standardisation of the input, put into the layer beside it."""
    weights, biases = [], []
    for layer in model:
        if isinstance(layer, torch.nn.Linear):
            weights.append(layer.weight.detach().cpu().double().numpy().T)
            biases.append(layer.bias.detach().cpu().double().numpy())
        elif isinstance(layer, torch.nn.BatchNorm1d):
            factor = (layer.weight / torch.sqrt(layer.running_var + layer.eps)).detach().cpu().double().numpy()
            weights[-1] = weights[-1] * factor
            middle = layer.running_mean.cpu().double().numpy()
            biases[-1] = (biases[-1] - middle) * factor + layer.bias.detach().cpu().double().numpy()
    weights[0] = weights[0] / deviation
    biases[0] = biases[0] - mean.astype(np.float64) @ weights[0]
    return Network(
        [np.ascontiguousarray(weight, np.float32) for weight in weights],
        [np.ascontiguousarray(bias, np.float32) for bias in biases],
    )
