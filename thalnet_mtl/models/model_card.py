"""The model card of a saved network: a README in the format of the Hugging Face Hub."""

from collections.abc import Mapping, Sequence
from typing import Any

from thalnet_mtl.config.schema import Config

UNKNOWN_LICENSE = "unknown"  # an identifier of the Hugging Face Hub, like 'mit'


def model_card(
    summary: str,
    tasks: Sequence[str],
    config: Config | None = None,
    result: Mapping[str, Any] | None = None,
    license: str = UNKNOWN_LICENSE,
    repository: str = "",
) -> str:
    """Return the card of a network: a summary, how to load it, and the scores of its run.

    Args:
        summary: of the network.
        tasks: names of its heads.
        config, result: of the run that trained it.
        license: of the weights.
        repository: OWNER/NAME on the hub, if it is there.
    """
    labels = ", ".join(tasks)
    training = ""
    if config is not None and result is not None:
        labels = ", ".join(scores["label"] for scores in result["tasks"].values())
        training = _training(config, result)
    body = summary.partition("body: ")[2].partition("(")[0]
    task = f'"{tasks[0]}"' if tasks else "task"
    return f"""---
library_name: thalnet_mtl
license: {license}
tags: [thalnet, recurrent]
---
# {config.model.body if config is not None else body}{f" on {labels}" if labels else ""}
{training}
```text
{summary}
```

{loading(repository, task)}
"""


def loading(repository: str, task: str) -> str:
    """Return three lines of Python that load a network and call it, as a code block.

    Args:
        repository: OWNER/NAME on the hub; '' for the folder of the card.
        task: the expression for the name of a task.
    """
    source = f'Network.from_pretrained("{repository}")' if repository else 'Network.load("model")'
    return f"""```python
from thalnet_mtl import Network

network = {source}
outputs, state = network({task}, xs)
```"""


def _training(config: Config, result: Mapping[str, Any]) -> str:
    rows = [
        f"| {scores['label']} | {metric} | {scores['validation'][metric]:.4f} | "
        f"{scores['test'][metric]:.4f} |"
        for scores in result["tasks"].values()
        for metric in scores["test"]
        if metric not in ("loss", "count")
    ]
    return f"""
Trained {result["steps"]:,} steps with seed {config.train.seed}; these are the weights of step \
{result["best_step"]:,}, {"the last" if len(config.stream) > 1 else "the best on validation"}.

| task | metric | validation | test |
|---|---|---|---|
{chr(10).join(rows)}
"""
