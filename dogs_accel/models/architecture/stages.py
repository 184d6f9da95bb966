"""The stages of a network, and which of them computes at any moment of a forward pass."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from dogs_accel.models.layer_groups import layer_groups


@dataclass(frozen=True)
class ModelStages:
    """The stages of a model, first to last."""

    names: tuple[str, ...]
    """Of each stage: its first module that has a matrix of weights."""
    modules: tuple[tuple[str, ...], ...]
    """Of each stage: the largest modules that lie in it whole, in the order in which they run."""
    parameters: tuple[tuple[str, ...], ...]
    """Of each stage: names of its parameters."""
    calls: tuple[tuple[str, int], ...]
    """Modules as a forward pass calls them, each with its stage."""


@dataclass
class _Call:
    """A module as it ran."""

    name: str
    stage: int | None
    inputs: tuple[int, ...]
    output: tuple[int, ...] = ()

    @property
    def keeps_cells(self) -> bool:
        """Whether it gives the cells that it gets, (N, C, h, w), (N, h, w, C) or (N, T, C), in any order."""
        return len(self.output) in (3, 4) and sorted(self.output) == sorted(self.inputs)

    @property
    def makes_vectors(self) -> bool:
        """Whether it gives one vector an image."""
        return len(self.output) == 2


def find_stages(model: nn.Module, images: Tensor) -> ModelStages:
    """Find the stages of a model by a forward pass of images (B, 3, S, S), in the mode that the model is in.

    A stage is a group of `layer_groups`, but that dense layers which stand between the last map and the head are a
    stage of their own. A module without parameters, such as an activation or a pooling, belongs to the stage that ran
    before it; what makes a map smaller right before the head belongs to the head.
    """
    groups = [list(group) for group in reversed(layer_groups(model))]
    of_parameter = dict(model.named_parameters())
    stage_of = {id(of_parameter[name]): stage for stage, group in enumerate(groups) for name in group}
    tops = dict(_tops("", model, stage_of))
    called = _trace(model, tops, images)
    _place(called, head=len(groups) - 1)
    _split_dense(model, called, groups)
    modules: list[list[str]] = [[] for _ in groups]
    # What an evaluation does not run, such as classifiers halfway, is listed behind what it runs.
    idle = [(name, stage) for name, stage in tops.items() if stage is not None and all(name != c.name for c in called)]
    for name, stage in [*((call.name, call.stage) for call in called), *idle]:
        assert stage is not None  # _place has placed all
        if name not in modules[stage]:
            modules[stage].append(name)
    return ModelStages(
        names=tuple(_name(model, own, group) for own, group in zip(modules, groups, strict=True)),
        modules=tuple(map(tuple, modules)),
        parameters=tuple(map(tuple, groups)),
        calls=tuple((call.name, call.stage) for call in called if call.stage is not None),
    )


def _tops(name: str, module: nn.Module, stage_of: dict[int, int]) -> Iterator[tuple[str, int | None]]:
    """Give the largest modules whose parameters are of one stage, and that stage; None of those without parameters."""
    stages = {stage_of[id(parameter)] for parameter in module.parameters()}
    children = list(module.named_children())
    if (len(stages) > 1 or not name) and children:
        for child, each in children:
            yield from _tops(f"{name}.{child}" if name else child, each, stage_of)
    else:
        yield name, next(iter(stages), None)


@torch.no_grad()
def _trace(model: nn.Module, tops: dict[str, int | None], images: Tensor) -> list[_Call]:
    """Run a model; returns its calls of some modules in their order."""
    called: list[_Call] = []

    def begin(name: str, _: nn.Module, inputs: tuple[Any, ...]) -> None:
        called.append(_Call(name, tops[name], _shape(inputs[0] if inputs else None)))

    def end(name: str, _: nn.Module, __: Any, output: Any) -> None:
        next(call for call in reversed(called) if call.name == name).output = _shape(output)

    with ExitStack() as stack:
        for name in tops:
            module = model.get_submodule(name)
            stack.enter_context(module.register_forward_pre_hook(functools.partial(begin, name)))
            stack.enter_context(module.register_forward_hook(functools.partial(end, name)))
        model(images)
    return called


def _shape(value: Any) -> tuple[int, ...]:
    """Shape of a tensor, or of the first of several; () of anything else."""
    first = first_tensor(value)
    return () if first is None else tuple(first.shape)


def first_tensor(value: Any) -> Tensor | None:
    """Give a tensor as it is, of a tuple or list its first one, None of anything else."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (tuple, list)):
        return next((each for each in value if isinstance(each, Tensor)), None)
    return None


def _place(called: Sequence[_Call], head: int) -> None:
    """Give each call that has none its stage."""
    last_of_body = max((at for at, call in enumerate(called) if call.stage not in (None, head)), default=-1)
    before, is_body = 0, True
    for at, call in enumerate(called):
        is_body = is_body and (at <= last_of_body or call.keeps_cells)
        if call.stage is None:
            call.stage = before if is_body else head
        before = call.stage


def _split_dense(model: nn.Module, called: Sequence[_Call], groups: list[list[str]]) -> None:
    """Make a stage of the dense layers that follow the maps within a stage, as in a VGG."""
    for stage in range(len(groups) - 1):
        own = [call for call in called if call.stage == stage]
        first = next((at for at, call in enumerate(own) if call.makes_vectors and _params(model, call.name)), 0)
        if not first or not any(len(call.output) > 2 for call in own[:first]):
            continue
        dense = own[first:]
        names = [name for call in dense for name in _params(model, call.name)]
        for call in called:
            call.stage = None if call.stage is None else call.stage + (call.stage > stage or call in dense)
        kept = [name for name in groups[stage] if name not in names]
        groups[stage : stage + 1] = [kept, [name for name in groups[stage] if name in names]]
        return


def _params(model: nn.Module, name: str) -> list[str]:
    """Names of the parameters in a module of a model."""
    return [f"{name}.{each}" for each, _ in model.get_submodule(name).named_parameters()]


def _name(model: nn.Module, modules: Sequence[str], parameters: Sequence[str]) -> str:
    """Name a stage after its first module with a matrix of weights, else its first one, else its first parameter."""
    weighty = [name for name in modules if any(each.ndim > 1 for each in model.get_submodule(name).parameters())]
    return next(iter([*weighty, *modules, *parameters]))


def stage_kind(model: nn.Module, modules: Sequence[str]) -> str:
    """Say what modules a stage is made of, such as "3 Bottleneck"; of those that do nothing, nothing."""
    kinds: list[list[Any]] = []
    for name in modules:
        module = model.get_submodule(name)
        parts = list(module.children()) if isinstance(module, (nn.Sequential, nn.ModuleList)) else [module]
        for part in parts or [module]:
            kind = type(part).__name__
            if kind in ("Identity", "Dropout", "Flatten", "DropPath", "StochasticDepth"):
                continue
            if kinds and kinds[-1][0] == kind:
                kinds[-1][1] += 1
            else:
                kinds.append([kind, 1])
    return ", ".join(kind if num == 1 else f"{num} {kind}" for kind, num in kinds)


@contextmanager
def watching(model: nn.Module, stages: ModelStages, enter: Callable[[int], None]) -> Iterator[None]:
    """Call `enter` with the stage that begins to compute, before each of the calls of one forward pass in the block.

    What a model does itself between two modules, such as flattening a map, is of the stage before it.
    """
    calls = iter(stages.calls)

    def begin(name: str, *_: Any) -> None:
        called, stage = next(calls, ("nothing", -1))
        if called != name:
            raise ValueError(f"model: it called {name!r}, expected {called!r} as in the pass before it")
        enter(stage)

    with ExitStack() as stack:
        for name in dict.fromkeys(name for name, _ in stages.calls):
            stack.enter_context(model.get_submodule(name).register_forward_pre_hook(functools.partial(begin, name)))
        yield


class ModuleOutput(NamedTuple):
    """What a module of a stage put out."""

    module: str
    tensor: Tensor


@contextmanager
def recording_outputs(model: nn.Module, stages: ModelStages) -> Iterator[dict[int, list[ModuleOutput]]]:
    """Give a dict that has, by stage, what its modules put out in one forward pass in the block, in their order.

    A gradient can be taken of it, and what a later module writes into its input does not change it.
    """
    calls = iter(stages.calls)
    outputs: dict[int, list[ModuleOutput]] = {}
    running: list[tuple[str, int]] = []

    def begin(*_: Any) -> None:
        running.append(next(calls))

    def end(_: nn.Module, __: Any, output: Any) -> Any:
        (name, stage), tensor = running.pop(), first_tensor(output)
        if tensor is None:
            return None
        outputs.setdefault(stage, []).append(ModuleOutput(name, tensor))
        # The next module may be an activation in place.
        return tensor.clone() if output is tensor and tensor.device.type != "meta" else None

    with ExitStack() as stack:
        for name in dict.fromkeys(name for name, _ in stages.calls):
            module = model.get_submodule(name)
            stack.enter_context(module.register_forward_pre_hook(begin))
            stack.enter_context(module.register_forward_hook(end))
        yield outputs
