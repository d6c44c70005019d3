"""The graph of modules: what it resolves, answers and refuses, and that its edits copy it."""

from copy import deepcopy
from dataclasses import replace

import pytest

from thalnet_mtl.errors import UserError
from thalnet_mtl.topology.graph import ModuleGraph
from thalnet_mtl.topology.spec import AdapterSpec, ModuleSpec, TaskSpec

TASK = TaskSpec(inputs=5, outputs=2)


def graph_of(**changes) -> ModuleGraph:
    """Return input -> middle -> output, with a private module of task ``b`` beside them."""
    modules = {
        "input": ModuleSpec("input", 3, 2, inputs=5, reads=("input",)),
        "middle": ModuleSpec("middle", 2, 2, reads=("input", "middle")),
        "output": ModuleSpec("output", 4, 2, output=True, reads=("output", "middle")),
        "private": ModuleSpec("private", 1, 2, tasks=("b",)),
    }
    modules |= {name: replace(modules[name], **fields) for name, fields in changes.items()}
    return ModuleGraph(tuple(modules.values()))


def adapter(*input_modules: str, output: str = "output") -> AdapterSpec:
    return AdapterSpec(TASK, input_modules or ("input",), (output,))


def test_slots_and_columns_lie_in_the_order_of_the_modules():
    graph = graph_of()
    assert list(graph) == ["input", "middle", "output", "private"]
    assert graph.slots == {
        "input": slice(0, 3),
        "middle": slice(3, 5),
        "output": slice(5, 9),
        "private": slice(9, 10),
    }
    assert graph.center == 10
    assert graph["output"].reads == ("middle", "output")
    assert graph.columns("output") == [
        ("middle", 0),
        ("middle", 1),
        *(("output", k) for k in range(4)),
    ]


def test_reads_left_open_are_all_modules_that_a_task_of_the_module_may_run():
    graph = graph_of(output={"reads": None, "tasks": ("a",)})
    assert graph["output"].reads == ("input", "middle", "output")
    assert graph["private"].reads == ("input", "middle", "private")


def test_only_modules_on_which_the_head_depends_are_active():
    graph = graph_of()
    assert graph.active_modules("a", adapter()) == ("input", "middle", "output")
    assert graph.active_modules("a", adapter(output="input")) == ("input",)
    graph = graph.route("output", "private")
    assert graph.active_modules("a", adapter()) == ("input", "middle", "output")
    assert graph.active_modules("b", adapter()) == tuple(graph)


def test_input_modules_that_a_task_does_not_feed_are_not_active():
    graph = graph_of(middle={"inputs": 7})
    assert graph.active_modules("a", adapter("middle")) == ("middle", "output")


def test_information_flows_along_readings_only():
    graph = graph_of()
    assert graph.reachable_from(["middle"], graph) == {"middle", "output", "private"}
    assert graph.reachable_from(["input"], ["input", "output"]) == {"input"}


def test_a_task_uses_all_inputs_and_outputs_that_may_run_for_it_by_default():
    graph = graph_of(private={"output": True})
    assert graph.default_endpoints("a", (), None) == (("input",), ("output",))
    assert graph.default_endpoints("b", (), None) == (("input",), ("output", "private"))
    assert graph.default_endpoints("b", (), ["middle"]) == (("input",), ("middle",))


@pytest.mark.parametrize(
    ("edit", "arguments"),
    [
        ("attach", [ModuleSpec("new", 2, 2), ["output"]]),
        ("detach", ["private"]),
        ("clone", [{"middle": "copy"}]),
        ("route", ["output", "input"]),
        ("route", ["output", "output", False]),
        ("freeze", [["middle"]]),
    ],
)
def test_edits_return_another_graph_and_leave_the_old_one(edit, arguments):
    graph = graph_of()
    before = deepcopy(graph)
    edited = getattr(graph, edit)(*arguments)
    assert isinstance(edited, ModuleGraph) and edited != graph
    assert graph == before and hash(graph) == hash(before)


def test_attaching_and_detaching_is_the_identity():
    graph = graph_of()
    grown = graph.attach(ModuleSpec("new", 2, 2), read_by=["output", "middle"])
    assert grown["output"].opened == ("new",) and grown["new"].reads == tuple(grown)
    assert grown.opened_columns("output") == [6, 7]
    assert grown.detach("new") == graph


def test_opening_and_closing_a_route_is_the_identity():
    graph = graph_of()
    assert graph.route("output", "input").route("output", "input", open=False) == graph


def test_a_copy_of_a_module_that_reads_itself_reads_itself():
    graph = graph_of(middle={"frozen": True}).clone({"middle": "copy"}, ["a"])
    assert graph["copy"].reads == ("input", "copy")
    assert graph["copy"].tasks == ("a",) and not graph["copy"].frozen


def test_columns_that_stay_are_found_again():
    graph = graph_of()
    grown = graph.attach(ModuleSpec("new", 1, 2), read_by=["middle"])
    assert grown.column_sources(graph) == {"middle": [0, 1, 2, 3, 4, None]}
    assert graph.column_sources(grown) == {"middle": [0, 1, 2, 3, 4]}
    closed = graph.route("middle", "input", open=False)
    assert closed.column_sources(graph) == {"middle": [3, 4]}
    assert graph.freeze(["middle"]).column_sources(graph) == {}


def test_a_graph_cannot_be_changed():
    graph = graph_of()
    with pytest.raises(AttributeError):
        graph.modules = ()
    with pytest.raises(TypeError):
        graph["new"] = ModuleSpec("new", 1, 1)


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda graph: graph.module("midle"), "Did you mean 'middle'"),
        (lambda graph: graph.attach(ModuleSpec("input", 1, 1)), "a module 'input' already"),
        (lambda graph: graph.attach(ModuleSpec("new", 1, 1), ["midle"]), "Did you mean 'middle'"),
        (lambda graph: graph.detach("output"), "needs at least one module"),
        (lambda graph: graph.clone({"input": "output"}), "a module 'output' already"),
        (lambda graph: graph.route("output", "middle"), "'output' reads 'middle' already"),
        (lambda graph: graph.route("input", "input", False), "reads only 'input'"),
        (lambda graph: graph.freeze(["midle"]), "Did you mean 'middle'"),
        (lambda graph: graph.default_endpoints("a", ["middle"], None), "input module 'middle'"),
        (lambda graph: graph.default_endpoints("a", (), ["private"]), "belongs to b only"),
        (lambda graph: graph.default_endpoints("a", (), []), "no output module may run"),
        (
            lambda graph: graph.route("output", "middle", False).check_head_sees_input(
                "a", adapter()
            ),
            "no path of readings leads from input to output",
        ),
        (
            lambda graph: graph.attach(
                ModuleSpec("new", 1, 1, reads=("new",))
            ).check_reached_by_input("new"),
            "'new' would read only new, which no input reaches. Inputs reach input, middle",
        ),
        (lambda graph: graph_of(input={"features": 0}), "at least 1"),
        (lambda graph: graph_of(input={"reads": ()}), "reads no slot"),
        (lambda graph: graph_of(input={"reads": "input"}), "a list of different names"),
    ],
)
def test_mistakes_are_refused_in_one_line(act, message):
    with pytest.raises(UserError, match=message) as error:
        act(graph_of())
    assert len(str(error.value).splitlines()) == 1
