"""Networks in repositories of the Hugging Face Hub."""

from pathlib import Path
from typing import Any, Self

from torch import nn

from thalnet_mtl import hub
from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.model_card import UNKNOWN_LICENSE, model_card
from thalnet_mtl.models.model_folder import model_files
from thalnet_mtl.published import is_published


class HubNetwork(nn.Module):
    """The part of a ``Network`` that pushes it to the hub and pulls it from there."""

    adapters: nn.ModuleDict

    def describe(self) -> dict[str, Any]:
        """Return the topology as plain data; see ``Network``."""
        raise NotImplementedError

    @classmethod
    def load(cls, folder: Path | str) -> Self:
        """Return the network of a folder; see ``Network``."""
        raise NotImplementedError

    def push_to_hub(
        self,
        repo_id: str,
        *,
        config: Config | None = None,
        result: Any = None,
        license: str = UNKNOWN_LICENSE,
        commit_message: str = "Push a network of thalnet_mtl",
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        replace: bool = False,
    ) -> str:
        """Write the network to a repository of the Hugging Face Hub, with a model card.

        The repository is made if there is none. ``from_pretrained`` reads it again. A network of
        the same topology gets new weights by this; its old ones stay in the history.

        Args:
            repo_id: OWNER/NAME.
            config, result: of the run that trained the network, for the model card only.
            license: of the weights, an identifier of the hub such as 'mit'.
            commit_message: of the one commit with all files.
            private: whether a new repository is private.
            token: of the user; by default that of ``HF_TOKEN`` or ``hf auth login``.
            revision: the branch, made if need be; the main one by default.
            replace: whether a network of another topology, or something else, may be replaced.

        Returns:
            the address of the commit.

        Raises:
            UserError: a name or the token is wrong, the repository holds something else, or the
                body cannot be saved.
            RunError: the hub cannot be reached or fails; the repository is as it was.
        """
        card = model_card(repr(self), list(self.adapters), config, result, license, repo_id)
        return hub.push(
            repo_id,
            model_files(self.describe(), self.state_dict(), card),
            message=commit_message,
            private=private,
            token=token,
            revision=revision,
            replace=replace,
        )

    @classmethod
    def from_pretrained(
        cls,
        name: Path | str,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """Return a network from a repository of the Hugging Face Hub, or from a folder.

        No code of the repository is run. A body, design or reading that is not of this package has
        to be registered before.

        Args:
            name: OWNER/NAME of a repository; or a folder or name as of ``load``, which comes first.
            revision: a branch, tag or commit; the main branch by default.
            token: of the user; by default that of ``HF_TOKEN`` or ``hf auth login``.
            cache_dir: where files are kept; by default the cache of the hub.
            force_download: whether files are downloaded even if they are cached.
            local_files_only: whether only the cache is read, as with ``HF_HUB_OFFLINE``.

        Raises:
            UserError: there is no such folder or network, or a file is damaged.
            RunError: the hub cannot be reached or fails, and the cache has no copy.
        """
        if is_published(name) or Path(name).is_dir():
            if revision is not None:
                raise UserError(f"{name} is a folder here: it has no revision '{revision}'.")
            return cls.load(name)
        folder = hub.pull(
            str(name),
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        return cls.load(folder)
