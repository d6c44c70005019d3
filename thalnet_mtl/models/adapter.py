"""Where a task is plugged into a body: encoders in front, a head behind."""

from collections.abc import Collection

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from thalnet_mtl.models.body import Body, Inputs
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.topology.spec import AdapterSpec, TaskSpec

BODY = "*"  # where a baseline takes its input; no module can be called that


class OneHot(nn.Module):
    """Tokens to one-hot rows of unit mean square: √vocabulary at the token, 0 elsewhere.

    The usual initial weights expect inputs of that size; a plain 1 is hardly seen beside a context.
    """

    def __init__(self, vocabulary: int):
        super().__init__()
        self.vocabulary = vocabulary

    def forward(self, xs: Tensor) -> Float[Tensor, "*batch vocabulary"]:
        return F.one_hot(xs, self.vocabulary) * self.vocabulary**0.5


class TaskAdapter(nn.Module):
    """Where one task is plugged in: its encoders and its head."""

    def __init__(self, body: Body, plug: AdapterSpec):
        super().__init__()
        self.spec = plug
        task = plug.task
        self.encoders = nn.ModuleDict()
        if isinstance(body, ThalNet):
            for name in plug.input_modules:
                self.encoders[name] = encoder(task, body.modules_by_name[name].inputs)
            outputs = body.feature_width(plug.output_modules)
        else:
            self.encoders[BODY] = encoder(task, body.inputs)
            outputs = body.outputs
        self.head = nn.Linear(outputs, task.classes)

    @property
    def task(self) -> TaskSpec:
        """The shape of the task."""
        return self.spec.task

    def answer(self, ys: Tensor) -> Tensor:
        """Logits of what the body gives: of every step, or of the last one."""
        return self.head(ys[:, -1] if self.task.target == "last" else ys)

    def encode(self, xs: Tensor, active: Collection[str] = ()) -> Inputs:
        """What the body takes, in the type of its weights: by active input module for a ThalNet."""
        kind = self.head.weight.dtype
        xs = xs.long() if self.task.tokens else xs.to(kind)
        rows = {
            name: encode(xs).to(kind)
            for name, encode in self.encoders.items()
            if name in (BODY, *active)
        }
        return rows.get(BODY, rows)


def encoder(task: TaskSpec, width: int) -> nn.Module:
    """From what the task gives to what a body of some width takes."""
    if task.tokens:
        return OneHot(width) if task.inputs == width else nn.Embedding(task.inputs, width)
    return nn.Identity() if task.inputs == width else nn.Linear(task.inputs, width)
