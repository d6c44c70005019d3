"""A run read from its directory: the configuration, the best network, the scores and curves."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from thalnet_mtl import markup
from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.config.plugins import MARK, import_plugins
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.export import default_name, export
from thalnet_mtl.models.model_card import UNKNOWN_LICENSE
from thalnet_mtl.models.model_folder import CONFIG
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.programs import Program, Scalings, Sequences, Step
from thalnet_mtl.published import is_published, local_folder
from thalnet_mtl.report.embedded import Report
from thalnet_mtl.report.html import write as write_report
from thalnet_mtl.runs.checksums import BEST, MODEL, RESULT, check_sums
from thalnet_mtl.runs.frame import metrics_frame
from thalnet_mtl.runs.records import Curve, RunRecord, ScoreMatrix, read_run
from thalnet_mtl.runs.results import RunResult
from thalnet_mtl.runs.run_files import read_environment
from thalnet_mtl.runs.shown import ShownRun
from thalnet_mtl.runs.topology_file import ChangeEntry, TopologySnapshot
from thalnet_mtl.tasks.base import Task
from thalnet_mtl.training.checkpoint import load_matching, load_network
from thalnet_mtl.training.environment import scalings_as_json
from thalnet_mtl.training.prediction import predict
from thalnet_mtl.training.program_metadata import metadata
from thalnet_mtl.training.program_usage import network_usage, program_usage
from thalnet_mtl.training.setup import make_tasks
from thalnet_mtl.training.unregistered_tasks import (
    UnregisteredTasks,
    check_registered,
    unregistered_tasks,
)

if TYPE_CHECKING:
    from thalnet_mtl.report.plots import Plots


@dataclass(frozen=True, repr=False)
class TrainedRun(ShownRun):
    """A run, finished or not, as ``load_run`` reads it from its directory.

    What is not an attribute below is read from the run directory at its first use.

    Attributes:
        folder: the run directory.
        config: the configuration.
        tasks: by name; their data is not loaded.
        network: with the best weights so far, in evaluation mode.
        step: after which these weights were saved.
    """

    _at = "weights of step"

    folder: Path
    config: Config
    tasks: dict[str, Task]
    network: Network
    step: int

    @cached_property
    def record(self) -> RunRecord:
        """Content of the run directory beside the weights, read at the first access."""
        return read_run(self.folder)

    @cached_property
    def result(self) -> RunResult | None:
        """Scores of the run; None until it has finished."""
        return RunResult.load(self.folder) if (self.folder / RESULT).exists() else None

    @property
    def accuracy_matrix(self) -> ScoreMatrix:
        """Test scores by stage and task; see ``RunRecord.accuracy_matrix``."""
        return self.record.accuracy_matrix

    @property
    def topology(self) -> TopologySnapshot | None:
        """Modules and tasks of the network; None for a body without modules."""
        return self.record.topology

    @property
    def history(self) -> Sequence[ChangeEntry]:
        """Changes of the topology during training."""
        return self.record.history

    @property
    def metrics(self) -> Any:
        """Everything that was logged, as a ``pandas.DataFrame``; see ``metrics_frame``."""
        return metrics_frame(self.folder / "metrics.jsonl", self.config.named_tasks)

    @property
    def plot(self) -> "Plots":
        """Figures of the run, as ``run.plot.curves()``, ``.matrix()`` and ``.graph()``."""
        from thalnet_mtl.report.plots import Plots  # and Matplotlib

        return Plots([self.record])

    def report(self, out: Path | str | None = None) -> Report:
        """Write a report on the run, by default to ``report.html`` in it; a notebook shows it."""
        return Report(write_report([self.folder], Path(out or self.folder / "report.html")))

    def curve(self, task: str, split: str, metric: str) -> Curve:
        """Return a learning curve as rows of (step, seconds, value); see ``RunRecord.curve``."""
        return self.record.curve(task, split, metric)

    def _repr_html_(self) -> str:
        network = markup.folded("network", self.network._repr_html_())
        return super()._repr_html_() + network

    def task(self, name: str | None = None) -> Task:
        """Return a task by name; without a name, the only one."""
        if name is None and len(self.tasks) > 1:
            raise UserError(f"which task? Give --task NAME; there are {', '.join(self.tasks)}.")
        name = name or next(iter(self.tasks))
        if name not in self.tasks:
            raise unknown("task", name, self.tasks)
        if self.config.growth.when == "paths" and len(self.network.adapters) > 1:
            raise UserError(
                f"the network has {', '.join(self.network.adapters)}, and nothing in {self.folder} "
                f"chooses one for task '{name}': call the network with the name of a path."
            )
        self._check_scaling(name)
        return self.tasks[name]

    def _check_scaling(self, name: str) -> None:
        """Raise if the data of a task has another mean or deviation than that of its training."""
        path = self.folder / "environment.json"
        scalings, task = read_environment(path).get("scalings", {}).get(name), self.tasks[name]
        if any(scalings or ()) and not any(task.scalings):
            task.load("cpu")  # its scalings follow from the data
        if scalings and scalings != scalings_as_json(task):
            raise UserError(
                f"task '{name}': its data is not that of the training of {self.folder}, as the "
                f"mean or the deviation of a column is not that in {path}. Restore the file."
            )

    def predict(self, inputs: Any, lengths: Any = None, task: str | None = None) -> Tensor:
        """Return the answers of the network to new sequences, raw as in the source of the task.

        Args:
            inputs: (batch, time, columns), or (batch, time) tokens or single numbers; a list of
                sequences of unequal length; or a mapping of such for a task with several inputs.
                Arrays, tensors or lists.
            lengths: (batch,) steps of each sequence, where they are padded.
            task: whose head answers, if the run has several.

        Returns:
            Answers in the form of targets. They are the number of a class (batch,), of which
            ``run.task().class_names`` has the name; 0 or 1 for each label (batch, labels); or
            numbers in their units (batch, numbers). With a target at every step there is an axis
            of time after the first; past the end of a sequence stands -100 for a class, else NaN.

        Raises:
            UserError: the inputs do not fit the task, or it is not said which.

        >>> digits = load_run("zoo:digits")
        >>> digits.predict([[[0.0] * 8] * 8]).shape
        torch.Size([1])
        """
        return predict(self.network, self.task(task), inputs, lengths)

    def export(
        self,
        form: str,
        out: Path | None = None,
        task: str | None = None,
        *,
        lengths: bool = False,
        license: str = UNKNOWN_LICENSE,
    ) -> Path:
        """Write the network in a format of ``models.export``, by default into the run.

        A program is that of one task, which has to be named if the run has several. It computes one
        step, or with ``lengths`` padded sequences of any length. Its metadata, see
        ``training.program_metadata``, names the license.
        """
        saved: Path | None = self.folder / "model"
        place, pulled = self.folder, (self.folder / CONFIG).exists()
        if pulled:  # published: its folder is in a cache or the package, where nothing else belongs
            saved, place = None, Path()
        if saved and form == "safetensors" and not saved.is_dir():
            raise UserError(f"{self.folder} is not finished: it has no model/ yet.")
        check_sums(self.folder, MODEL if form == "safetensors" else ())
        head: str | None = None
        scalings: Scalings = (None, None)
        facts: dict[str, str] = {}
        if task or form != "safetensors":
            head, scalings = self.task(task).head_name, self.task(task).scalings
        if form != "safetensors":
            facts = metadata(self.task(task), self._program(task, lengths), license)
        path = out or place / "export" / default_name(form, lengths)
        return export(
            self.network,
            form,
            path,
            head,
            lengths=lengths,
            scalings=scalings,
            metadata=facts,
            saved=saved,
            overwrite=out is None and not pulled,
        )

    def usage(
        self, form: str, path: Path, task: str | None = None, *, lengths: bool = False
    ) -> list[str]:
        """Return lines on how to call what ``export`` wrote with these arguments to a path."""
        if form == "safetensors":
            return network_usage(next(iter(self.tasks.values())), path)
        return program_usage(self.task(task), self._program(task, lengths), form, path)

    def _program(self, task: str | None, lengths: bool) -> Program:
        """Return the program of a task; an unknown format is refused by ``export``."""
        return (Sequences if lengths else Step)(self.network, self.task(task).head_name)


def load_run(folder: Path | str, tasks: UnregisteredTasks = ()) -> TrainedRun:
    """Read a run from its directory, finished or not; its data is not loaded.

    Args:
        folder: the run directory; or 'zoo:name', a run that comes with this package; or
            'hub:owner/name', a run that ``thalnet push`` has written to the Hugging Face Hub, with
            '@revision' behind it if it is not the main one.
        tasks: tasks that are not registered, as ``train`` got them.

    Raises:
        UserError: there is no run, a file of it is damaged, or it needs a task that is not given.
        RunError: the hub cannot be reached or fails.
    """
    if is_published(folder):
        return _load_pulled(str(folder), tasks)
    folder = Path(folder)
    config = import_plugins(load_run_config(folder), folder)
    path = folder / "checkpoint" / "best.pt"
    check_sums(folder, ["config.yaml", *BEST])
    best = load_matching(path, config)
    network = load_network(best, path)
    with unregistered_tasks(tasks, config):
        check_registered(config, str(folder))
        run_tasks = make_tasks(config)
    return TrainedRun(folder, config, run_tasks, network.eval(), best["step"])


def _load_pulled(name: str, tasks: UnregisteredTasks) -> TrainedRun:
    """Read a run from the zoo or the hub; no file that its configuration names is imported."""
    folder = local_folder(name)
    if not (folder / "config.yaml").exists():
        raise UserError(
            f"{name} is a network without its run: load it by Network.from_pretrained in Python."
        )
    config = load_run_config(folder)
    files = [Path(plugin.name.partition(MARK)[0]).name for plugin in config.plugins]
    config = replace(config, plugins=())
    result, network = RunResult.load(folder), Network.load(folder)
    with unregistered_tasks(tasks, config):
        where = f"{name} (trained with {', '.join(files)} of its author)" if files else name
        check_registered(config, where)
        run_tasks = make_tasks(config)
    return TrainedRun(folder, config, run_tasks, network, result.best_step)
