"""Options of a configuration that others override."""

from collections.abc import Iterator

from thalnet_mtl.config.schema import Config


def overridden_options(config: Config) -> Iterator[tuple[str, str]]:
    """Yield options that others override, and the reason; files laid over each other may do so."""
    if config.train.steps:
        yield "train.epochs", f"train.steps is {config.train.steps}"
    if config.train.boundaries != "announced":
        yield "train.epochs", "each training sequence is used once"
    if config.stream and all(experience.steps for experience in config.stream):
        for option in ("epochs", "steps"):
            yield f"train.{option}", "every experience has its own steps"
