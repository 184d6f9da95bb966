"""The pages: links lead somewhere, figures are those of bench/results, and their Python runs."""

import contextlib
import dataclasses
import io
import re
import shutil
import urllib.parse

import pytest
from torch.distributed.run import get_args_parser

from bench import gpu_check, write_docs
from bench.write_docs import ROOT, pages
from dogs_accel import benchmark, cli
from dogs_accel.datasets import LAYOUTS, open_dataset
from dogs_accel.runtime.files import read_json
from dogs_accel.training.phases import STRATEGIES, Phase
from tests.docs.test_extending import BLOCK, PAGE
from tests.support.small_stores import AS_IS, build, pil_pixels

README = ROOT / "README.md"
COMMANDS = (
    "download", "prepare", "metadata", "eda", "parity", "throughput", "cost", "architecture", "predict", "explain",
    "export", "report", "sweep",
)  # fmt: skip
FENCE = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
PAGES = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in pages()]


def prose_of(path):
    """What is not code."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", path.read_text(encoding="utf-8")))


def anchors_of(path):
    """Anchors as GitHub makes them of the headings."""
    found, seen = set(), {}
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", path.read_text(encoding="utf-8")), flags=re.MULTILINE):
        name = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        found.add(f"{name}-{seen[name]}" if name in seen else name)
        seen[name] = seen.get(name, 0) + 1
    return found


def links_of(path):
    """Links to files of the project: (as written, the file, the anchor or "")."""
    for link in LINK.findall(prose_of(path)):
        if not urllib.parse.urlparse(link).scheme:
            target, _, anchor = link.partition("#")
            yield link, (path.parent / target).resolve() if target else path, anchor


@pytest.mark.parametrize("path", PAGES)
def test_links_lead_somewhere(path):
    broken = [link for link, target, _ in links_of(path) if not target.exists()]
    broken += [link for link, target, anchor in links_of(path) if anchor and anchor not in anchors_of(target)]
    assert broken == []


def test_every_strategy_and_every_field_of_a_phase_is_explained():
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    fields = [field.name for field in dataclasses.fields(Phase)]
    assert [name for name in (*STRATEGIES, *fields) if f"`{name}`" not in page] == []


def test_every_page_can_be_reached_from_the_readme():
    linked = {target for _, target, _ in links_of(README)}
    assert [path.name for path in pages() if path not in linked | {README}] == []


def test_the_readme_is_short_and_shows_the_two_commands():
    text = README.read_text(encoding="utf-8")
    assert len(text.encode()) <= 10_000
    assert "python -m dogs_accel.benchmark --gpu 0" in text
    assert "pytest bench/ --benchmark" in text
    assert "make benchmark" in text
    assert "make test" in text


@pytest.mark.parametrize("path", PAGES)
def test_figures_are_those_of_the_results(path):
    text = path.read_text(encoding="utf-8")
    assert write_docs.with_figures(text) == text, "python -m bench.write_docs writes them"


def test_every_figure_has_its_place():
    named = [name for path in pages() for name in write_docs.names_of_figures(path.read_text(encoding="utf-8"))]
    assert set(named) == set(write_docs.FIGURES)


def test_the_picture_is_that_of_the_results():
    assert write_docs.picture_source() == write_docs.digest_of_results()
    assert write_docs.PICTURE.stat().st_size < 150_000


def test_an_unknown_figure_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"figures: got 'speed', expected one of machine, loaders, "):
        write_docs.with_figures("<!-- figures: speed -->\n<!-- end -->")


def test_a_page_with_other_figures_is_written_and_one_with_the_same_is_not(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- figures: squash -->\n<!-- end -->\nafter\n".replace("squash", "op-squash"))
    assert write_docs.write_page(page)
    assert page.read_text().startswith("before\n<!-- figures: op-squash -->\n\n| 32 photos of 468 x 401 to 256 x 256 |")
    assert page.read_text().endswith("|\n\n<!-- end -->\nafter\n")
    assert not write_docs.write_page(page)


def test_the_figures_of_the_demo_are_taken_from_a_finished_run(full_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(write_docs, "DEMO", tmp_path / "demo.json")
    kept = read_json(write_docs.keep_demo(full_folder))
    assert [run["run"] for run in kept["runs"]] == [
        "resnet50_full",
        "resnet50_staged",
        "vit_b16_full",
        "vit_b16_staged",
    ]
    assert len(kept["pairs"]) == 6


@pytest.mark.parametrize("path", PAGES)
def test_nothing_is_said_of_the_machine_of_whoever_wrote_it(path):
    assert re.findall(r"/(?:work|root|home|tmp)/\S*", path.read_text(encoding="utf-8")) == []


@pytest.fixture(scope="module")
def known_flags():
    """Flags of the commands that the pages name, by their own help."""
    found = set(re.findall(r"--[\w-]+", get_args_parser().format_help()))  # torchrun
    found |= set(re.findall(r'"(--[\w-]+)"', (ROOT / "bench" / "conftest.py").read_text(encoding="utf-8")))
    for main, *arguments in (
        (benchmark.main,), (gpu_check.main,), (write_docs.main,), *((cli.main, name) for name in COMMANDS),
    ):  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()) as out, pytest.raises(SystemExit):
            main([*arguments, "--help"])
        found |= set(re.findall(r"--[\w-]+", out.getvalue()))
    return found


@pytest.mark.parametrize("path", PAGES)
def test_every_flag_is_one_of_a_command(path, known_flags):
    named = set(re.findall(r"(?<![\w-])--[a-z][\w-]+", path.read_text(encoding="utf-8")))
    assert named - known_flags - {"--help"} == set()


def run_python_of(path, namespace):
    namespace["__name__"] = "__main__"
    for kind, text in ((block[1], block[2]) for block in BLOCK.finditer(path.read_text(encoding="utf-8"))):
        assert kind == "python"
        exec(compile(text, str(path), "exec"), namespace)


FORMATS = ROOT / "docs" / "formats.md"


@pytest.mark.parametrize("path", [each for each in PAGES if each.values[0] not in (PAGE, FORMATS)])
def test_its_python_runs(path, flowers, tmp_path, monkeypatch):
    shutil.copytree(flowers, tmp_path / "flowers")
    monkeypatch.chdir(tmp_path)
    data = open_dataset(tmp_path / "flowers")
    run_python_of(path, {"root": "flowers", "paths": data.paths, "labels": data.labels})


def test_the_python_of_the_formats_reads_a_run_and_a_store(full_folder, dogs_root, tmp_path, monkeypatch, capsys):
    (tmp_path / "runs").mkdir()
    table = shutil.copytree(full_folder, tmp_path / "runs" / "demo") / "metadata_with_quality.csv"
    table.write_text(table.read_text().replace(",Chihuahua,", ",NA,"))
    photos = sorted(dogs_root.rglob("*.jpg"))[:3]
    build(photos, AS_IS, tmp_path / "STORE")
    monkeypatch.chdir(tmp_path)
    run_python_of(FORMATS, read := {})
    assert [image.tolist() for image in read["images"]] == [pil_pixels(path, AS_IS).tolist() for path in photos]
    assert capsys.readouterr().out.startswith("resnet50_full 0.")
    assert "NA" in set(read["table"]["class_name"])


def test_the_page_of_data_names_every_layout():
    text = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    assert [layout for layout in LAYOUTS if f"| `{layout}` |" not in text] == []
