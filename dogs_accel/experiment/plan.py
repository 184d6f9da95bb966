"""What a benchmark will do: data, device, models and phases, checked before the first step."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dogs_accel.datasets import Dataset
from dogs_accel.datasets.splits import SPLITS, describe_carving
from dogs_accel.evaluation.tta import NO_TTA, View, tta_views
from dogs_accel.experiment.data import open_data
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.experiment.settings.phase_settings import base_strategy
from dogs_accel.experiment.settings.recipe_names import parse_recipe_name
from dogs_accel.models import DEFAULT_FAMILY, family_name
from dogs_accel.models.build import build_model, weights_to_download
from dogs_accel.models.heads import head_names
from dogs_accel.models.input_size import describe_input_size, refuses_one_image
from dogs_accel.models.names import parse_model_name
from dogs_accel.models.specs import ModelSpec, model_spec, with_family
from dogs_accel.runtime.devices import choose_device
from dogs_accel.runtime.files import check_folder, is_unused
from dogs_accel.runtime.precision import amp_dtype
from dogs_accel.runtime.processes import ALONE, World
from dogs_accel.training.features import dropped_before_head, head_of
from dogs_accel.training.mixing import refuse_mixed_features
from dogs_accel.training.optimizers import param_groups
from dogs_accel.training.phases import STRATEGIES, Phase, starts_at_random, strategy_label
from dogs_accel.training.step import StepSettings, has_compiler
from dogs_accel.training.tracking import check_tracking
from pipelines import RESNET_TRAIN, VIT_TRAIN, Recipe

_TRAIN_RECIPE = {"cnn": RESNET_TRAIN, "vit": VIT_TRAIN}
"""By the kind of network, so that a label of its own changes nothing but where a model's runs are gathered."""
EVAL_BATCH_SIZE = {"cpu": 64, "cuda": 256}


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One model under one strategy, with one seed."""

    name: str
    configuration: str
    """Name of the model and the strategy, which runs with other seeds share."""
    seed: int
    """Of the new head, of order and of augmentation; the split has the seed of the settings."""
    spec: ModelSpec
    weights: str
    """imagenet, none, or a file: those of the settings, or none where the strategy starts at random."""
    phases: list[Phase]
    train_recipe: Recipe
    eval_recipe: Recipe
    strategy_name: str
    """As it is typed: staged, or staged-slow of a variant."""
    recipe_name: str = ""
    """Of the training recipe, where it is not that of the preset."""
    is_set: bool = False
    """Whether settings make its phases other ones than the preset's, beside their epochs."""
    cache_features: bool = False
    """Whether phases that train the head alone do so on features that are computed once."""
    tta: str = NO_TTA
    """Over which views of an image the model's answers are averaged too."""

    @property
    def strategy(self) -> str:
        """The strategy as the published tables name it, and what of it is not as published."""
        kept = self.cache_features and any(phase.mode == "head_only" for phase in self.phases)
        label = " -> ".join(map(str, self.phases)) if self.is_set else strategy_label(self.phases)
        if self.strategy_name not in STRATEGIES:
            label = f"{self.strategy_name}: {label}"
        if self.recipe_name:
            label += f", {self.recipe_name}"
        return label + ", head on cached features without augmentation" * kept

    @property
    def experiment(self) -> tuple[Any, ...]:
        """What two runs must not have in common but for their seeds: the model, its weights, phases and images."""
        is_without_augmentation = self.cache_features and all(phase.mode == "head_only" for phase in self.phases)
        shown = self.eval_recipe if is_without_augmentation else self.train_recipe
        return self.spec, self.weights, self.phases, shown

    @property
    def views(self) -> list[View]:
        """The views of an image in evaluation, the first of which is the evaluation recipe's own."""
        return tta_views(self.tta, self.eval_recipe, self.train_recipe)

    @property
    def title(self) -> str:
        """For people."""
        one_of_several = self.name != self.configuration
        return f"{self.spec.display}, {self.strategy}" + (f", seed {self.seed}" if one_of_several else "")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A benchmark before anything has run: what will be done, on what, and where the results go."""

    config: BenchmarkConfig
    data: Dataset
    splits: Mapping[str, NDArray[np.int64]]
    """Positions in the data by split, before any file was decoded; without test where the settings say so, and then
    the data are without it too."""
    device: torch.device
    amp: torch.dtype | None
    runs: Sequence[PlannedRun]
    out: Path
    world: World = ALONE
    notices: Sequence[str] = ()
    """What a reader of the results must know of the models, a line each."""
    carving: str = ""
    """Which splits are the publisher's and which are carved out of them, in words."""

    @property
    def batch_size(self) -> int:
        """Images a training step, of all processes together."""
        assert self.config.batch_size is not None
        return self.config.batch_size

    @property
    def eval_batch_size(self) -> int:
        """Images a step of validation and test, of each process."""
        if self.config.eval_batch_size is not None:
            return self.config.eval_batch_size
        return max(self.batch_size, EVAL_BATCH_SIZE[self.device.type])

    @property
    def resumes(self) -> bool:
        """Whether it goes on with what is in `out` already."""
        return self.config.resume is not None

    @property
    def bn_sees(self) -> str:
        """Say of which images BatchNorm computes its statistics in training."""
        if self.world.size == 1 or self.device.type == "cuda":
            return "the whole batch"
        return "the images of its own process (torch shares its statistics between GPUs only)"

    @property
    def step(self) -> StepSettings:
        """The switches of a training step."""
        return StepSettings(
            amp=self.amp,
            channels_last=self.config.channels_last,
            fused_optimizer=self.config.fused_optimizer,
            compile=self.config.compile,
            cuda_graphs=self.config.cuda_graphs,
        )


def plan_runs(config: BenchmarkConfig) -> list[PlannedRun]:
    """Lay out the grid of models, strategies and seeds of resolved settings, or the part that --runs names."""
    assert config.models is not None
    assert config.weights is not None
    models = [str(parse_model_name(name)) for name in config.models]
    if len(set(models)) < len(models):
        raise ValueError(f"models: got {','.join(config.models)!r}, which names a model twice, expected each once")
    families = _by_known_model("families", config.families, models)
    own_weights = _by_known_model("model_weights", config.model_weights, models)
    specs = [with_family(model_spec(name, config.image_size), families) for name in models]
    _check_labels({spec.family for spec in specs})
    runs = []
    for spec, strategy, recipe_name in itertools.product(specs, config.strategies_in_force, config.recipes or ("",)):
        # A network that nobody published weights of sees what the recipe makes of the pixels.
        normalisation = {"mean": spec.mean, "std": spec.std} if spec.has_own_normalisation or not recipe_name else {}
        named = parse_recipe_name(recipe_name or _TRAIN_RECIPE.get(spec.kind, _TRAIN_RECIPE[DEFAULT_FAMILY]).name)
        weights = own_weights.get(spec.name, config.weights)
        is_one_of_several = len(config.recipes or ()) > 1
        configuration = f"{spec.slug}_{strategy}" + (f"_{named.slug}" if is_one_of_several else "")
        runs += [
            PlannedRun(
                name=configuration if config.seeds == 1 else f"{configuration}_seed{seed}",
                configuration=configuration,
                seed=seed,
                spec=spec,
                weights="none" if starts_at_random(base_strategy(strategy)) else weights,
                phases=config.phases(strategy, spec.kind),
                strategy_name=strategy,
                recipe_name=recipe_name and str(named),
                is_set=config.changes_phases(strategy, spec.kind),
                train_recipe=named.recipe.at(spec.image_size, **normalisation),
                eval_recipe=named.evaluation.at(spec.image_size, **normalisation),
                cache_features=config.cache_features,
                tta=config.tta,
            )
            for seed in range(config.seed, config.seed + config.seeds)
        ]
    of_first_seed = [run for run in runs if run.seed == config.seed]
    _check_strategies(of_first_seed)
    for run in of_first_seed:
        tta_views(run.tta, run.eval_recipe, run.train_recipe)  # raises where a recipe draws no views
    return runs if config.runs is None else _named_runs(runs, config.runs)


def _by_known_model(field: str, given: Mapping[str, str] | None, models: Sequence[str]) -> dict[str, str]:
    """Give what a setting says of models by their canonical names. Raises ValueError where one is not planned."""
    values = {str(parse_model_name(name)): value for name, value in (given or {}).items()}
    if unknown := [name for name in values if name not in models]:
        raise ValueError(f"{field}: got {unknown[0]!r}, expected some of the models {', '.join(models)}")
    return values


def _check_strategies(runs: Sequence[PlannedRun]) -> None:
    """Refuse two runs with the same phases and images, one experiment under two names; runs: of one seed."""
    for one, other in itertools.combinations(runs, 2):
        if one.experiment == other.experiment and one.train_recipe != other.train_recipe:
            kept = next((run for run in (one, other) if not run.train_recipe.is_random), one)
            raise ValueError(
                f"recipes: got {one.recipe_name} and {other.recipe_name}, expected one: with --cache-features a head "
                f"never sees the training recipe; choose one, such as --recipes {kept.recipe_name}"
            )
        if one.experiment == other.experiment:
            names = [" ".join(filter(None, (run.strategy_name, run.recipe_name))) for run in (one, other)]
            raise ValueError(
                f"strategies: got {names[0]} and {names[1]}, which both are {' -> '.join(map(str, one.phases))}, "
                f"expected a --set {other.strategy_name}.FIELD=VALUE that tells them apart"
            )


def _check_labels(labels: set[str]) -> None:
    """Refuse two labels of one name in the tables, or of one folder where letter case does not tell folders apart."""
    for label, other in itertools.combinations(sorted(labels), 2):
        if {label.lower(), family_name(label).lower()} & {other.lower(), family_name(other).lower()}:
            raise ValueError(f"families: got {label!r} and {other!r}, expected labels that are read as different ones")


def _named_runs(runs: Sequence[PlannedRun], names: Sequence[str]) -> list[PlannedRun]:
    """Pick the runs of these names, each once, in their order; a configuration's name stands for all of its seeds."""
    chosen: dict[str, PlannedRun] = {}
    for name in names:
        named = {run.name: run for run in runs if name in (run.name, run.configuration)}
        if not named:
            known = dict.fromkeys([run.configuration for run in runs] + [run.name for run in runs])
            raise ValueError(f"runs: got {name!r}, expected some of {', '.join(known)}")
        chosen |= named
    return list(chosen.values())


def check_models(config: BenchmarkConfig, runs: Sequence[PlannedRun], num_classes: int) -> list[str]:
    """Build every model once, so that a download or a file that fails does so before hours of training.

    A dry run needs no values of weights and downloads none. Phases that do not fit their model, whose layer groups and
    names are known by then, are refused too. Returns a line for what is still to be downloaded, for each run that never
    trains its head, and for each model whose features, where they are computed once, are without a dropout that it has.
    """
    notices: dict[str, None] = {}
    to_download: dict[str, None] = {}
    for spec, weights in dict.fromkeys((run.spec, run.weights) for run in runs):
        absent = weights_to_download(spec) if config.dry_run and weights == "imagenet" else None
        if absent is not None:
            to_download[absent] = None
        model = build_model(spec, num_classes, weights if absent is None else "none").model
        configurations = {run.configuration: run for run in runs if (run.spec, run.weights) == (spec, weights)}
        heads = head_names(model)
        head = {id(parameter) for name in heads for parameter in model.get_submodule(name).parameters()}
        for name, run in configurations.items():
            groups = [group for phase in run.phases for group in param_groups(model, phase)]
            if not any(id(parameter) in head for group in groups for parameter in group["params"]):
                notices[f"{name}: no phase trains the head ({', '.join(heads)}), which stays as it starts"] = None
        if not config.cache_features:
            continue
        head_of(model)
        if layers := dropped_before_head(model):
            others = f" and {len(layers) - 1} more layers" if len(layers) > 1 else ""
            notices[
                f"{spec.display}: features that are computed once are without the dropout of the frozen {layers[0]}"
                f"{others}; that of the head stays"
            ] = None
    line = f"weights: not here yet, will be downloaded: {', '.join(to_download)}"
    return [line] * bool(to_download) + list(notices)


def _weights_notice(config: BenchmarkConfig, runs: Sequence[PlannedRun]) -> list[str]:
    """Say which runs do not start with the weights that are asked for."""
    if config.weights == "none" and not config.model_weights:
        return []
    names = dict.fromkeys(run.configuration for run in runs if starts_at_random(base_strategy(run.strategy_name)))
    if not names:
        return []
    start = "starts" if len(names) == 1 else "start"
    return [f"{', '.join(names)} {start} at random, whatever --weights says"]


def _idle_notice(runs: Sequence[PlannedRun]) -> list[str]:
    """Say in one line which settings of phases do nothing, and where."""
    found: dict[str, dict[str, None]] = {}
    for run in runs:
        for phase in run.phases:
            for field, why in phase.idle_fields.items():
                found.setdefault(f"{field} in {{}}, where {why}", {})[f"{phase.name} of {run.strategy_name}"] = None
    said = [text.format(" and ".join(places)) for text, places in found.items()]
    return [f"set to no effect: {'; '.join(said)}"] if said else []


def _size_notices(config: BenchmarkConfig, runs: Sequence[PlannedRun]) -> list[str]:
    """Say which models do not see all of their images. Raises ValueError for a model that cannot have such images."""
    specs = dict.fromkeys(run.spec for run in runs)
    # A model's own size is one that it can have, unless it was typed with fields.
    notices = [describe_input_size(spec) for spec in specs if config.image_size is not None or ":" in spec.name]
    return [notice for notice in notices if notice is not None]


def _check_batch_of_one(config: BenchmarkConfig, runs: Sequence[PlannedRun], world: World) -> None:
    """Raise ValueError where each step of a process has one image and a model can train on no single one."""
    if config.batch_size != world.size:
        return
    for spec in dict.fromkeys(run.spec for run in runs):
        if refuses_one_image(spec):
            raise ValueError(
                f"batch_size: got {config.batch_size}, expected at least {2 * world.size}: {spec.display} at "
                f"{spec.image_size} px has a BatchNorm of one value a channel, which needs two images"
            )


def make_plan(config: BenchmarkConfig, world: World = ALONE, data: Dataset | None = None) -> Plan:
    """Check everything that can be checked before the first step; data None opens what the settings name."""
    is_named = config.out is not None
    config = config.resolved().with_folder()
    assert config.out is not None
    device = choose_device(config.device, config.gpu, world)
    runs, amp, notices = _checked_runs(config, device, world)
    if world.is_rank_zero and not config.dry_run:
        check_tracking(config.wandb)
    out = Path(config.out)
    if world.is_rank_zero and is_named and config.resume is None and not is_unused(out):
        raise ValueError(f"out: {out} exists and is not an empty folder; expected a new one, or --resume {out}")
    if world.is_rank_zero and not config.dry_run:
        check_folder(out, "out")
    data = open_data(config) if data is None else data
    notices += check_models(config, runs, data.num_classes)
    carving = describe_carving(data.official_split, **config.split_settings)
    splits = {name: data.split(name, **config.split_settings) for name in SPLITS}
    if not config.test:
        data, splits = _without_test(data, splits)
    if len(splits["train"]) < world.size:
        raise ValueError(f"data: got {len(splits['train'])} training images for {world.size} processes, expected more")
    return Plan(
        config=config,
        data=data,
        splits=splits,
        device=device,
        amp=amp,
        runs=runs,
        out=out,
        world=world,
        notices=notices,
        carving=carving,
    )


def _checked_runs(
    config: BenchmarkConfig, device: torch.device, world: World
) -> tuple[list[PlannedRun], torch.dtype | None, list[str]]:
    """Lay out the runs of resolved settings, their mixed precision and what must be known of them.

    Raises ValueError for whatever can be told without data and weights.
    """
    _check_world(config, world, device)
    runs = plan_runs(config)
    for run in runs if config.cache_features else ():
        refuse_mixed_features(run.phases)
    amp = amp_dtype(config.amp, device)
    if config.compile and not has_compiler():
        raise ValueError("compile: there is no C++ compiler, which torch.compile calls; install g++ or name one by CXX")
    notices = [*_size_notices(config, runs), *_weights_notice(config, runs), *_idle_notice(runs)]
    _check_batch_of_one(config, runs, world)
    return runs, amp, notices


def plan_of_others(plan: Plan, config: BenchmarkConfig) -> Plan:
    """Plan other runs on the data, the splits and the device of a plan, with all checks of `make_plan` of the runs."""
    config = config.resolved()
    assert config.out is not None
    runs, amp, notices = _checked_runs(config, plan.device, plan.world)
    notices += check_models(config, runs, plan.data.num_classes)
    return replace(plan, config=config, runs=runs, amp=amp, out=Path(config.out), notices=notices)


def _without_test(
    data: Dataset, splits: Mapping[str, NDArray[np.int64]]
) -> tuple[Dataset, dict[str, NDArray[np.int64]]]:
    """Leave the test split out of the data themselves, so that nothing that decodes them can come upon its files."""
    kept = np.sort(np.concatenate([index for name, index in splits.items() if name != "test"]))
    return data.subset(kept), {name: np.searchsorted(kept, splits[name]) for name in splits if name != "test"}


def _check_world(config: BenchmarkConfig, world: World, device: torch.device) -> None:
    assert config.batch_size is not None
    if config.batch_size % world.size:
        raise ValueError(
            f"batch_size: got {config.batch_size} for {world.size} processes, which share it, expected a multiple"
        )
    if config.cuda_graphs and (world.size > 1 or device.type != "cuda"):
        raise ValueError(f"cuda_graphs: got it with {world.size} process(es) on {device.type}, expected one on a GPU")


def check_alike(plan: Plan) -> None:
    """Compare what the processes would work on, which machines may have differently.

    Raises ValueError in the first process that differs from the first one.
    """
    here = {
        "device": plan.device.type,
        "amp": str(plan.amp),
        "data": f"{len(plan.data)} images of {plan.data.digest()[:16]}",
    }
    first = plan.world.all_gather(here)[0]

    def check() -> None:
        for name, value in here.items():
            if value != first[name]:
                raise ValueError(f"{name}: got {value}, expected {first[name]} as rank 0 has")

    plan.world.on_all_ranks(check)
