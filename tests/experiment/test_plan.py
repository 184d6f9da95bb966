import re
from dataclasses import replace
from urllib.error import URLError

import pytest
import torch

from dogs_accel.datasets import DatasetNotFoundError, open_dataset
from dogs_accel.experiment import plan
from dogs_accel.experiment.describe import describe_plan
from dogs_accel.experiment.loaders import choose_loaders
from dogs_accel.experiment.plan import check_models, make_plan, plan_of_others, plan_runs
from dogs_accel.experiment.settings.config import BenchmarkConfig
from dogs_accel.models.build import build_model, weights_to_download
from dogs_accel.models.specs import model_spec
from dogs_accel.runtime.devices import choose_device
from dogs_accel.training.phases import STRATEGIES


def runs(**settings):
    return {run.name: run for run in plan_runs(BenchmarkConfig(**settings).resolved())}


def test_the_paper_is_the_published_experiment():
    planned = runs(preset="paper")
    assert list(planned) == ["resnet50_full", "resnet50_staged", "vit_b16_full", "vit_b16_staged"]
    assert " -> ".join(map(str, planned["resnet50_staged"].phases)) == "head_only(3, 0.001) -> full_finetune(8, 0.0001)"
    assert " -> ".join(map(str, planned["vit_b16_staged"].phases)) == "head_only(3, 0.001) -> full_finetune(8, 3e-05)"
    assert [run.title for run in planned.values()][3] == "ViT-B/16, Head 3 + full fine-tune 8 epochs"
    assert {run.train_recipe.name for run in planned.values()} == {"resnet-train", "vit-train"}
    assert {(run.spec.image_size, run.eval_recipe.crop, run.eval_recipe.resize) for run in planned.values()} == {
        (224, 224, (256, 256))
    }


def test_a_model_gets_the_normalisation_of_its_weights():
    run = runs(models=("timm/tf_efficientnet_lite0",), strategies=("head",))["tf_efficientnet_lite0_head"]
    assert run.train_recipe.mean == run.eval_recipe.mean == (0.5, 0.5, 0.5)


def test_views_are_of_the_recipes_of_a_run_and_have_loaders(dogs_root, tmp_path):
    planned = runs(tta="3")["resnet18_full"]
    assert [view.recipe for view in planned.views] == [planned.eval_recipe, *[planned.train_recipe] * 2]
    assert [view.recipe for view in runs()["resnet18_full"].views] == [planned.eval_recipe]
    config = BenchmarkConfig(
        data=str(dogs_root), preset="demo", image_size=32, weights="none", models=("resnet18",), device="cpu",
        tta="five-crop", out=str(tmp_path / "out"), loader="torch",
    )  # fmt: skip
    made = make_plan(config)
    assert "\ntta      five-crop, 5 views\n" in describe_plan(made)
    assert {view.recipe for run in made.runs for view in run.views} <= choose_loaders(made).choices.keys()


def test_runs_can_be_chosen():
    assert list(runs(preset="paper", runs=("vit_b16_full",))) == ["vit_b16_full"]
    with pytest.raises(ValueError, match="runs: got 'vit_full', expected some of resnet50_full"):
        runs(preset="paper", runs=("vit_full",))


@pytest.mark.fault("Training and models", "mixed images for a head on cached features", "one line, before any work")
def test_a_head_on_cached_features_mixes_nothing(monkeypatch):
    planned = plan_runs(BenchmarkConfig(strategies=("head",)).resolved())
    mixed = [replace(run, phases=[replace(phase, mix="mixup") for phase in run.phases]) for run in planned]
    monkeypatch.setattr(plan, "plan_runs", lambda _: mixed)
    with pytest.raises(ValueError, match=r"^mix: got mixup in head_only with cached features, expected none: "):
        make_plan(BenchmarkConfig(strategies=("head",), cache_features=True, device="cpu"))


@pytest.mark.fault("Machine and environment", "a GPU that is not there", "one line that says what to type instead")
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_to_type(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device() == torch.device("cpu")
    with pytest.raises(ValueError, match=r"--gpu 0: torch .* sees 0 CUDA devices; type --device cpu instead"):
        choose_device(gpu=0)
    with pytest.raises(ValueError, match=r"--device cuda: torch .* sees 0 CUDA devices"):
        choose_device(device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device() == torch.device("cuda:0")
    assert choose_device(gpu=1) == torch.device("cuda:1")
    with pytest.raises(ValueError, match=r"--gpu 2: torch .* sees 2 CUDA devices; type --gpu 1 instead"):
        choose_device(gpu=2)


@pytest.mark.parametrize("device", ["gpu", "mps", "meta", "cuda:-1", "cuda:x"])
def test_a_device_of_another_kind_is_refused(device):
    with pytest.raises(ValueError, match=f"device: got '{device}', expected cpu, cuda or cuda:N"):
        choose_device(device)


@pytest.mark.fault(
    "Machine and environment", "W&B online without a network", "one line within seconds, before the data are read"
)
@pytest.mark.fault("Machine and environment", "--compile without a C++ compiler", "one line before the data are read")
def test_what_cannot_work_is_said_before_the_data_are_read(monkeypatch, tmp_path):
    for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    config = BenchmarkConfig(data=str(tmp_path / "absent"), preset="demo", device="cpu", out=str(tmp_path / "out"))
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    with pytest.raises(ValueError, match=r"^wandb: 127\.0\.0\.1 does not answer"):
        make_plan(replace(config, wandb="online"))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(
        ValueError, match=r"^compile: there is no C\+\+ compiler, .*; install g\+\+ or name one by CXX$"
    ):
        make_plan(replace(config, compile=True))


@pytest.mark.fault(
    "Training and models",
    "batches of one image, of a model whose BatchNorm needs two",
    "one line before the data are read",
)
def test_a_batch_of_one_is_refused_where_batch_norm_needs_two(tmp_path):
    config = BenchmarkConfig(data=str(tmp_path / "absent"), preset="demo", device="cpu", image_size=32, batch_size=1)
    expected = "batch_size: got 1, expected at least 2: ResNet-18 at 32 px has a BatchNorm of one value a channel"
    with pytest.raises(ValueError, match=f"^{expected}"):
        make_plan(replace(config, models=("resnet18",)))
    with pytest.raises(DatasetNotFoundError):  # the next thing that is looked at
        make_plan(replace(config, models=("resnet18",), image_size=64))


@pytest.mark.fault("Disk", "--out with somebody's files in it", "refused; nothing is written over")
def test_a_folder_with_results_is_not_written_over(dogs_root, tmp_path):
    (tmp_path / "old.csv").write_text("x")
    with pytest.raises(ValueError, match=r"out: .* is not an empty folder"):
        make_plan(BenchmarkConfig(data=str(dogs_root), out=str(tmp_path), device="cpu"))


def test_the_plan_says_what_will_happen(dogs_root, tmp_path):
    plan = make_plan(BenchmarkConfig(data=str(dogs_root), preset="demo", out=str(tmp_path / "r"), device="cpu"))
    text = describe_plan(plan)
    assert "synthetic: 4 breeds, 40 train / 8 val / 24 test images" in text
    assert "resnet18_staged" in text
    assert "head_only(3, 0.003) -> full_finetune(8, 0.001)" in text
    assert str(tmp_path / "r") in text


def test_a_run_from_scratch_starts_at_random_and_the_plan_says_so(dogs_root, tmp_path):
    weights = str(tmp_path / "weights.pth")
    torch.save(build_model(model_spec("resnet18", 32), 4, "none").model.state_dict(), weights)
    config = BenchmarkConfig(
        data=str(dogs_root), out=str(tmp_path / "run"), models=("resnet18",), image_size=32, weights=weights,
        device="cpu", strategies=tuple(STRATEGIES), epochs={"": (2,)},
    )  # fmt: skip
    plan = make_plan(config)
    assert {run.configuration.removeprefix("resnet18_"): run.weights for run in plan.runs} == {
        strategy: "none" if strategy == "scratch" else weights for strategy in STRATEGIES
    }
    text = describe_plan(plan)
    assert text.count("notice") == 1
    assert "notice   resnet18_scratch starts at random, whatever --weights says" in text
    model = f"ResNet-18 at 32 px, weights of {weights}"
    assert f"resnet18_partial    {model}  partial_finetune(2, 0.0001, num_groups=2)" in text
    assert "resnet18_scratch    ResNet-18 at 32 px, random weights  from_scratch(2" in text
    assert "from_scratch(2, 0.001, weight_decay=0.05, decay_norms=False)" in text
    assert "notice" not in describe_plan(make_plan(replace(config, weights="none")))


@pytest.mark.fault(
    "Training and models", "parts of a model that a phase names and that it has not", "one line before the first step"
)
def test_a_phase_that_does_not_fit_its_model_is_refused_before_the_first_step():
    config = BenchmarkConfig(models=("resnet18",), image_size=32, strategies=("partial",), weights="none").resolved()
    [run] = plan_runs(config)
    check_models(config, [run], 4)
    for fields, message in (
        ({"num_groups": 7}, "num_groups: got 7, expected an integer from 1 to 6"),
        ({"num_groups": 0, "groups": ("layer7",)}, "groups: got 'layer7', expected beginnings of the names"),
        ({"lrs": {"layer1": 1e-5}}, "lrs: got 'layer1', expected beginnings of the names of parameters that train"),
    ):
        unfit = replace(run, phases=[replace(run.phases[0], **fields)])
        with pytest.raises(ValueError, match=f"^{message}"):
            check_models(config, [run, replace(unfit, configuration="other")], 4)


@pytest.mark.fault(
    "Training and models",
    "an image size that patches do not divide",
    "the plan says how many pixels the model does not see, and which sizes it sees whole",
)
def test_the_plan_says_what_a_model_does_not_see(dogs_root, tmp_path):
    config = BenchmarkConfig(
        data=str(dogs_root), out=str(tmp_path / "run"), models=["timm/vit_tiny_patch16_224"], image_size=100,
        device="cpu", weights="none",
    )  # fmt: skip
    text = describe_plan(make_plan(config))
    assert text.count("notice   vit_tiny_patch16_224 at 100 px does not see the last 4 px of rows and columns") == 1


def test_one_seed_is_that_of_the_settings():
    assert {name: (run.configuration, run.seed) for name, run in runs(preset="paper", seed=7).items()} == {
        name: (name, 7) for name in ("resnet50_full", "resnet50_staged", "vit_b16_full", "vit_b16_staged")
    }


def test_several_seeds_are_runs_of_their_own():
    planned = runs(preset="paper", models=("resnet50",), seed=42, seeds=3)
    assert [(name, run.configuration, run.seed) for name, run in planned.items()] == [
        (f"resnet50_{strategy}_seed{seed}", f"resnet50_{strategy}", seed)
        for strategy in ("full", "staged")
        for seed in (42, 43, 44)
    ]
    assert planned["resnet50_full_seed43"].title == "ResNet-50, Full fine-tuning for 12 epochs, seed 43"
    assert planned["resnet50_full_seed43"].strategy == "Full fine-tuning for 12 epochs"


def test_runs_are_chosen_by_their_own_name_or_by_that_of_all_seeds():
    def chosen(*names):
        return list(runs(preset="paper", models=("resnet50",), seeds=2, runs=names))

    assert chosen("resnet50_full") == ["resnet50_full_seed42", "resnet50_full_seed43"]
    assert chosen("resnet50_staged_seed43", "resnet50_full_seed42") == [
        "resnet50_staged_seed43", "resnet50_full_seed42",
    ]  # fmt: skip
    assert chosen("resnet50_full_seed43", "resnet50_full") == ["resnet50_full_seed43", "resnet50_full_seed42"]
    with pytest.raises(ValueError, match="got 'resnet50_full_seed44', expected some of resnet50_full, resnet50_staged, "
                                         "resnet50_full_seed42, resnet50_full_seed43"):  # fmt: skip
        chosen("resnet50_full_seed44")


def test_the_split_is_that_of_the_first_seed_and_the_plan_lists_a_configuration_once(dogs_root, tmp_path):
    settings = {"data": str(dogs_root), "preset": "demo", "models": ("resnet18",), "seed": 5, "device": "cpu"}
    one, three = (make_plan(BenchmarkConfig(**settings, seeds=seeds, out=str(tmp_path / "r"))) for seeds in (1, 3))
    assert all((one.splits[name] == three.splits[name]).all() for name in one.splits)
    assert describe_plan(three).splitlines()[-2:] == [
        line + "  seed 5, 6, 7" for line in describe_plan(one).splitlines()[-2:]
    ]


def test_data_can_be_given_that_no_setting_names(dogs_root, tmp_path):
    data = open_dataset(dogs_root)
    settings = {"preset": "demo", "models": ("resnet18",), "device": "cpu", "out": str(tmp_path / "new")}
    assert make_plan(BenchmarkConfig(**settings), data=data).data is data


def test_a_label_changes_where_runs_are_gathered_and_nothing_else():
    plain = runs(preset="paper")
    labelled = runs(preset="paper", families={"vit_b_16": "attention", "resnet50": "residual"})
    assert [run.spec.family for run in plain.values()] == ["cnn", "cnn", "vit", "vit"]
    assert [run.spec.family for run in labelled.values()] == ["residual", "residual", "attention", "attention"]
    assert [run.spec.kind for run in labelled.values()] == ["cnn", "cnn", "vit", "vit"]
    for one, other in zip(plain.values(), labelled.values(), strict=True):
        assert (one.name, one.phases, one.train_recipe) == (other.name, other.phases, other.train_recipe)


def test_what_is_set_is_in_the_label_of_a_run():
    settings = {"full.lr": 3e-4, "staged.full_finetune.epochs": 5, "staged-b.head_only.patience": 2}
    planned = runs(preset="paper", models=("resnet50",), strategies=("full", "staged", "staged-b"), set=settings)
    assert {name: run.strategy for name, run in planned.items()} == {
        "resnet50_full": "full_finetune(12, 0.0003)",
        "resnet50_staged": "Head 3 + full fine-tune 5 epochs",
        "resnet50_staged-b": "staged-b: head_only(3, 0.001, patience=2) -> full_finetune(5, 0.0001)",
    }
    assert list(runs(preset="paper", models=("resnet50",), strategies=("head-b",), set={"head-b.lr": 1e-3})) == [
        "resnet50_head-b"
    ]


def test_a_setting_that_is_the_presets_own_changes_no_label():
    [run] = runs(preset="paper", models=("resnet50",), strategies=("full",), set={"lr": 1e-4}).values()
    assert run.strategy == "Full fine-tuning for 12 epochs"


def test_a_variant_that_trains_as_its_strategy_is_refused():
    with pytest.raises(ValueError, match=r"^strategies: got head and head-b, which both are head_only\(3, 0\.001\)"):
        runs(preset="paper", strategies=("head", "head-b"), set={"head-b.lr": 1e-3})


def test_training_recipes_are_compared_each_with_its_own_evaluation():
    planned = runs(
        preset="paper", models=("resnet50",), strategies=("full",), recipes=("standard-train", "inaturalist-eval")
    )
    assert list(planned) == ["resnet50_full_standard-train", "resnet50_full_inaturalist-eval"]
    assert [(run.train_recipe.name, run.eval_recipe.name) for run in planned.values()] == [
        ("standard-train", "imagenet-eval"), ("inaturalist-eval", "inaturalist-eval")
    ]  # fmt: skip
    assert [run.strategy for run in planned.values()] == [
        "Full fine-tuning for 12 epochs, standard-train", "Full fine-tuning for 12 epochs, inaturalist-eval"
    ]  # fmt: skip
    [(name, run)] = runs(preset="demo", models=("resnet18",), strategies=("head",), recipes=("cifar-train",)).items()
    assert (name, run.train_recipe.crop, run.train_recipe.padding) == ("resnet18_head", 64, 8)
    assert run.train_recipe.mean == run.spec.mean  # normalised as the model's weights were trained
    with pytest.raises(ValueError, match=r"^recipes: got 'cifar', expected some of eval, .* \(did you mean 'cifar-"):
        runs(recipes=("cifar",))
    both = {"strategies": ("head",), "recipes": ("imagenet-train", "pets-train")}
    assert len(runs(preset="paper", **both)) == 4
    with pytest.raises(ValueError, match=r"^recipes: got imagenet-train and pets-train, .* such as --recipes "
                       r"imagenet-train$"):  # fmt: skip
        runs(preset="paper", cache_features=True, **both)  # without augmentation they are one


def test_of_the_recipes_of_pets_cached_features_need_one():
    pets = {"preset": "pets", "models": ("vgg16",), "strategies": ("head",), "cache_features": True}
    with pytest.raises(ValueError, match=r"^recipes: got pets-train and imagenet-eval, expected one: with "
                       r"--cache-features a head never sees the training recipe; choose one, such as --recipes "
                       r"imagenet-eval$"):  # fmt: skip
        runs(**pets)
    assert list(runs(**pets, recipes=("imagenet-eval",))) == ["vgg16_head"]  # what is advised is taken


def test_groups_stand_in_place_of_their_number():
    named = {"groups": ("layer4", "fc")}
    [run] = runs(preset="demo", models=("resnet18",), strategies=("partial",), set=named).values()
    assert [(phase.num_groups, phase.groups) for phase in run.phases] == [(0, ("layer4", "fc"))]


def test_a_head_that_no_phase_trains_is_said():
    config = BenchmarkConfig(
        preset="demo", models=("resnet18",), image_size=32, strategies=("partial", "partial-body"),
        set={"partial-body.groups": ("layer4",)},
    ).resolved()  # fmt: skip
    said = check_models(config, plan_runs(config), 4)
    assert said == ["resnet18_partial-body: no phase trains the head (fc), which stays as it starts"]


def test_a_model_has_weights_of_its_own():
    planned = runs(
        preset="paper", models=("resnet50", "resnet50:head=mlp", "vit_b_16"), strategies=("full", "scratch"),
        model_weights={"resnet50": "a.pth", "resnet50:head=mlp": "none"},
    )  # fmt: skip
    assert [(run.spec.name, run.weights) for run in planned.values() if run.strategy_name == "full"] == [
        ("resnet50", "a.pth"), ("resnet50:head=mlp", "none"), ("vit_b_16", "imagenet")
    ]  # fmt: skip
    assert {run.weights for run in planned.values() if run.strategy_name == "scratch"} == {"none"}
    with pytest.raises(ValueError, match=r"^model_weights: got 'resnet18', expected some of the models "):
        runs(preset="paper", model_weights={"resnet18": "a.pth"})


@pytest.mark.parametrize(
    ("families", "message"),
    [
        ({"resnet18": "small"}, "families: got 'resnet18', expected some of the models resnet50, vit_b_16"),
        ({"resnet50": "a/b"}, "families: got 'a/b', expected a label of up to 64 letters, digits, - and _"),
        ({"resnet50": "../x"}, "families: got '../x', expected a label of"),
        ({"resnet50": ""}, "families: got '', expected a label of"),
        ({"resnet50": "eda"}, "families: got 'eda', the folder of something else"),
        ({"resnet50": "wandb"}, "families: got 'wandb', the folder of something else"),
        ({"resnet50": "ViT"}, "families: got 'ViT' and 'vit', expected labels that are read as different ones"),
        ({"resnet50": "transformer"}, "families: got 'transformer' and 'vit', expected labels that are read"),
    ],
)
def test_labels_that_cannot_be_are_refused(families, message):
    with pytest.raises(ValueError, match=message):
        runs(preset="paper", families=families)


def test_variants_of_a_model_are_runs_of_their_own():
    planned = runs(models=("resnet50", "resnet50:head_dropout=0.5:head=mlp", "cnn5:filters=8"), strategies=("head",))
    assert list(planned) == ["resnet50_head", "resnet50_head-mlp_head", "cnn5_filters-8_head"]
    assert planned["resnet50_head-mlp_head"].title == "ResNet-50 (head=mlp), Head only for 3 epochs"
    labelled = runs(
        models=("cnn5:norm=batch:filters=8", "cnn5"), strategies=("head",),
        families={"cnn5:filters=8:norm=batch": "wide", "cnn5:growth=same": "plain"},
    )  # fmt: skip
    assert [run.spec.family for run in labelled.values()] == ["wide", "plain"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ("cnn5:dense=8:filters=4", "cnn5:filters=4:dense=8")}, "models: got 'cnn5:dense=8:filters=4,cnn5:"
         "filters=4:dense=8', which names a model twice, expected each once"),
        ({"models": ("cnn5", "cnn5:head=linear")}, "which names a model twice"),
        ({"models": ("cnn5:filters=4",), "families": {"cnn5": "plain"}}, "families: got 'cnn5', expected some of the "
         "models cnn5:filters=4"),
        ({"models": ("resnet18:head=mpl",)}, "models: head of resnet18: got 'mpl', expected linear"),
    ],
)  # fmt: skip
def test_a_model_is_named_once_however_it_is_typed(settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        runs(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ("vit:patch=15",), "weights": "none"}, "models: cannot build vit:patch=15 at 224 px (patches of "
         "15 px do not divide it); 210, 225 px work"),
        ({"models": ("cnn5",), "weights": "none", "image_size": 31}, "; 32, 42 px work, its own size is 224 px"),
    ],
)  # fmt: skip
def test_a_network_of_a_size_that_it_cannot_have_is_refused_before_the_data_are_read(settings, message, tmp_path):
    config = BenchmarkConfig(data=str(tmp_path / "absent"), device="cpu", **settings)
    with pytest.raises(ValueError, match=re.escape(message)):
        make_plan(config)


def test_a_network_without_published_weights_says_what_to_type(dogs_root, tmp_path):
    config = BenchmarkConfig(data=str(dogs_root), out=str(tmp_path / "r"), models=("cnn5",), image_size=32)
    with pytest.raises(ValueError, match=r"^weights: got imagenet, expected none or a file: nobody published .* cnn5$"):
        make_plan(config)


@pytest.mark.fault(
    "Machine and environment", "a dry run without a network", "the plan, with a line that names the weights to download"
)
def test_a_dry_run_downloads_nothing(tmp_path, monkeypatch):
    def refuse(*arguments, **settings):
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", refuse)
    names = ("squeezenet1_1", "timm/test_resnet.r160_in1k", "squeezenet1_1:head_dropout=0.1")
    config = BenchmarkConfig(
        preset="demo", models=names, weights="imagenet", strategies=("head",), image_size=65, dry_run=True,
    )  # fmt: skip

    def checked(**changes):
        changed = replace(config, **changes).resolved()
        return check_models(changed, plan_runs(changed), 4)

    line = "weights: not here yet, will be downloaded: squeezenet1_1 (5 MB), timm/test_resnet.r160_in1k"
    assert checked() == [line]
    with pytest.raises(OSError, match=r"^weights: cannot download the ImageNet weights of squeezenet1_1 \("):
        checked(dry_run=False)
    with pytest.raises(FileNotFoundError, match=r"^weights: no file '.*absent.pth'"):
        checked(weights=str(tmp_path / "absent.pth"))
    with pytest.raises(ValueError, match=r"^weights: got imagenet, expected none or a file: nobody published"):
        checked(models=("cnn5",))


def test_weights_that_are_here_are_not_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    spec = model_spec("squeezenet1_1")
    assert weights_to_download(spec) == "squeezenet1_1 (5 MB)"
    file = tmp_path / "checkpoints" / "squeezenet1_1-b8a52dc0.pth"
    file.parent.mkdir()
    file.touch()
    assert weights_to_download(spec) is None
    assert weights_to_download(model_spec("cnn5")) is None  # nobody published any
    timm_spec = model_spec("timm/test_resnet.r160_in1k")
    assert weights_to_download(timm_spec) == "timm/test_resnet.r160_in1k"
    hub = {}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, name, revision: hub.get((repo, name)))
    hub["timm/test_resnet.r160_in1k", "model.safetensors"] = str(file)
    assert weights_to_download(timm_spec) is None


def test_the_plan_says_which_dropout_cached_features_are_without(dogs_root, tmp_path):
    config = BenchmarkConfig(
        data=str(dogs_root), out=str(tmp_path / "r"), models=("mobilenet_v3_small", "efficientnet_b0"), weights="none",
        strategies=("head",), image_size=32, device="cpu", cache_features=True,
    )  # fmt: skip
    assert list(make_plan(config).notices) == [
        "efficientnet_b0: features that are computed once are without the dropout of the frozen "
        "features.2.0.stochastic_depth and 14 more layers; that of the head stays"
    ]
    assert list(make_plan(replace(config, cache_features=False)).notices) == []


def test_a_recipe_with_fields_trains_and_is_named(dogs_root, tmp_path):
    names = ("inaturalist-train", "inaturalist-train:flip=0:rotation_deg=30")
    plan = make_plan(
        BenchmarkConfig(
            data=str(dogs_root), models=("cnn5",), strategies=("scratch",), recipes=names, out=str(tmp_path / "r"),
            device="cpu", image_size=32,
        )
    )  # fmt: skip
    plain, changed = plan.runs
    assert (changed.train_recipe.flip, changed.train_recipe.rotation_deg, changed.train_recipe.crop) == (0, 30, 32)
    assert changed.eval_recipe == plain.eval_recipe
    assert changed.recipe_name == "inaturalist-train:flip=0.0:rotation_deg=30.0"
    assert changed.name == "cnn5_scratch_inaturalist-train_flip-0_0_rotation_deg-30_0"


def test_settings_of_no_effect_are_said_in_one_line(dogs_root, tmp_path):
    settings = {"patience": 9, "staged.head_only.layer_decay": 0.5, "staged.head_only.schedule": "step",
                "staged.head_only.step_epochs": 3}  # fmt: skip
    config = BenchmarkConfig(
        data=str(dogs_root), preset="demo", models=("resnet18",), image_size=32, device="cpu", set=settings,
        out=str(tmp_path / "run"),
    )  # fmt: skip
    [line] = [line for line in describe_plan(make_plan(config)).splitlines() if line.startswith("notice")]
    assert line == (
        "notice   set to no effect: patience in head_only of staged, where 3 epochs end first; layer_decay in "
        "head_only of staged, where the head alone trains; step_epochs in head_only of staged, where 3 epochs end "
        "first; patience in full_finetune of staged, where 8 epochs end first"
    )


def test_other_runs_on_the_data_of_a_plan_are_checked_as_its_own_are(dogs_root, tmp_path):
    config = BenchmarkConfig(
        data=str(dogs_root), preset="demo", image_size=32, models=("resnet18",), strategies=("full",), device="cpu",
        out=str(tmp_path / "out"), loader="torch",
    )  # fmt: skip
    made = make_plan(config)
    idle = replace(config, set={"patience": 99})
    assert plan_of_others(made, idle).notices == make_plan(idle).notices != []
    with pytest.raises(ValueError, match="cuda_graphs: got it with 1 process"):
        plan_of_others(made, replace(config, cuda_graphs=True))
