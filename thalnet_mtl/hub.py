"""Repositories of the Hugging Face Hub: files are pushed in one commit, and pulled into its cache.

The environment variables of ``huggingface_hub`` count: ``HF_TOKEN`` (or ``hf auth login``),
``HF_ENDPOINT``, ``HF_HUB_OFFLINE``, ``HF_HUB_CACHE``.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from thalnet_mtl.errors import RunError, UserError

PREFIX = "hub:"  # 'hub:owner/name', or 'hub:owner/name@revision', stands for a run or a network
CONFIG, CARD = "config.json", "README.md"
# All that is ever pulled: tensors and texts, no program.
NETWORK = (CONFIG, "model.safetensors", "paths.safetensors", CARD)
RUN = ("config.yaml", "result.json", "environment.json", "topology.json", "metrics.json",
       "metrics.jsonl", "accuracy_matrix.csv", "report.html")  # fmt: skip
# Of a repository without a network:
WITHOUT_NETWORK = {".gitattributes", ".gitignore", CARD, "LICENSE"}


def pull_named(text: str) -> Path:
    """Return the folder into which 'hub:owner/name' or 'hub:owner/name@revision' was pulled.

    Raises:
        UserError, RunError: as ``pull`` does.
    """
    name, _, revision = text.removeprefix(PREFIX).partition("@")
    return pull(name, revision=revision or None)


def check_name(name: str) -> str:
    """Return the name of a repository; raise unless it is OWNER/NAME with allowed letters.

    >>> check_name("anna/digits")
    'anna/digits'
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
        if name.count("/") == 1:
            return name
    except HFValidationError:
        pass
    raise UserError(
        f"'{name}' is no name of a repository: expected OWNER/NAME, of letters, digits and . - _ "
        f"between others, no -- or .., at most 96."
    )


def pull(
    name: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: Path | str | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
) -> Path:
    """Download the files of a network or a run, as far as they are not cached; return the folder.

    Other files of the repository are left where they are.

    Args:
        name: OWNER/NAME.
        revision, token, cache_dir, force_download, local_files_only: as of
            ``huggingface_hub.snapshot_download``.

    Raises:
        UserError: the name, the revision or the token is wrong, or the repository has no network.
        RunError: the hub cannot be reached or fails, and the cache has no copy.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    check_name(name)
    disable_progress_bars()
    with translated(name, revision):
        folder = snapshot_download(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
            allow_patterns=[*NETWORK, *RUN],
        )
    if not (Path(folder) / CONFIG).exists():
        raise UserError(f"{name} on the hub holds no network: it has no {CONFIG}.")
    return Path(folder)


def push(
    name: str,
    files: Mapping[str, bytes],
    *,
    message: str = "Push a network of thalnet_mtl",
    revision: str | None = None,
    token: str | bool | None = None,
    private: bool | None = None,
    replace: bool = False,
) -> str:
    """Write files to a repository in one commit, and return its address.

    The repository is made if there is none. Files that an earlier push left and this one does not
    have are deleted in the same commit. What was there before stays in its history.

    Args:
        name: OWNER/NAME.
        files: contents by name.
        message: of the commit.
        revision: a branch, made if need be; the main one by default.
        token: of the user; by default the one that is stored.
        private: whether a new repository is private; by default as the owner has set.
        replace: whether another network may be replaced.

    Raises:
        UserError: a name or the token is wrong, or the repository holds something else.
        RunError: the hub cannot be reached or fails. The repository is as it was before.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.utils import disable_progress_bars

    check_name(name)
    disable_progress_bars()
    api = HfApi(token=token, library_name="thalnet_mtl")
    with translated(name, revision):
        info = _info(api, name, revision)
        names = {sibling.rfilename for sibling in info.siblings or ()} if info else set[str]()
        if info and private and not info.private:
            raise UserError(f"{name} on the hub is public already: make it private there first.")
        if info and not replace:
            _check_same(api, name, info.sha, names, files)
        if info is None:
            api.create_repo(name, private=private, exist_ok=True)
        if revision:
            api.create_branch(name, branch=revision, exist_ok=True)
        old = [file for file in (*NETWORK, *RUN) if file in names and file not in files]
        commit = api.create_commit(
            name,
            [
                *(CommitOperationAdd(path, content) for path, content in files.items()),
                *map(CommitOperationDelete, old),
            ],
            commit_message=message,
            revision=revision,
            parent_commit=info.sha if info else None,
        )
    return str(commit.commit_url)


def _info(api: Any, name: str, revision: str | None) -> Any:
    """Return what the hub knows of a revision of a repository, None if there is none."""
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        return api.model_info(name, revision=revision)
    except GatedRepoError:
        raise
    except RevisionNotFoundError:
        return _info(api, name, None) if revision else None
    except RepositoryNotFoundError:
        return None


def _check_same(api: Any, name: str, sha: str, names: set[str], files: Mapping[str, bytes]) -> None:
    """Raise if a repository holds another network than that of some files, or something else."""
    if not names - WITHOUT_NETWORK:
        return
    advice = "Choose another name, or replace it: --replace, replace=True; its history is kept."
    if CONFIG not in names:
        listed = ", ".join(sorted(names - WITHOUT_NETWORK)[:3])
        raise UserError(f"{name} on the hub holds something else: {listed}. {advice}")
    path = Path(api.hf_hub_download(name, CONFIG, revision=sha))
    try:
        remote = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        remote = None
    different = difference(json.loads(files[CONFIG]), remote)
    if different:
        raise UserError(f"{name} on the hub holds another network: {different}. {advice}")


def difference(local: Any, remote: Any, where: str = "") -> str:
    """Return the first difference of two values of JSON files as text, '' if they are equal.

    >>> difference({"body": "gru", "sizes": [3, 4]}, {"body": "gru", "sizes": [3, 5]})
    'sizes.1 is 5 there and 4 here'
    """
    if isinstance(local, list) and isinstance(remote, list):
        local, remote = (dict(enumerate(values)) for values in (local, remote))
    if not isinstance(local, dict) or not isinstance(remote, dict):
        if local == remote:
            return ""
        return f"{where or 'its configuration'} is {_short(remote)} there and {_short(local)} here"
    for key in [*remote, *(key for key in local if key not in remote)]:
        place = f"{where}.{key}".lstrip(".")
        if key not in local or key not in remote:
            return f"{place} is only {'there' if key in remote else 'here'}"
        if text := difference(local[key], remote[key], place):
            return text
    return ""


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


@contextmanager
def translated(name: str, revision: str | None = None) -> Iterator[None]:
    """Context manager that says in one line what ``huggingface_hub`` raised.

    Raises:
        UserError: the user can mend it.
        RunError: the hub or the network failed.
    """
    from huggingface_hub import constants, errors

    hub = constants.ENDPOINT
    try:
        yield
    except (UserError, RunError):
        raise
    except errors.GatedRepoError as error:
        raise UserError(f"{name} on {hub} is gated: ask for access there.") from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{name} on {hub} has no revision '{revision}'.") from error
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"there is no repository {name} on {hub}, or your token may not read it."
        ) from error
    except errors.LocalEntryNotFoundError as error:
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            raise _refused(name, hub, cause) from error
        offline = cause is None or isinstance(cause, errors.OfflineModeIsEnabled)
        reason = "is not asked (offline)" if offline else "cannot be reached"
        raise RunError(f"{hub} {reason}, and {name} is not in the cache.") from error
    except errors.LocalTokenNotFoundError as error:
        raise UserError("there is no token: set HF_TOKEN, or run 'hf auth login'.") from error
    except errors.HfHubHTTPError as error:
        raise _refused(name, hub, error) from error
    except errors.OfflineModeIsEnabled as error:
        raise RunError(f"{hub} is not asked: HF_HUB_OFFLINE is set.") from error
    except errors.HTTPError as error:
        raise RunError(f"{hub} cannot be reached: {error or type(error).__name__}.") from error
    except ValueError as error:
        if "Invalid metadata in README.md" not in str(error):
            raise
        lines = re.sub(r"\s*\n-? ?", " ", str(error)).strip()
        raise UserError(f"{hub} refused the model card: {lines}") from error
    except RuntimeError as error:  # of an upload, in a thread or in Rust
        cause = error.__cause__
        if isinstance(cause, errors.HfHubHTTPError):
            raise _refused(name, hub, cause) from error
        reason = str(cause or error).partition("\n")[0]
        raise RunError(f"the upload to {name} on {hub} failed: {reason}") from error


def _refused(name: str, hub: str, error: Any) -> UserError | RunError:
    """Return the error for an answer of the hub that is no success."""
    status, said = error.response.status_code, error.server_message or ""
    reason = f" ({' '.join(said.split())})" if said else ""
    if status == 401:
        return UserError(
            f"{hub} does not accept your token{reason}. Set HF_TOKEN, or run 'hf auth login'."
        )
    if status == 403:
        return UserError(f"{hub} does not let your token write to {name}{reason}.")
    if status == 412:
        return RunError(f"{name} on {hub} has just been changed by somebody else: push again.")
    return RunError(f"{hub} answered with an error {status} for {name}{reason}.")
