"""torchrun in a process that is forked from one that has imported everything, as its workers are forked from it.

The agent, the rendezvous, and what becomes of workers that fail are torchrun's own. What is saved is a dozen seconds of
imports a command; tests/commands/test_distributed.py has one command that torchrun starts as a user does.
"""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed.run

from dogs_accel.benchmark import main
from tests.support.blank_figures import blank_figures

TWO_PROCESSES = ["--standalone", "--nproc-per-node", 2]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.support.preloaded", __name__])


class ForkedTorchrun:
    """A command in several processes of this machine, with blank figures; options are torchrun's."""

    def __init__(self, options, work, arguments, said, folder=None):
        self._said = said
        said.mkdir()
        body = (list(map(str, options)), work, list(map(str, arguments)), said, folder)
        self._process = _CONTEXT.Process(target=_launch, args=body)
        self._process.start()
        self.pid = self._process.pid

    @property
    def pids(self):
        """Processes of the command that have begun, by rank."""
        return {int(path.suffix[1:]): int(path.read_text()) for path in self._said.glob("pid.*")}

    def finished(self, timeout):
        """The exit code, what was written to stdout and to stderr, or TimeoutError."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"{self.pid} still runs")
        return self._process.exitcode, *((self._said / stream).read_text() for stream in ("stdout", "stderr"))


def benchmark(arguments):
    """What `python -m dogs_accel.benchmark` does in each process."""
    with blank_figures():
        return main(arguments)


def _launch(options, work, arguments, said, folder):
    for descriptor, stream in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(said / stream, os.O_WRONLY | os.O_CREAT), descriptor)
    if folder is not None:
        os.chdir(folder)
    # A run of W&B in the tests' own process leaves word where its service is, which a command of its own would join.
    for name in [name for name in os.environ if "WANDB_SERVICE" in name]:
        del os.environ[name]
    os.environ["OMP_NUM_THREADS"] = "1"
    of_a_script = torch.distributed.run.config_from_args
    torch.distributed.run.config_from_args = lambda args: (of_a_script(args)[0], _work, [work, arguments, said])
    torch.distributed.run.main([*options, "--start-method", "fork", "command"])


def _work(work, arguments, said):
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):  # which the agent has handlers for
        signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)  # as OMP_NUM_THREADS has it, which is read when torch is imported
    # The name appears with what it holds, for whoever looks meanwhile.
    written = Path(said / f"new.{os.environ['RANK']}")
    written.write_text(str(os.getpid()))
    written.rename(said / f"pid.{os.environ['RANK']}")
    sys.exit(work(arguments))
