"""Training in several processes: what each reaches on this machine, and on paper what the gradients' exchange costs.

Processes each train on a batch of their own size (weak scaling) that lies on the device, so that neither loading nor
storing counts. Where there is a GPU for each they exchange gradients by NCCL; NCCL refuses two of them on one GPU, so
there, as on a CPU, they exchange them by gloo and share the device: the rate in all then shows what sharing costs, not
what more devices would give.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from dogs_accel.models.build import build_model
from dogs_accel.models.flops import PEAK_TFLOPS, count_flops
from dogs_accel.models.freezing import count_total_params
from dogs_accel.models.specs import model_spec
from dogs_accel.runtime.precision import amp_dtype
from dogs_accel.runtime.processes import World, all_reduce_bytes, share_gradients, world_from_environment
from dogs_accel.training.optimizers import make_optimizer
from dogs_accel.training.step import StepSettings, TrainingStep, prepare_model
from pipelines.cores import available_cores

ROOT = Path(__file__).parents[1]
HAS_GPU = torch.cuda.is_available()
DEVICES = "GPUs" if HAS_GPU else "cores"
NUM_DEVICES = torch.cuda.device_count() if HAS_GPU else available_cores()
NUM_PROCESSES = [num for num in (1, 2, 4, 8) if num <= max(2, NUM_DEVICES)]
NUM_CLASSES = 120
MODELS = ("resnet50", "vit_b_16")
LINKS = {
    "NVLink 4": 450e9, "InfiniBand NDR": 50e9, "PCIe 4.0 x16": 32e9, "100 Gb Ethernet": 12.5e9, "10 Gb Ethernet": 1.25e9
}  # fmt: skip
"""Bytes a second each way, of their data sheets."""
RING_SIZES = (2, 4, 8, 16)
BATCHES = (32, 256)
"""Of all processes together."""
CHIP = "H100 80GB HBM3"
CHIP_SHARE = 0.4
"""Of the chip's bf16 peak, that a step on paper reaches: an assumption, which makes the exchange look dear."""


def work(name, image_size, batch_size, num_steps, num_rounds):
    """Run one of the processes: returns the images a second of each round, with and without exchange."""
    world = world_from_environment()
    has_own_gpu = HAS_GPU and world.local_size <= torch.cuda.device_count()
    device = torch.device("cuda", world.local_rank if has_own_gpu else 0) if HAS_GPU else torch.device("cpu")
    if HAS_GPU:
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(max(1, available_cores() // world.local_size))
    dist.init_process_group("nccl" if has_own_gpu else "gloo")
    spec = model_spec(name, image_size)
    settings = StepSettings(amp=amp_dtype("auto", device))
    images = torch.randn(batch_size, 3, spec.image_size, spec.image_size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.arange(batch_size, device=device) % NUM_CLASSES
    steps = {}
    for exchange in (False, True) if world.size > 1 else (False,):
        model = prepare_model(build_model(spec, NUM_CLASSES, "none").model.train(), device, settings)
        optimizer = make_optimizer(model.parameters(), 1e-4, 1e-4, settings)
        shared = share_gradients(model, world if exchange else World(), device)
        steps[exchange] = TrainingStep(shared, optimizer, device=device, settings=settings)
    rates = {exchange: [] for exchange in steps}
    for round_ in range(-1, num_rounds):  # the first warms up
        for exchange, step in steps.items():
            dist.barrier()
            start = time.perf_counter()
            for _ in range(num_steps):
                step(images, labels)
            if HAS_GPU:
                torch.cuda.synchronize(device)
            if round_ >= 0:
                rates[exchange].append(num_steps * batch_size / (time.perf_counter() - start))
    every = [None] * world.size
    dist.all_gather_object(every, rates)
    dist.destroy_process_group()
    return every if world.is_rank_zero else None


def measure(num_processes, arguments, out):
    """Images a second of each process in each round, by whether gradients are exchanged."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(num_processes)]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ended = subprocess.run(
        [*command, __file__, str(out), *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": path}, check=False, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return json.loads(out.read_text(encoding="utf-8"))


def summarise(num_processes, every):
    """Medians over rounds: of a rank the median over ranks, and of all the sum."""
    rows = []
    for exchange in every[0]:
        rounds = list(zip(*(rates[exchange] for rates in every), strict=True))
        rows.append(
            {"processes": num_processes, "exchange": exchange == "true", "rounds": rounds,
             "per_rank": statistics.median(statistics.median(each) for each in rounds),
             "in_all": statistics.median(sum(each) for each in rounds)}
        )  # fmt: skip
    return rows


def test_processes(bench, tmp_path):
    if bench.measure:
        names = MODELS if HAS_GPU else ("resnet18", "timm/vit_tiny_patch16_224")
        sizes = (224, 32, 5, bench.rounds) if HAS_GPU else (64, 16, 8, bench.rounds)
        numbers = NUM_PROCESSES
    else:
        names, sizes, numbers = ("timm/vit_tiny_patch16_224",), (32, 2, 1, 1), (2,)
    lines, tables = ["  model, processes           img/s a rank  img/s in all  with the exchange of gradients"], {}
    for name in names:
        rows = [row for num in numbers for row in summarise(num, measure(num, (name, *sizes), tmp_path / "rates.json"))]
        tables[name] = rows
        lines += [
            f"  {name.removeprefix('timm/')[:18]:<18} {row['processes']:>2}  {row['per_rank']:>18,.1f}  "
            f"{row['in_all']:>12,.1f}  {'yes' if row['exchange'] else 'no'}"
            for row in rows
        ]
        assert all(row["per_rank"] > 0 for row in rows)
    shares = f"; where processes are more than the {NUM_DEVICES} {DEVICES}, they share them"
    title = f"Training in processes, batch {sizes[1]} each at {sizes[0]} px, on {NUM_DEVICES} {DEVICES}{shares}"
    bench.save("scaling", title, "\n".join(lines), image_size=sizes[0], batch_size=sizes[1], models=tables)


def on_paper(name):
    """What a step of a model exchanges and computes, by number of processes."""
    spec = model_spec(name)
    with torch.device("meta"):
        num_bytes = 4 * count_total_params(build_model(spec, NUM_CLASSES, "none").model)  # float32, with AMP too
    flops = count_flops(spec, NUM_CLASSES, "full_finetune")
    speed = CHIP_SHARE * 1e12 * PEAK_TFLOPS[CHIP].bf16
    backward_s = (flops.training - flops.forward) / speed
    rows = []
    for num in RING_SIZES:
        sent = all_reduce_bytes(num_bytes, num)
        rows.append(
            {"processes": num, "bytes_sent": sent,
             "exchange_s": {link: sent / rate for link, rate in LINKS.items()},
             "backward_s": {batch: batch / num * backward_s for batch in BATCHES},
             "images_a_rank_that_hide_it": {link: sent / rate / backward_s for link, rate in LINKS.items()}}
        )  # fmt: skip
    return {"gradient_bytes": num_bytes, "rows": rows}


def describe_paper(name, table):
    """Lay out a table of `on_paper`."""
    lines = [
        f"  {name}: {table['gradient_bytes'] / 1e6:.1f} MB of gradients",
        f"  {'N':>4}  {'MB sent':>8}  {'ms over ' + '  '.join(LINKS)}  {'ms of backward at batch 32, 256 of all':>39}",
    ]
    for row in table["rows"]:
        over = "  ".join(
            f"{1e3 * row['exchange_s'][link]:>{len(link) + 8 * (i == 0)}.2f}" for i, link in enumerate(LINKS)
        )
        backward = ", ".join(f"{1e3 * seconds:.2f}" for seconds in row["backward_s"].values())
        lines.append(f"  {row['processes']:>4}  {row['bytes_sent'] / 1e6:>8.1f}  {over}  {backward:>39}")
    last = table["rows"][-1]
    hidden = ", ".join(f"{link} {num:,.0f}" for link, num in last["images_a_rank_that_hide_it"].items())
    return "\n".join([*lines, f"        images a rank whose backward hides it, N = {last['processes']}: {hidden}"])


@pytest.mark.parametrize("name", MODELS)
def test_exchange_on_paper(bench, name):
    table = on_paper(name)
    title = (
        f"Exchange of gradients in a ring on paper, each rank sends and receives; backward at {CHIP_SHARE:.0%} of the "
        f"bf16 peak of one {CHIP}, with which the exchange may overlap"
    )
    bench.save(f"scaling_paper_{name}", title, describe_paper(name, table), chip=CHIP, share=CHIP_SHARE, **table)
    assert [row["bytes_sent"] for row in table["rows"]] == sorted(row["bytes_sent"] for row in table["rows"])


if __name__ == "__main__":
    rates_file, model_name, *numbers = sys.argv[1:]
    found = work(model_name, *map(int, numbers))
    if found is not None:
        Path(rates_file).write_text(json.dumps(found), encoding="utf-8")
