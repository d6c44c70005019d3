"""The choice of a path by its inputs, where nobody says which task they belong to."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.models.checks import check_inputs, check_lengths
from thalnet_mtl.models.densities import TINY, RowDensity, TokenDensity, are_rows, are_tokens
from thalnet_mtl.models.model_folder import (
    PATHS,
    find_model,
    read_from,
    read_tensors,
    save_tensors,
)
from thalnet_mtl.ops.inputs import Inputs, first_input, inputs_by_name, map_inputs
from thalnet_mtl.ops.lengths import Lengths, zero_past_end
from thalnet_mtl.topology.spec import TaskSpec

Densities = Mapping[str, RowDensity | TokenDensity]  # by input
SAMPLES = 1_000  # sequences that are enough for a fit
HELD_OUT = 5  # every fifth sequence says what is typical


class PathChooser:
    """A density of the inputs of every task; sequences choose the task that makes them likeliest.

    The path of a task is its head with its modules. The densities see inputs alone: neither labels
    nor the network, so that training and changes of the network leave the choice alone. Tasks with
    the same inputs and other labels cannot be told apart.

    >>> digits, noise = torch.rand(2, 200, 8, 3)
    >>> chooser, spec = PathChooser(), TaskSpec(inputs=3, outputs=2)
    >>> chooser.fit("dark", spec, digits / 2)
    >>> chooser.fit("bright", spec, noise / 2 + 0.5)
    >>> chooser.choose(torch.full((2, 8, 3), 0.8))
    ['bright', 'bright']

    Then ``network(task, xs)`` answers. Of a task with several inputs, the log-likelihood is the sum
    over them. Source: the expert of the largest likelihood, as in Lee et al., "A neural Dirichlet
    process mixture model for task-free continual learning", ICLR 2020, with simpler densities.
    """

    def __init__(self) -> None:
        self._densities: dict[str, Densities] = {}
        self._typical: dict[str, Tensor] = {}  # (2,) mean and deviation of log p a step

    @property
    def tasks(self) -> list[str]:
        """The tasks to choose from, in the order in which they were fitted first."""
        return list(self._densities)

    def fit(self, task: str, spec: TaskSpec, xs: Inputs, lengths: Lengths | None = None) -> None:
        """Fit the density of a task to some of its training sequences, at least two.

        Up to ``SAMPLES`` are enough. An earlier density of the task is replaced.

        Args:
            task: its name.
            spec: the shape of the task.
            xs: (batch, time, inputs) rows, or (batch, time) tokens; a mapping of such by name for a
                task with several inputs.
            lengths: (batch,) steps of every sequence; None if all fill the batch.

        Raises:
            UserError: there are fewer than two sequences, or inputs are not those of the shape.
        """
        check_inputs(task, spec, xs)
        xs, lengths = _without_padding(xs, lengths)
        count = len(first_input(xs))
        if count < 2:
            raise UserError(f"task '{task}': expected two sequences to fit, got {count}.")
        for name, part in inputs_by_name(xs).items():
            width = spec.input_width(name)
            if not (are_tokens(part, width) if spec.tokens else are_rows(part, width)):
                kind = f"whole numbers below {width}" if spec.tokens else "finite numbers"
                raise UserError(f"task '{task}': its inputs must be {kind}.")
        self._densities[task] = _fit(spec, xs, lengths)
        held_out = torch.arange(count, device=first_input(xs).device) % HELD_OUT == 0
        fitted = _fit(spec, *_selected(xs, lengths, ~held_out))
        values = _log_likelihood(fitted, *_selected(xs, lengths, held_out), a_step=True)
        self._typical[task] = torch.stack([values.mean(), values.std(correction=0)]).cpu()

    def forget(self, task: str) -> None:
        """Leave a task out of all later choices."""
        self._densities.pop(task, None)
        self._typical.pop(task, None)

    def fitting(self, spec: TaskSpec) -> list[str]:
        """Return the tasks whose inputs have the kind, the names and the widths of a shape."""
        kind = TokenDensity if spec.tokens else RowDensity
        names = set(spec.input_names or ("",))
        return [
            task
            for task, densities in self._densities.items()
            if densities.keys() == names
            and all(
                isinstance(density, kind) and density.width == spec.input_width(name)
                for name, density in densities.items()
            )
        ]

    def log_likelihoods(
        self, xs: Inputs, lengths: Lengths | None = None, tasks: Sequence[str] | None = None
    ) -> Float[Tensor, "batch tasks"]:
        """Return log p of sequences under every task, in nats.

        Sequences longer than those of a task are compared by the steps that all the tasks know.

        Args:
            xs, lengths: as in ``fit``.
            tasks: to compare; by default all, whose inputs must then have one shape.

        Raises:
            UserError: a task has no density, or there is none, or one of another shape.
        """
        tasks, xs, lengths = self._comparable(xs, lengths, tasks)
        return torch.stack([_log_likelihood(self._densities[t], xs, lengths) for t in tasks], 1)

    def surprise(
        self, xs: Inputs, lengths: Lengths | None = None, tasks: Sequence[str] | None = None
    ) -> Float[Tensor, "batch tasks"]:
        """Return how unlikely sequences are for every task, in standard deviations.

        It is (m − l) / s, with l = log p of a sequence a step, and m and s the mean and deviation
        of l over every fifth sequence of the fit, under a density of the others: about 0 for
        sequences of the task, large for those of no task that is known.

        Arguments and errors are those of ``log_likelihoods``.
        """
        tasks, xs, lengths = self._comparable(xs, lengths, tasks)
        columns = []
        for task in tasks:
            mean, deviation = self._typical[task].tolist()
            values = _log_likelihood(self._densities[task], xs, lengths, a_step=True)
            columns.append((mean - values) / max(deviation, TINY))
        return torch.stack(columns, 1)

    def choose(
        self, xs: Inputs, lengths: Lengths | None = None, tasks: Sequence[str] | None = None
    ) -> list[str]:
        """Return for every sequence the task under which it is likeliest.

        Arguments and errors are those of ``log_likelihoods``. Add its rows to choose for several
        sequences together that are known to be of one task.
        """
        names = self.tasks if tasks is None else tasks
        places = self.log_likelihoods(xs, lengths, names).argmax(1)
        return [names[place] for place in places.tolist()]

    def _comparable(
        self, xs: Inputs, lengths: Lengths | None, tasks: Sequence[str] | None
    ) -> tuple[Sequence[str], Inputs, Lengths | None]:
        """Return the tasks to compare, and the steps of the inputs that all of them know."""
        tasks = self.tasks if tasks is None else tasks
        if not tasks:
            raise UserError("there is no path to choose from: fit at least one task.")
        xs, lengths = _without_padding(xs, lengths)
        for task in tasks:
            if task not in self._densities:
                raise unknown("task", task, self._densities)
            self._check_inputs(task, xs)
        steps = [d.steps for task in tasks for d in self._densities[task].values() if d.steps]
        if steps:
            xs = map_inputs(lambda part: part[:, : min(steps)], xs)
            lengths = None if lengths is None else lengths.clamp(max=min(steps))
        return tasks, xs, lengths

    def _check_inputs(self, task: str, xs: Inputs) -> None:
        """Raise unless inputs have the names, the kind and the width of those of a task."""
        densities, parts = self._densities[task], inputs_by_name(xs)
        for name, density in densities.items():
            if densities.keys() != parts.keys() or not density.accepts(parts[name]):
                got = {name or "inputs": f"{tuple(x.shape)} {x.dtype}" for name, x in parts.items()}
                raise UserError(f"task '{task}' has other inputs: {density.expected}; got {got}.")

    def state_dict(self) -> dict[str, Tensor]:
        """Return all numbers by ``NUMBER.TASK.INPUT.PART``, tasks numbered in their order."""
        state = dict[str, Tensor]()
        for number, (task, densities) in enumerate(self._densities.items()):
            state[f"{number}.{task}..typical"] = self._typical[task]
            for name, density in densities.items():
                parts = density._asdict().items()
                state |= {f"{number}.{task}.{name}.{part}": value for part, value in parts}
        return state

    def load_state_dict(self, saved: Mapping[str, Tensor]) -> None:
        """Restore what ``state_dict`` returned."""
        entries: dict[str, dict[str, dict[str, Tensor]]] = {}
        for key in sorted(saved, key=lambda key: int(key.partition(".")[0])):
            task, name, part = key.partition(".")[2].rsplit(".", 2)
            entries.setdefault(task, {}).setdefault(name, {})[part] = saved[key]
        self._typical = {task: parts[""].pop("typical") for task, parts in entries.items()}
        self._densities = {
            task: {
                name: RowDensity(**parts) if "noise" in parts else TokenDensity(**parts)
                for name, parts in densities.items()
                if parts
            }
            for task, densities in entries.items()
        }

    def save(self, folder: Path | str) -> None:
        """Write the densities to the folder of a saved network, as ``paths.safetensors``."""
        save_tensors(Path(folder) / PATHS, self.state_dict())

    @classmethod
    def load(cls, folder: Path | str) -> "PathChooser":
        """Return what ``save`` wrote to the folder of a saved network, or that of a finished run.

        Raises:
            UserError: the file is missing or damaged.
        """
        path, chooser = find_model(Path(folder)) / PATHS, cls()
        tensors = read_tensors(path)
        with read_from(path):
            chooser.load_state_dict(tensors)
        return chooser


def _fit(spec: TaskSpec, xs: Inputs, lengths: Lengths | None) -> Densities:
    """Return the density of each input."""
    return {
        name: TokenDensity.fit(part, spec.input_width(name), lengths)
        if spec.tokens
        else RowDensity.fit(part, lengths)
        for name, part in inputs_by_name(xs).items()
    }


def _log_likelihood(
    densities: Densities, xs: Inputs, lengths: Lengths | None, a_step: bool = False
) -> Float[Tensor, " batch"]:
    """Return log p of sequences, the sum over their inputs; or its mean over their steps."""
    parts = inputs_by_name(xs)
    values = [density.log_likelihood(parts[name], lengths) for name, density in densities.items()]
    total = torch.stack(values).sum(0)
    if a_step:
        total = total / (first_input(xs).shape[1] if lengths is None else lengths)
    return total


def _selected(xs: Inputs, lengths: Tensor | None, rows: Tensor) -> tuple[Inputs, Tensor | None]:
    """Return some of the sequences and their lengths."""
    return map_inputs(lambda part: part[rows], xs), None if lengths is None else lengths[rows]


def _without_padding(xs: Inputs, lengths: Lengths | None) -> tuple[Inputs, Lengths | None]:
    """Return inputs that are zero past the end of each sequence, and the checked lengths."""
    lengths = check_lengths(lengths, first_input(xs))
    return map_inputs(lambda part: zero_past_end(part, lengths), xs), lengths
