"""The strategies of Avalanche, registered by name: ``--train.strategy avalanche:NAME``.

This is the entry point of the package, imported by every command. It imports neither torch nor
Avalanche; a strategy does so when it is built.
"""

from inspect import Parameter, Signature
from typing import Annotated, Any

from thalnet_mtl.config.values import Range
from thalnet_mtl.registry import register

STRATEGIES = {
    "naive": "plain training",
    "cumulative": "training on all tasks so far",
    "replay": "experience replay",
    "gdumb": "GDumb",
    "ewc": "elastic weight consolidation",
    "online_ewc": "online EWC",
    "mas": "memory aware synapses",
    "rwalk": "Riemannian walk",
    "lwf": "learning without forgetting",
    "agem": "A-GEM",
    "gem": "GEM",
}


def _option(name: str, kind: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


_CONTEXT = Parameter("context", Parameter.POSITIONAL_OR_KEYWORD)
_STRENGTH = _option("strength", Annotated[float, Range(low=0.0)], 1.0)
_MEMORY = _option("memory", Annotated[int, Range(low=1)], 500)
_DECAY = _option("decay", Annotated[float, Range(0.0, 1.0)], 0.9)
_HELP = {
    "strength": "its λ or α, the factor of its penalty",
    "memory": "number of stored sequences, over all tasks",
    "decay": "factor of the importance of earlier experiences",
}
_OPTIONS = {
    "naive": (),
    "cumulative": (),
    "online_ewc": (_STRENGTH, _DECAY),
    **dict.fromkeys(("ewc", "mas", "rwalk", "lwf"), (_STRENGTH,)),
    **dict.fromkeys(("replay", "gdumb", "agem", "gem"), (_MEMORY,)),
}


def _register(name: str, title: str) -> None:
    def build(context: Any, **options: Any) -> Any:
        from thalnet_mtl.avalanche.runner import AvalancheStrategy

        return AvalancheStrategy(context, **options)

    lines = [f"    {option.name}: {_HELP[option.name]}." for option in _OPTIONS[name]]
    arguments = ["", "Args:", *lines] if lines else []
    build.__doc__ = "\n".join([f"Avalanche's {title}, in Avalanche's training loop.", *arguments])
    register(
        "strategy",
        f"avalanche:{name}",
        __signature__=Signature([_CONTEXT, *_OPTIONS[name]]),  # declares the options
        only_after_experience=name not in ("naive", "gdumb"),
        takes_steps=True,
    )(build)


for _name, _title in STRATEGIES.items():
    _register(_name, _title)
