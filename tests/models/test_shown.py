import re
from xml.etree import ElementTree

import torch
from torch import nn

from thalnet_mtl.models.network import Network
from thalnet_mtl.models.recurrent import RecurrentBody
from thalnet_mtl.models.shown import MOST_READINGS
from thalnet_mtl.models.thalnet import ThalNet
from thalnet_mtl.report.figures.module_graph import SHARED
from thalnet_mtl.report.figures.style import COLORS
from thalnet_mtl.topology.spec import ModuleSpec, TaskSpec

SCRIPT = "<script>alert(1)</script>"
TASK = TaskSpec(inputs=8, outputs=10)


def network(modules: int = 3) -> Network:
    made = Network(ThalNet(inputs=8, modules=modules, features=4))
    made.add_task("digit", TASK)
    return made


def graph(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(html[html.index("<svg") : html.index("</svg>") + 6])


def test_a_network_shows_its_modules_and_tasks():
    shown = network()
    shown.freeze(task="digit")
    new = ModuleSpec("new", features=2, context=2, inputs=8, output=True, tasks=("odd",))
    shown.attach(new)
    shown.add_task("odd", TaskSpec(inputs=8, outputs=2))
    html = shown._repr_html_()
    rows = re.findall(r"<tr>(.*?)</tr>", html)
    cells = [re.findall(r"<t[hd][^>]*>(.*?)</t", row) for row in rows]
    size = sum(p.numel() for p in shown.body.cells["new"].parameters())
    assert cells[0][:6] == ["module", "parameters", "features", "reads", "tasks", "frozen"]
    assert cells[4][:6] == ["new", f"{size:,}", "2", "all", "odd", "–"]
    assert cells[1][3:6] == ["input, side1, output", "shared", "yes"]
    total = sum(p.numel() for p in shown.parameters())
    assert f"{total:,} parameters" in html and ">odd<" in html


def test_the_graph_names_every_module_and_has_the_color_of_the_text():
    html = network()._repr_html_()
    svg = graph(html)
    texts = {"".join(each.itertext()).strip() for each in svg.findall(".//{*}text")}
    assert {"input", "side1", "output"} <= texts
    assert "currentColor" in html and "#010203" not in html and COLORS[0].lower() in html
    assert "<style" not in html and "url(" not in html and "<image" not in html


def test_modules_of_several_tasks_are_gray():
    shown = network()
    shown.add_task("parity", TASK)
    assert SHARED in shown._repr_html_() and ">several tasks<" in shown._repr_html_()


def test_a_large_network_has_no_graph_and_says_so():
    html = network(13)._repr_html_()
    assert f"no graph of more than {MOST_READINGS} readings; there are 169" in html
    assert "<svg" not in html and len(html) < 15_000
    assert "<svg" in network(12)._repr_html_() and len(network(12)._repr_html_()) < 60_000


def test_a_body_without_modules_shows_its_arguments():
    shown = Network(RecurrentBody(nn.GRU(8, 5, batch_first=True)))
    shown.add_task("digit", TASK)
    assert "features=5" in shown._repr_html_() and ">digit<" in shown._repr_html_()


def test_a_body_that_cannot_be_saved_is_shown():
    class Own(ThalNet):
        pass

    assert "4 modules" in Network(Own(inputs=8, modules=4, features=4))._repr_html_()


def test_names_stay_text():
    shown = network()
    new = ModuleSpec("new", features=2, context=2, tasks=(SCRIPT,))
    shown.attach(new)
    html = shown._repr_html_()
    assert "<script" not in html and "&lt;script&gt;" in html


def test_showing_a_network_computes_nothing_with_it():
    shown = network()
    shown.train()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in shown.state_dict().items()}
    shown._repr_html_()
    assert torch.equal(before, torch.get_rng_state()) and shown.training
    assert all(torch.equal(state[k], v) for k, v in shown.state_dict().items())
    assert all(p.grad is None for p in shown.parameters())


def test_no_figure_is_left_open():
    network()._repr_html_()
    import matplotlib.pyplot as plt

    assert not plt.get_fignums()


def test_a_change_says_in_a_line_what_became_of_the_parameters():
    shown = network()
    old = sum(p.numel() for p in shown.parameters())
    attached = shown.attach(ModuleSpec("new", features=2, context=2), read_by=["output"])
    module = sum(p.numel() for p in shown.body.cells["new"].parameters())
    wider = sum(p.numel() for p in shown.parameters()) - old - module
    assert repr(attached) == (
        f"TopologyChange({attached}; parameters: +{module:,} new, +{wider:,} in wider matrices)"
    )
    frozen = shown.freeze("new")
    assert f"parameters: +{module:,} no longer trained)" in repr(frozen)
    assert f"parameters: +{module:,} trained again)" in repr(shown.unfreeze("new"))
    assert "tensors removed" in repr(shown.detach("new"))
    assert len(repr(attached)) < 120
