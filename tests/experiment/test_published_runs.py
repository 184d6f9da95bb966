"""Where presets and publications meet: which planned run can stand for which published one."""

from types import SimpleNamespace

import pytest

from dogs_accel.datasets import published_about
from dogs_accel.datasets.facts import DatasetFacts
from dogs_accel.experiment import run
from dogs_accel.experiment.plan import plan_runs
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.report.claims import judge_claims, run_obstacle
from dogs_accel.runtime.processes import ALONE
from tests.support.made_up_runs import made_up_folder, made_up_run

AT_OWN_SIZE = "other input: batch 32, {} px; published: 32, 224 px"
"""The presets train each network at the size of its weights; --image-size 224 gives the published size back."""
STANDS_IN = {
    # dataset: presets, and for each published run the planned one, or why there is none
    "stanford-dogs": (
        ["paper"],
        {name: name for name in ("resnet50_full", "resnet50_staged", "vit_b16_full", "vit_b16_staged")},
    ),
    "oxford-iiit-pet": (
        ["pets"],
        {
            "vgg16_noaug": "vgg16_head_imagenet-eval",
            "vgg16_aug": "vgg16_head_pets-train",
            "resnet50_noaug": "resnet50_head_imagenet-eval",
            "resnet50_aug": "resnet50_head_pets-train",
            "mobilenetv3_noaug": "mobilenet_v3_large_head_imagenet-eval",
            "mobilenetv3_aug": "mobilenet_v3_large_head_pets-train",
            "efficientnet_b3_noaug": AT_OWN_SIZE.format(300),
            "efficientnet_b3_aug": AT_OWN_SIZE.format(300),
            "xception_noaug": AT_OWN_SIZE.format(299),
            "xception_aug": AT_OWN_SIZE.format(299),
        },
    ),
    "cifar-10": (
        ["cifar10"],
        {"resnet18": "resnet18_cifar_scratch", "vit": "vit_patch-4_dim-256_depth-6_heads-8_scratch"},
    ),
    "inaturalist-12k": (
        ["inaturalist-cnn", "inaturalist-finetune"],
        {
            "cnn5_best": "cnn5_activation-mish_norm-batch_dropout-0_3_scratch",
            "resnet50_last_two": "resnet50_partial",
        },
    ),
    "caltech-256": (["caltech256"], {"resnet50": "resnet50_full"}),
}


def as_if_made(published, preset, **settings):
    """Make the runs of a preset as their records would be."""
    config = BenchmarkConfig(preset=preset, **settings).resolved()
    name = next(iter(published.runs))  # of which nothing is kept
    said = {"imagenet": "ImageNet weights, new head", "none": "random weights"}
    return [
        made_up_run(
            published, name, num_images={"train": 1, "val": 1, "test": 1}, num_classes=published.num_classes,
            accuracy=(0.5, 0.4, 0.6), macro_f1=(0.5, 0.4, 0.6), top5_accuracy=(0.5, 0.4, 0.6), run_name=run.name,
            weights=f"{run.spec.display}: {said[run.weights]}",
            train_recipe=run.train_recipe.as_dict(), eval_recipe=run.eval_recipe.as_dict(),
            cache_features=run.cache_features,
            config={
                "model_name": run.spec.display, "family": run.spec.family, "strategy": run.strategy,
                "phases": [phase.as_dict() for phase in run.phases], "batch_size": config.batch_size,
                "image_size": run.spec.image_size,
            },
        )
        for run in plan_runs(config)
    ]  # fmt: skip


def stand_ins(published, runs):
    """For each published run the first of these that can stand for it, or what stands in the way of each."""
    found = {}
    for name, theirs in published.runs.items():
        of_model = [run for run in runs if run.model in (theirs.model, *theirs.other_names)]
        obstacles = {run.name: run_obstacle(run, theirs) for run in of_model}
        fits = [run for run, obstacle in obstacles.items() if not obstacle]
        found[name] = fits[0] if fits else "; ".join(dict.fromkeys(obstacles.values()))
    return found


@pytest.mark.parametrize("key", STANDS_IN)
def test_each_published_run_has_a_planned_one_or_a_reason(key):
    published, (presets, expected) = published_about(key), STANDS_IN[key]
    runs = [run for preset in presets for run in as_if_made(published, preset)]
    assert stand_ins(published, runs) == expected
    # The verdicts take the same one of all that the presets make.
    taken = {row["subject"]: row["run"] for row in judge_claims(made_up_folder(key, runs)) if row["run"]}
    names = {run.name for run in runs}
    assert {name: run for name, run in taken.items() if expected.get(name) in names} == {
        name: run for name, run in expected.items() if name in taken and run in names
    }


def test_at_one_size_every_published_run_of_pets_has_a_planned_one():
    published = published_about("oxford-iiit-pet")
    found = stand_ins(published, as_if_made(published, "pets", image_size=224))
    assert [name for name, run in found.items() if " " in run] == []


@pytest.mark.parametrize(
    ("key", "group"), [("stanford-dogs", "stanford-dogs-fair-benchmark"), ("oxford-iiit-pet", "mine"), (None, "mine")]
)
def test_runs_are_gathered_under_the_published_group_or_the_name_of_the_data(tmp_path, key, group):
    [planned, *_] = plan_runs(BenchmarkConfig(preset="demo").resolved())
    data = SimpleNamespace(
        facts=DatasetFacts(name="mine", title="mine", layout="made up", published=key), num_classes=3
    )
    plan = SimpleNamespace(
        data=data, config=BenchmarkConfig(wandb="disabled"), world=ALONE, out=tmp_path, batch_size=16
    )
    assert run._tracked_run(plan, planned, 1, None, None).as_record()["group"] == group
