"""Networks are pushed to a stand-in of the hub and pulled from it."""

import json
import pickle

import own_bodies
import pytest
import torch
from hub_server import TOKEN, hub_on_loopback
from huggingface_hub import ModelCard, constants
from properties import drawn
from safetensors.torch import save
from saved_networks import NETWORKS, ROWS, assert_same_network, by_hand

from thalnet_mtl import Network, hub, registry
from thalnet_mtl.errors import RunError, UserError
from thalnet_mtl.models.recurrent import RecurrentBody
from thalnet_mtl.models.stacked_gru import StackedGRU


@pytest.fixture
def server(tmp_path):
    with hub_on_loopback(tmp_path / "cache") as server:
        yield server


def small(features: int = 5) -> Network:
    network = Network(StackedGRU(6, features, layers=1))
    network.add_task("rows", ROWS)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_that_was_pushed_is_pulled_to_the_bit(server, name):
    network = drawn(NETWORKS[name], dtype=torch.float32)
    address = network.push_to_hub("anna/net")
    assert address.startswith(f"{server.url}/anna/net/commit/")
    assert_same_network(Network.from_pretrained("anna/net"), network.eval())
    assert sum(request.startswith("PUT /lfs/") for request in server.requests) == 1
    card = ModelCard(server.repositories["anna/net"].files["README.md"].decode())
    assert card.data.library_name == "thalnet_mtl" and card.data.license == "unknown"
    assert 'from_pretrained("anna/net")' in card.text


def test_a_body_of_a_plug_in_is_pulled_once_it_is_registered(server, monkeypatch):
    network = Network(RecurrentBody(own_bodies.Leaky(6, 4, leak=0.3)))
    network.add_task("rows", ROWS)
    network.push_to_hub("anna/leaky")
    assert_same_network(Network.from_pretrained("anna/leaky"), network.eval())
    monkeypatch.delitem(registry._entries["body"], "leaky")
    with pytest.raises(UserError, match=r"unknown body 'leaky'.* import that first\.$"):
        Network.from_pretrained("anna/leaky")


def test_a_folder_comes_before_a_repository_of_its_name(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    network = small()
    network.save(tmp_path / "anna" / "net")
    assert_same_network(Network.from_pretrained("anna/net"), network.eval())
    with pytest.raises(UserError, match="is a folder here: it has no revision 'v1'"):
        Network.from_pretrained("anna/net", revision="v1")
    assert not server.requests


def test_branches_and_commits_are_revisions_with_a_history_of_their_own(server):
    first, second = small(), small(7)
    sha = first.push_to_hub("anna/net").rpartition("/")[2]
    second.push_to_hub("anna/net", revision="wide", replace=True)
    newer = small()
    newer.push_to_hub("anna/net", commit_message="More training")
    for revision, network in {sha: first, "wide": second, None: newer}.items():
        pulled = Network.from_pretrained("anna/net", revision=revision)
        assert_same_network(pulled, network.eval())
    with pytest.raises(UserError, match=f"anna/net on {server.url} has no revision 'narrow'"):
        Network.from_pretrained("anna/net", revision="narrow")


def test_another_network_is_replaced_only_on_request(server):
    small().push_to_hub("anna/net")
    before = server.repositories["anna/net"].files
    with pytest.raises(UserError, match=r"arguments.features is 5 there and 7 here\. .*--replace"):
        small(7).push_to_hub("anna/net")
    with pytest.raises(UserError, match='body is "gru" there and "thalnet" here'):
        by_hand().push_to_hub("anna/net")
    assert server.repositories["anna/net"].files == before
    small(7).push_to_hub("anna/net", replace=True)
    assert Network.from_pretrained("anna/net").body.outputs == 7


def test_something_else_is_replaced_only_on_request_and_kept_beside(server):
    small().push_to_hub("anna/net")
    repository = server.repositories["anna/net"]
    repository.commit("main", {"pytorch_model.bin": b"1", "result.json": b"{}"})
    with pytest.raises(UserError, match=r"holds something else: pytorch_model.bin, result.json"):
        small().push_to_hub("anna/net")
    small().push_to_hub("anna/net", replace=True)
    assert "pytorch_model.bin" in repository.files and "result.json" not in repository.files


def test_a_private_repository_is_read_with_a_token_only(server, monkeypatch):
    network = small()
    network.push_to_hub("anna/secret", private=True)
    assert server.repositories["anna/secret"].private
    assert_same_network(Network.from_pretrained("anna/secret", token=TOKEN), network.eval())
    network.push_to_hub("anna/open")
    with pytest.raises(UserError, match="anna/open on the hub is public already"):
        network.push_to_hub("anna/open", private=True)
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", constants.HF_HUB_CACHE + "-other")
    with pytest.raises(UserError, match=r"there is no repository anna/secret .* may not read it"):
        Network.from_pretrained("anna/secret", token=False)


def test_a_cached_network_needs_no_network(server, tmp_path, monkeypatch):
    network = small()
    network.push_to_hub("anna/net")
    Network.from_pretrained("anna/net", cache_dir=tmp_path / "mine")
    server.close()
    pulled = Network.from_pretrained("anna/net", cache_dir=tmp_path / "mine")
    assert_same_network(pulled, network.eval())
    for options in ({"local_files_only": True}, {}):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", not options)
        pulled = Network.from_pretrained("anna/net", cache_dir=tmp_path / "mine", **options)
        assert_same_network(pulled, network.eval())
        with pytest.raises(RunError, match=r"is not asked \(offline\), and anna/net is not in the"):
            Network.from_pretrained("anna/net", **options)


FAULTS = {
    "server": (lambda server, patch: setattr(server, "fail", failing("PUT /lfs/")), RunError,
               r"answered with an error 500 for anna/net \(the disk of the hub is full\)"),
    "commit": (lambda server, patch: setattr(server, "fail", failing("/commit/main")), RunError,
               r"answered with an error 500 for anna/net \(the disk of the hub is full\)"),
    "token": (lambda server, patch: patch.setenv("HF_TOKEN", "hf_bad"), UserError,
              r"does not accept your token \(Invalid credentials in .*run 'hf auth login'"),
    "no token": (lambda server, patch: patch.delenv("HF_TOKEN"), UserError,
                 "does not accept your token .*Set HF_TOKEN"),
    "network": (lambda server, patch: server.close(), RunError, "cannot be reached: .*refused"),
    "offline": (lambda server, patch: patch.setattr(constants, "HF_HUB_OFFLINE", True), RunError,
                "HF_HUB_OFFLINE is set"),
}  # fmt: skip


def failing(part: str):
    return lambda request: 500 if part in request else None


@pytest.mark.parametrize("fault", FAULTS)
def test_a_push_that_fails_is_one_line_and_leaves_no_network(server, monkeypatch, fault):
    fail, kind, message = FAULTS[fault]
    fail(server, monkeypatch)
    with pytest.raises(kind, match=message) as error:
        small().push_to_hub("anna/net")
    assert "\n" not in str(error.value)
    repository = server.repositories.get("anna/net")
    assert repository is None or set(repository.files) == {".gitattributes"}
    if fault in ("token", "network"):  # the same words for who reads
        with pytest.raises(kind, match=message.partition(":")[0]) as error:
            Network.from_pretrained("anna/net")
        assert "\n" not in str(error.value)


def test_a_push_that_somebody_overtook_is_refused(server):
    small().push_to_hub("anna/net")
    repository = server.repositories["anna/net"]

    def overtake(request: str) -> None:
        if request.startswith("PUT /lfs/"):
            repository.commit("main", repository.files | {"notes.md": b"mine"})

    server.fail = overtake
    with pytest.raises(RunError, match="has just been changed by somebody else: push again"):
        small().push_to_hub("anna/net")
    assert repository.files["notes.md"] == b"mine"


def test_rights_and_licenses_are_checked_by_the_hub_in_one_line(server):
    with pytest.raises(UserError, match=r"license.* must be one of \['apache-2.0', ") as error:
        small().push_to_hub("anna/net", license="MITT")
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="does not let your token write to other/net"):
        small().push_to_hub("other/net")


@pytest.mark.parametrize("name", ["net", "a/b/c", "anna/", "anna/a--b", "anna/ü", "", "datasets/"])
def test_a_name_that_is_not_owner_and_name_is_refused_before_anything_is_asked(server, name):
    with pytest.raises(UserError, match="expected OWNER/NAME, of letters, digits and"):
        small().push_to_hub(name)
    with pytest.raises(UserError, match="expected OWNER/NAME"):
        hub.pull(name)
    assert not server.requests


def test_a_missing_repository_is_one_line(server):
    with pytest.raises(UserError, match="there is no repository anna/none") as error:
        Network.from_pretrained("anna/none")
    assert "\n" not in str(error.value)


class Evil:
    def __reduce__(self):
        return exec, ("raise SystemExit('code of a repository was run')",)


def test_no_code_of_a_repository_is_downloaded_or_run(server):
    small().push_to_hub("anna/net")
    repository = server.repositories["anna/net"]
    evil = pickle.dumps(Evil())
    files = {"checkpoint/best.pt": evil, "plugins/mine.py": b"raise SystemExit", "x.bin": evil}
    repository.commit("main", repository.files | files)
    Network.from_pretrained("anna/net")
    assert not any("best.pt" in r or "mine.py" in r or "x.bin" in r for r in server.requests)
    repository.commit("main", repository.files | {"model.safetensors": evil})
    with pytest.raises(UserError, match=r"model.safetensors is missing or damaged"):
        Network.from_pretrained("anna/net")


def test_sizes_are_compared_with_the_weights_before_memory_is_taken(server):
    """Of this network, 10¹³ numbers are claimed and 3 are there."""
    small().push_to_hub("anna/net")
    repository = server.repositories["anna/net"]
    content = json.loads(repository.files["config.json"])
    content["topology"]["arguments"]["features"] = 10**6
    hostile = {"config.json": json.dumps(content).encode()}
    repository.commit("main", repository.files | hostile)
    with pytest.raises(UserError, match=r"it holds another network: .* is .* in the file"):
        Network.from_pretrained("anna/net")
    weights = save({"body.rnn.weight_ih_l0": torch.zeros(3)})
    repository.commit("main", repository.files | {"model.safetensors": weights})
    with pytest.raises(UserError, match="it holds another network"):
        Network.from_pretrained("anna/net")


def test_a_repository_without_a_network_says_so(server):
    small().push_to_hub("anna/net")
    server.repositories["anna/net"].commit("main", {"README.md": b"---\nlicense: mit\n---\n"})
    with pytest.raises(UserError, match="anna/net on the hub holds no network: it has no config"):
        Network.from_pretrained("anna/net")
