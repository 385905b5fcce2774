"""The training loop: heads on one trunk, each learning from its own labels only."""

from __future__ import annotations

import csv
import logging
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.errors import TrainingError
from models.labels import IGNORE
from models.network import Res32, build
from models.sampling import RARE_STRIDE, Batch, Maker, Stream, batches

LOG = logging.getLogger(__name__)

SAVE_EVERY = 100


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a network is trained.

    Attributes:
        steps: Number of optimiser steps.
        size: Edge of the crops, divisible by 32.
        fold: How many times a head's own number of crops a step takes.
        rate: Highest learning rate (one cycle, cosine).
        seed: Of weights and batches.
        threads: CPU threads of torch.
        precision: ``float32`` or ``bfloat16`` (faster where the device has it).
        device: ``cpu`` or ``cuda``.
        workers: Processes that make batches; 0 makes them in a thread.
        average: Decay of the averaged weights that are kept as the result.
        rare_weight: Loss weight of the anomaly classes against ``none``.
        settle: Share of the steps after which normalisations keep their running statistics:
            batches mix very different ground, and what flies sees no batch.
    """

    steps: int = 3000
    size: int = 192
    fold: int = 1
    rate: float = 2e-3
    seed: int = 1
    threads: int = 2
    precision: str = "float32"
    device: str = "cpu"
    workers: int = 0
    average: float = 0.995
    rare_weight: float = 5.0
    settle: float = 0.5


def train(
    streams: tuple[Stream, ...],
    heads: dict[str, int],
    recipe: Recipe,
    run: Path,
    *,
    resume: bool = False,
    start_from: Path | None = None,
    watch: Callable[[int, dict[str, float]], None] | None = None,
) -> Res32:
    """Returns the network with averaged weights; leaves ``checkpoint.pt`` and ``log.csv`` in run.

    Args:
        streams: One per head.
        heads: Number of classes per head.
        recipe: How to train.
        run: Folder of the run; made if missing.
        resume: Go on from the run's checkpoint where there is one.
        start_from: A finished run whose averaged weights and statistics are taken up; its
            normalisations then stay as they are.
        watch: Called after each step with its number and the losses.

    Raises:
        TrainingError: The loss is not finite, the checkpoint is of another network, or there is
            no such device.
    """
    if recipe.device == "cuda" and not torch.cuda.is_available():
        raise TrainingError("this torch finds no CUDA device", "train with --device cpu")
    run.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(recipe.seed)
    torch.backends.cudnn.benchmark = True
    network, mean = build(heads), build(heads)
    network.to(recipe.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    mean.to(recipe.device)
    if start_from is not None:
        network.load_state_dict(_start(start_from, heads))
        recipe = replace(recipe, settle=0.0)
    mean.load_state_dict(network.state_dict())
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=recipe.rate, weight_decay=0.02, fused=recipe.device == "cuda"
    )
    first = _resume(run, network, mean, optimiser) if resume else 0
    started = time.monotonic()
    maker = Maker(streams, recipe.seed, recipe.size, recipe.fold)
    drawn = batches(maker, first, recipe.steps, recipe.workers)
    for step, batch in enumerate(drawn, start=first):
        for group in optimiser.param_groups:
            group["lr"] = recipe.rate * _cycle(step / max(1, recipe.steps))
        _set_mode(network, settled=step >= recipe.settle * recipe.steps)
        losses = _step(network, batch, optimiser, recipe)
        _follow(mean, network, min(recipe.average, (step + 1) / (step + 10)))
        if not np.isfinite(sum(losses.values())):
            raise TrainingError(
                f"the loss is not finite at step {step}: {losses}", "lower --rate, then --resume"
            )
        if watch:
            watch(step, losses)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == recipe.steps:
            _save(run, step + 1, network, mean, optimiser, heads, recipe)
            _log(run, step + 1, losses, time.monotonic() - started)
    return mean.cpu().eval()


def load_checkpoint(path: Path) -> tuple[Res32, dict[str, Any]]:
    """Returns the averaged network of a checkpoint and what the checkpoint says of itself."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network = build(state["heads"])
        network.load_state_dict(state["mean"])
    except FileNotFoundError as error:
        raise TrainingError(f"there is no checkpoint {path}", "train first") from error
    except (RuntimeError, KeyError, EOFError) as error:
        raise TrainingError(
            f"{path} is not a checkpoint of this network: {error}", "train again"
        ) from error
    network.eval()
    return network, {key: state[key] for key in ("step", "heads", "recipe")}


def head_loss(logits: Tensor, batch: Batch, stride: int, rare_weight: float) -> Tensor:
    """Returns the cross-entropy of one head on its own crops.

    Where a head looks for small rare things, their classes weigh more.
    """
    if (batch.labels == IGNORE).all():
        return logits.float().sum() * 0
    weight = torch.ones(logits.shape[1], device=logits.device)
    if stride == RARE_STRIDE:
        weight[1:] = rare_weight
    known = torch.from_numpy(batch.labels).to(logits.device)
    return functional.cross_entropy(logits.float(), known, weight=weight, ignore_index=IGNORE)


def _step(
    network: Res32, batch: dict[str, Batch], optimiser: torch.optim.Optimizer, recipe: Recipe
) -> dict[str, float]:
    stacked = np.concatenate([part.pixels for part in batch.values()])
    pixels = torch.from_numpy(stacked).to(recipe.device).permute(0, 3, 1, 2).float()
    with torch.autocast(recipe.device, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
        logits = network(pixels)
    losses, start = {}, 0
    for name, part in batch.items():
        own = logits[name][start : start + len(part.pixels)]
        losses[name] = head_loss(own, part, network.strides[name], recipe.rare_weight)
        start += len(part.pixels)
    optimiser.zero_grad(set_to_none=True)
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
    optimiser.step()
    return {name: float(loss.detach()) for name, loss in losses.items()}


def _set_mode(network: Res32, *, settled: bool) -> None:
    """Puts the network in training mode, its normalisations in evaluation mode once settled."""
    network.train()
    if settled:
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()


def _cycle(done: float) -> float:
    """Returns the share of the highest rate: a linear rise over 5 %, then a cosine to 0.1 %."""
    if done < 0.05:
        return 0.1 + 0.9 * done / 0.05
    return 0.001 + 0.999 * 0.5 * (1 + float(np.cos(np.pi * (done - 0.05) / 0.95)))


@torch.no_grad()
def _follow(mean: Res32, network: Res32, decay: float) -> None:
    """Moves the averaged weights toward the network's; takes its running statistics."""
    pairs = list(zip(mean.state_dict().values(), network.state_dict().values(), strict=True))
    real = [(old, new) for old, new in pairs if old.dtype.is_floating_point]
    torch._foreach_lerp_([old for old, _ in real], [new for _, new in real], 1 - decay)
    for old, new in pairs:
        if not old.dtype.is_floating_point:
            old.copy_(new)


def _save(
    run: Path,
    step: int,
    network: Res32,
    mean: Res32,
    optimiser: torch.optim.Optimizer,
    heads: dict[str, int],
    recipe: Recipe,
) -> None:
    state = {
        "step": step,
        "heads": heads,
        "recipe": asdict(recipe),
        "network": network.state_dict(),
        "mean": mean.state_dict(),
        "optimiser": optimiser.state_dict(),
    }
    fresh = run / "checkpoint.pt.part"
    with fresh.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(run / "checkpoint.pt")


def _start(run: Path, heads: dict[str, int]) -> dict[str, Tensor]:
    """Returns the averaged weights of another run with the same heads."""
    known, about = load_checkpoint(run / "checkpoint.pt")
    if about["heads"] != heads:
        raise TrainingError(
            f"{run} was trained for heads {about['heads']}, not {heads}",
            "name the same heads with the same classes",
        )
    return known.state_dict()


def _resume(run: Path, network: Res32, mean: Res32, optimiser: torch.optim.Optimizer) -> int:
    path = run / "checkpoint.pt"
    if not path.exists():
        return 0
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        network.load_state_dict(state["network"])
        mean.load_state_dict(state["mean"])
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, KeyError, EOFError, ValueError) as error:
        raise TrainingError(
            f"{path} cannot be resumed: {error}", "start again in another folder"
        ) from error
    LOG.info("training_resumed step=%d", state["step"])
    return int(state["step"])


def _log(run: Path, step: int, losses: dict[str, float], seconds: float) -> None:
    path = run / "log.csv"
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        if fresh:
            writer.writerow(["step", "seconds", *losses])
        writer.writerow([step, round(seconds, 1), *[round(v, 5) for v in losses.values()]])
    shown = " ".join(f"{name}={value:.4f}" for name, value in losses.items())
    LOG.info("training_step step=%d seconds=%.0f %s", step, seconds, shown)
