"""The study of a sweep, with a made objective: samplers, budgets, pruning, workers at once and killed ones."""

import dataclasses
import itertools
import multiprocessing
import re
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from optuna.storages import JournalStorage

from dogs_accel.experiment.examine import ExaminedData
from dogs_accel.sweep.engine import opened
from dogs_accel.sweep.engine import trial as of_trial
from dogs_accel.sweep.engine.opened import Where
from dogs_accel.sweep.engine.study import STUDY_JOURNAL_FILE, SweepStudy, trial_rows
from dogs_accel.sweep.engine.trial import Progress, TrialError, TrialRunner
from dogs_accel.sweep.engine.worker import NothingTrainsError, work
from dogs_accel.sweep.trials import TRIALS_FILE, read_trials
from dogs_accel.training.trainer import DivergedError
from tests.sweep.stubs import SPACE, Killed, StubbedTrain, made_sweep, run_all

POINTS = ["state", "epochs", "value", "set.lr", "model.dense", "recipe.flip"]


def table_of(folder, sweep):
    return read_trials(folder / TRIALS_FILE, sweep.space)


@pytest.mark.parametrize("sampler", ["bayes", "random"])
def test_one_seed_gives_the_same_trials_and_another_one_others(tmp_path, sampler):
    tables = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        sweep = made_sweep(sampler=sampler, seed=seed, trials=12)
        run_all(tmp_path / name, sweep, StubbedTrain(1))
        tables.append(table_of(tmp_path / name, sweep)[POINTS])
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])
    assert len(tables[0]) == 12
    assert tables[0]["set.lr"].between(1e-4, 1e-1).all()
    assert tables[0]["set.lr"].is_unique


def test_a_sweep_that_is_killed_goes_on_with_the_same_trials(tmp_path):
    sweep = made_sweep(trials=12, pruning="halving")
    whole, killed = StubbedTrain(), StubbedTrain(dies=[(0, 1), (0, 2), (5, 1), (11, 1)])
    run_all(tmp_path / "whole", sweep, whole)
    said = run_all(tmp_path / "killed", sweep, killed)
    assert killed.dies == set()
    assert table_of(tmp_path / "killed", sweep)[POINTS].equals(table_of(tmp_path / "whole", sweep)[POINTS])
    # No epoch is trained again that had a checkpoint, and no trial comes twice.
    assert killed.trained == whole.trained
    assert sum("taken over" in line for line in said) == 3
    assert "taken over" in said[5]


def test_bayes_finds_what_random_draws_do_not(tmp_path):
    """It draws nearer to the optimum of a smooth objective once it has seen a few points."""
    space = {"set.lr": {"low": 0.001, "high": 1.0}}
    best = {}
    for sampler in ("bayes", "random"):
        sweep = made_sweep(space, sampler=sampler, trials=26, seed=3)
        run_all(tmp_path / sampler, sweep, StubbedTrain(1, value=lambda point: 1 - (point["set.lr"] - 0.3) ** 2))
        table = table_of(tmp_path / sampler, sweep)
        best[sampler] = (table["set.lr"].astype(float) - 0.3).abs()[13:].median()
    assert best["bayes"] < best["random"] / 2


def test_a_grid_takes_each_point_once_in_an_order_of_its_seed(tmp_path):
    space = {name: SPACE[name] for name in ("model.dense", "recipe.flip")}
    sweep = made_sweep(space, sampler="grid")
    train = StubbedTrain(1, dies=[(2, 1)])
    run_all(tmp_path / "all", sweep, train)
    table = table_of(tmp_path / "all", sweep)
    assert len(table) == 6
    assert not table.duplicated(["model.dense", "recipe.flip"]).any()
    drawn = [tuple(point.values()) for point in sweep.space.points()]
    order = list(zip(table["model.dense"], table["recipe.flip"], strict=True))
    assert order != drawn
    assert sorted(order) == sorted(drawn)
    part = made_sweep(space, sampler="grid", trials=4)
    run_all(tmp_path / "part", part)
    assert list(table_of(tmp_path / "part", part)["model.dense"]) == [dense for dense, _ in order[:4]]
    with pytest.raises(ValueError, match=r"space: set\.lr has no end of values for the sampler grid"):
        made_sweep(sampler="grid")


@pytest.mark.parametrize("trials", [None, 4])
def test_a_grid_comes_to_every_point_once_beside_those_given_by_hand(tmp_path, trials):
    sweep = made_sweep({name: SPACE[name] for name in ("model.dense", "recipe.flip")}, sampler="grid", trials=trials)
    order = [sweep.space.point(int(number)) for number in np.random.default_rng(sweep.seed).permutation(6)]
    run_all(tmp_path, dataclasses.replace(sweep, trials=1), StubbedTrain(1))
    for point in order[2:4]:
        run_all(tmp_path, sweep, StubbedTrain(1), point=point)
    run_all(tmp_path, sweep, StubbedTrain(1))
    table = table_of(tmp_path, sweep)
    assert len(table) == 6  # all points, or the four of the budget and two by hand
    assert not table.duplicated(["model.dense", "recipe.flip"]).any()
    found = table[["model.dense", "recipe.flip"]].to_dict("records")
    assert found == [order[number] for number in (0, 2, 3, 1, 4, 5)]
    assert run_all(tmp_path, sweep) == []


@pytest.mark.parametrize("sampler", ["grid", "random"])
def test_a_stepped_range_is_drawn_in_its_own_values(tmp_path, sampler):
    sweep = made_sweep({"recipe.flip": {"low": 0.0, "high": 0.3, "step": 0.1}}, sampler=sampler, trials=12)
    run_all(tmp_path, sweep, StubbedTrain(1, value=lambda point: point["recipe.flip"]))
    assert {0.1, 0.3} < set(table_of(tmp_path, sweep)["recipe.flip"]) <= {0.0, 0.1, 0.2, 0.3}


def test_a_point_that_comes_again_is_said(tmp_path):
    sweep = made_sweep({"model.dense": [32], "recipe.flip": [0.0, 0.5]}, sampler="random", trials=3)
    assert any(re.search(r"the point of trial [01] again", line) for line in run_all(tmp_path, sweep))


@pytest.mark.parametrize(
    ("own", "num"), [({"trials": 4}, 4), ({"total_epochs": 7}, 3), ({"trials": 2, "total_epochs": 90}, 2)]
)
def test_budgets(tmp_path, own, num):
    sweep = made_sweep(**own)
    run_all(tmp_path, sweep)
    assert len(table_of(tmp_path, sweep)) == num
    assert run_all(tmp_path, sweep) == []


def test_hours_begin_no_other_trial(tmp_path):
    assert run_all(tmp_path, made_sweep(trials=4), until=time.monotonic()) == []
    train, ends = StubbedTrain(), []
    train.value = lambda point: ends.append(time.monotonic()) or 0.5
    assert len(run_all(tmp_path, made_sweep(trials=4), train, until=time.monotonic() + 1e-9)) <= 1


def test_halving_gives_up_what_is_not_among_the_best_of_its_epoch(tmp_path):
    """Asynchronous successive halving by hand: with a factor of 2, a trial goes on after 1, 2 and 4 epochs where it is
    among the better half of those that came so far."""
    values = [0.5, 0.9, 0.1, 0.95, 0.2, 0.96]
    sweep = made_sweep({"model.dense": {"low": 1, "high": 10**6}}, pruning="halving", halving_factor=2, trials=6)
    given = {}
    train = StubbedTrain(6, value=lambda point: given.setdefault(point["model.dense"], values[len(given) % 6]))
    run_all(tmp_path, sweep, train)
    table = table_of(tmp_path, sweep)
    assert list(table["state"]) == ["complete", "complete", "pruned", "complete", "pruned", "complete"]
    assert list(table["epochs"]) == [6, 6, 1, 6, 1, 6]
    assert train.removed == [2, 4, 0]  # and of the complete ones the fourth best, as the last one ends
    assert table["value"][2] == pytest.approx(0.1 - 0.05)


def test_weights_are_kept_of_the_three_best_and_of_none_that_failed(tmp_path):
    values = {0: 0.5, 1: 0.7, 2: 0.9, 3: 0.6, 4: 0.4, 5: 0.7, 6: 0.8}
    sweep, train = made_sweep({"model.dense": {"low": 1, "high": 10**6}}, sampler="random", trials=8), StubbedTrain(1)
    given = {}
    train.value = lambda point: values[given.setdefault(point["model.dense"], len(given))]
    train.fails = lambda point: len(given) == 7
    run_all(tmp_path, sweep, train)
    assert table_of(tmp_path, sweep)["state"].tolist() == [*["complete"] * 7, "failed"]
    # Of two that are equal the earlier one is the better one.
    assert train.removed == [0, 4, 3, 5, 7]


def test_weights_that_a_killed_worker_has_left_go_as_another_trial_ends(tmp_path):
    class DiesOnce(StubbedTrain):
        def drop_weights(self, folder):
            if not left:
                left.append(int(folder.name))
                raise Killed
            super().drop_weights(folder)

    left = []
    train, sweep = DiesOnce(1), made_sweep(sampler="random", trials=5)
    run_all(tmp_path, sweep, train)
    best = table_of(tmp_path, sweep).sort_values("value", ascending=False, kind="stable")["number"][:3]
    assert set(train.removed) == set(range(5)) - set(best)
    assert left[0] in train.removed


def test_weights_that_another_worker_removes_at_the_same_time_are_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(of_trial, "runs_files", lambda folder, name: [folder / name])
    TrialRunner.drop_weights(SimpleNamespace(), tmp_path)


def test_no_trial_is_given_up_after_its_last_epoch(tmp_path):
    sweep = made_sweep(pruning="halving", halving_factor=3, halving_epochs=3, trials=5)
    run_all(tmp_path, sweep)
    assert set(table_of(tmp_path, sweep)["state"]) == {"complete"}


def test_a_point_that_cannot_be_trained_is_failed_and_the_rest_goes_on(tmp_path):
    sweep = made_sweep(trials=8, sampler="random")
    said = run_all(tmp_path, sweep, StubbedTrain(fails=lambda point: point["model.dense"] == 64))
    table = table_of(tmp_path, sweep)
    assert set(table["state"][table["model.dense"] == 64]) == {"failed"}
    assert set(table["state"][table["model.dense"] != 64]) == {"complete"}
    assert any("failed: set: lr: got too much" in line for line in said)
    failed = table["state"] == "failed"
    assert set(table["reason"][failed]) == {"set: lr: got too much"}
    assert set(table["reason"][~failed]) == {""}
    # What nobody has counted is no number of the table, and the seed is that of the settings.
    lines = (tmp_path / TRIALS_FILE).read_text().splitlines()
    columns = lines[0].split(",")
    at, where = table["number"][failed].iloc[0], columns.index("num_val")
    assert columns[-1] == "reason"
    assert lines[1 + at].split(",")[where : where + 2] == ["", "42"]
    assert set(table["seed"]) == {42}
    other = dataclasses.replace(sweep, settings={**sweep.settings, "seed": 7})
    assert {row.seed for row in trial_rows(SweepStudy(tmp_path, sweep).trials, other) if row.state == "failed"} == {7}


def test_a_sweep_of_which_nothing_trains_stops(tmp_path):
    with pytest.raises(NothingTrainsError, match="no trial could be trained; the last one failed: set: lr: got too"):
        run_all(tmp_path, made_sweep(trials=9), StubbedTrain(fails=lambda point: True))
    assert len(table_of(tmp_path, made_sweep())) == 5


def test_a_sweep_that_has_trained_goes_on_where_what_follows_fails(tmp_path):
    run_all(tmp_path, made_sweep(trials=1))
    run_all(tmp_path, made_sweep(trials=8), StubbedTrain(fails=lambda point: True))
    assert list(table_of(tmp_path, made_sweep())["state"]) == ["complete", *["failed"] * 7]


def test_a_trial_at_which_workers_die_again_and_again_is_left_alone(tmp_path):
    class Deadly(StubbedTrain):
        def __call__(self, claimed, on_progress):
            if claimed.number == 1:
                self.trained.append(1)
                raise Killed
            return super().__call__(claimed, on_progress)

    sweep, train = made_sweep(trials=3), Deadly()
    run_all(tmp_path, sweep, train)
    assert train.trained.count(1) == 3
    table = table_of(tmp_path, sweep)
    assert list(table["state"]) == ["complete", "failed", "complete"]
    assert table["reason"][1] == "3 workers died at it after 0 epochs"


def test_a_worker_that_is_stopped_is_none_that_died(tmp_path):
    class Stopped(StubbedTrain):
        def __call__(self, claimed, on_progress):
            raise KeyboardInterrupt

    sweep = made_sweep(trials=1)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            run_all(tmp_path, sweep, Stopped())
    run_all(tmp_path, sweep)
    assert list(table_of(tmp_path, sweep)["state"]) == ["complete"]


@pytest.mark.parametrize("sampler", ["bayes", "random"])
def test_a_point_that_was_half_drawn_is_drawn_to_its_end_as_it_would_have_been(tmp_path, sampler, monkeypatch):
    sweep = made_sweep(sampler=sampler, trials=13)
    run_all(tmp_path / "whole", sweep)
    write, num = JournalStorage.set_trial_param, itertools.count()

    def killed(self, *given):
        if next(num) % 3 == 1:  # after the first one of each trial, and then after its second
            raise Killed
        write(self, *given)

    monkeypatch.setattr(JournalStorage, "set_trial_param", killed)
    run_all(tmp_path / "killed", sweep)
    assert table_of(tmp_path / "killed", sweep)[POINTS].equals(table_of(tmp_path / "whole", sweep)[POINTS])


@pytest.mark.parametrize("state", ["complete", "failed"])
def test_the_table_says_what_a_process_did_that_was_killed_before_it_wrote_there(tmp_path, monkeypatch, state):
    sweep = made_sweep(trials=1)

    def killed(self):
        if any(each.state.is_finished() for each in self.trials):
            raise Killed
        return write(self)

    write = SweepStudy._write_table
    with monkeypatch.context() as patch:
        patch.setattr(SweepStudy, "_write_table", killed)
        with pytest.raises(Killed):
            list(work(SweepStudy(tmp_path, sweep), StubbedTrain(fails=lambda point: state == "failed")))
    assert list(table_of(tmp_path, sweep)["state"]) == ["running"]
    assert run_all(tmp_path, sweep) == []
    assert list(table_of(tmp_path, sweep)["state"]) == [state]


def test_a_last_trial_at_which_workers_died_is_failed_in_the_table(tmp_path):
    sweep = made_sweep(trials=1)
    for _ in range(3):
        with pytest.raises(Killed):
            list(work(SweepStudy(tmp_path, sweep), StubbedTrain(dies=[(0, 1)], epochs=1)))
        (tmp_path / "trials" / "0000" / "epochs.json").unlink()  # it had no checkpoint
    assert list(work(SweepStudy(tmp_path, sweep), StubbedTrain())) == []
    assert list(table_of(tmp_path, sweep)["state"]) == ["failed"]
    assert not list((tmp_path / "locks").glob("0*"))


def test_no_trial_is_given_up_that_had_told_its_last_epoch_before_its_worker_died(tmp_path):
    sweep = made_sweep(trials=4, pruning="halving", halving_factor=3)
    train = StubbedTrain(value=lambda point: 0.9)
    run_all(tmp_path, dataclasses.replace(sweep, trials=3), train)
    study = SweepStudy(tmp_path, sweep)
    progress = {"seconds": 1.0, "overhead_seconds": 0.0}
    with study.claim() as claimed:
        for step in (1, 2, 3):  # told, but not asked whether it lags
            claimed.trial.report(0.1, step)
        assert not study.report(claimed, [0.1], 3, progress)
        assert study.report(claimed, [0.1], 4, progress)


def test_a_point_by_hand_whose_process_is_killed_as_it_is_given_out_is_trained(tmp_path, monkeypatch):
    sweep, point = made_sweep(trials=1), {"set.lr": 0.01, "model.dense": 64, "recipe.flip": 0.5}
    write, num = JournalStorage.create_new_trial, itertools.count()

    def killed(*given, **named):
        number = write(*given, **named)
        if not next(num):
            raise Killed
        return number

    monkeypatch.setattr(JournalStorage, "create_new_trial", killed)
    with pytest.raises(Killed):
        list(work(SweepStudy(tmp_path, sweep), StubbedTrain(), point=point))
    run_all(tmp_path, sweep)
    table = table_of(tmp_path, sweep)
    assert list(table["state"]) == ["complete", "complete"]
    assert table[[*point]].iloc[0].to_dict() == point


def test_a_point_by_hand_that_an_earlier_version_left_waiting_is_trained(tmp_path):
    sweep, point = made_sweep(trials=1), {"set.lr": 0.01, "model.dense": 64, "recipe.flip": 0.5}
    SweepStudy(tmp_path, sweep)._study.enqueue_trial(point)
    run_all(tmp_path, sweep)
    table = table_of(tmp_path, sweep)
    assert list(table["state"]) == ["complete", "complete"]
    assert table["set.lr"][0] == 0.01


def test_a_given_point_is_trained_alone_whatever_the_budget(tmp_path):
    sweep = made_sweep(trials=1)
    run_all(tmp_path, sweep)
    point = {"set.lr": 0.01, "model.dense": 64, "recipe.flip": 0.5}
    assert len(run_all(tmp_path, sweep, point=point)) == 1
    table = table_of(tmp_path, sweep)
    assert table[["set.lr", "model.dense", "recipe.flip"]].iloc[1].to_dict() == point
    assert len(table) == 2


def test_a_given_point_that_cannot_be_trained_is_no_success(tmp_path):
    sweep, point = made_sweep(trials=1), {"set.lr": 0.01, "model.dense": 64, "recipe.flip": 0.5}
    run_all(tmp_path, sweep)
    with pytest.raises(NothingTrainsError, match="the point was not trained: set: lr: got too much"):
        run_all(tmp_path, sweep, StubbedTrain(fails=lambda point: True), point=point)
    assert list(table_of(tmp_path, sweep)["state"]) == ["complete", "failed"]


def test_half_a_line_of_a_killed_process_is_cut_off(tmp_path):
    sweep = made_sweep(trials=2)
    run_all(tmp_path, dataclasses.replace(sweep, trials=1))
    with (tmp_path / STUDY_JOURNAL_FILE).open("ab") as journal:
        journal.write(b'{"op_code":6,"wor')
    run_all(tmp_path, sweep)
    assert list(table_of(tmp_path, sweep)["state"]) == ["complete", "complete"]


def test_what_is_lost_beside_training_is_measured(tmp_path):
    class Slow(StubbedTrain):
        def __call__(self, claimed, on_progress):
            time.sleep(0.05)
            return super().__call__(
                claimed, lambda progress: on_progress(Progress(progress.accuracies, 0.0, 3, 200, 7))
            )

    sweep = made_sweep(trials=3)
    run_all(tmp_path, sweep, Slow())
    table = table_of(tmp_path, sweep)
    assert (table["overhead_seconds"] >= 0.05).all()
    assert (table["seconds"] == 0).all()
    assert set(table["num_val"]) == {200}
    assert set(table["seed"]) == {7}


def test_the_log_of_a_trial_that_cannot_be_trained_says_why(tmp_path, monkeypatch):
    def refuse(*given, **how):
        raise ValueError("set: lr: got too much")

    monkeypatch.setattr(opened.OpenedData, "plan_of", refuse)
    sweep = made_sweep(trials=1)
    runner = TrialRunner(tmp_path, sweep, Where())
    with SweepStudy(tmp_path, sweep).claim() as claimed, pytest.raises(TrialError):
        runner(claimed, lambda progress: None)
    assert (tmp_path / "trials" / "0000" / "log.txt").read_text() == "failed: set: lr: got too much\n"


def test_a_trial_that_diverges_gives_no_advice_of_another_command(tmp_path, monkeypatch):
    def diverge(*given, **others):
        raise DivergedError("the loss is nan", "so run it anew with --set lr=0.001")

    monkeypatch.setattr(of_trial, "execute_run", diverge)
    sweep = made_sweep(trials=1)
    runner = TrialRunner(tmp_path, sweep, Where())
    runner._data = SimpleNamespace(examined=SimpleNamespace(splits={"val": [0]}))
    plan = SimpleNamespace(runs=[SimpleNamespace(phases=[], seed=42)])
    with SweepStudy(tmp_path, sweep).claim() as claimed, pytest.raises(TrialError) as caught:
        runner._execute(claimed, plan, None, lambda progress: None)
    assert str(caught.value) == "the loss is nan"


@pytest.mark.parametrize("changed", ["a file", "a label"])
def test_a_sweep_does_not_go_on_over_other_images(tmp_path, monkeypatch, changed):
    path = tmp_path / "photo"
    path.write_bytes(b"first")
    data = SimpleNamespace(paths=[str(path)], digest=lambda index=None: labels)
    plan = SimpleNamespace(out=tmp_path / "data", data=data, splits={"train": np.array([0]), "val": np.array([0])})
    loaders, decoded, labels = SimpleNamespace(missing_stores=dict), [], "first"

    def examine(plan, loaders, check, figures):
        decoded.append(path.read_text())
        found = ExaminedData(plan.splits, dict.fromkeys(plan.splits, path.read_text()))
        check(found)
        return found

    monkeypatch.setattr(opened, "examine_data", examine)
    here = opened.OpenedData(tmp_path, Where())
    assert [here._examine(plan, loaders).contents["val"] for _ in range(2)] == ["first", "first"]
    (tmp_path / "trials").mkdir()
    path.touch()  # the same file at another time
    here._examine(plan, loaders)
    assert decoded == ["first", "first"]
    if changed == "a file":
        path.write_bytes(b"second")
    else:
        labels = "second"
    with pytest.raises(ValueError, match=r"data: the images of train and val have changed since the sweep in .* began"):
        here._examine(plan, loaders)
    (tmp_path / "trials").rmdir()  # no trial was begun
    here._examine(plan, loaders)


def test_a_runner_gives_back_the_threads_that_it_takes(tmp_path, monkeypatch):
    plan = SimpleNamespace(
        config=SimpleNamespace(tf32=False, deterministic=False),
        device=torch.device("cpu"),
        data=SimpleNamespace(facts=SimpleNamespace(lines=lambda: ["data"])),
    )
    monkeypatch.setattr(opened, "make_plan", lambda config: plan)
    for name in ("set_numerics", "keep_freed_memory"):
        monkeypatch.setattr(opened, name, lambda **given: None)
    before = torch.get_num_threads()
    runner = TrialRunner(tmp_path, made_sweep(), Where(num_threads=before + 1))
    assert next(runner.prepare()) == "data"
    assert torch.get_num_threads() == before + 1
    runner.close()
    assert torch.get_num_threads() == before


class Slow(StubbedTrain):
    """Says to another process when it begins a trial, and waits before it trains."""

    def __init__(self, seconds, says):
        super().__init__()
        self.seconds, self.says = seconds, says

    def __call__(self, claimed, on_progress):
        self.says.send(claimed.number)
        time.sleep(self.seconds)
        return super().__call__(claimed, on_progress)


def work_on(folder, seconds, says):
    """The body of a process."""
    run_all(folder, made_sweep(trials=12), Slow(seconds, says))


def test_workers_at_once_share_a_sweep_and_one_that_is_killed_loses_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    listen, says = context.Pipe(duplex=False)
    killed = context.Process(target=work_on, args=(tmp_path, 60, says))
    other = context.Process(target=work_on, args=(tmp_path, 0.02, says))
    killed.start()
    assert listen.poll(60)
    assert listen.recv() == 0
    other.start()
    while not done_trials(tmp_path):
        assert other.is_alive()
        time.sleep(0.005)
    killed.kill()
    killed.join()
    other.join(timeout=120)
    assert other.exitcode == 0
    sweep = made_sweep(trials=12)
    table = table_of(tmp_path, sweep)
    if not (table["state"] == "complete").all():  # it was killed when the other had nothing left to do
        run_all(tmp_path, sweep)
        table = table_of(tmp_path, sweep)
    assert list(table["number"]) == list(range(12))
    assert set(table["state"]) == {"complete"}
    assert set(table["epochs"]) == {3}
    assert not list((tmp_path / "locks").glob("0*"))


def done_trials(folder):
    """Folders of trials of which an epoch is trained."""
    return list((folder / "trials").glob("*/epochs.json"))


def test_a_trial_that_another_worker_has_is_not_taken(tmp_path):
    sweep = made_sweep(trials=2)
    one, other = SweepStudy(tmp_path, sweep), SweepStudy(tmp_path, sweep)
    with one.claim() as first, other.claim() as second, one.claim() as third:
        assert (first.number, second.number, third) == (0, 1, None)
    with other.claim() as again:
        assert (again.number, again.is_taken_over) == (0, True)
    with pytest.raises(KeyboardInterrupt):
        list(work(one, StubbedTrain(), goes_on=lambda: False))
    assert len(table_of(tmp_path, sweep)) == 2
