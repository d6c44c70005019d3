"""A network as notebooks show it: its modules as a table and as a graph, and its tasks."""

from thalnet_mtl import markup
from thalnet_mtl.models.editing import EditableNetwork
from thalnet_mtl.models.size import parameter_counts
from thalnet_mtl.models.snapshot import topology_snapshot
from thalnet_mtl.models.summary import adapter_summary, body_summary
from thalnet_mtl.report.figures.module_graph import graph_svg
from thalnet_mtl.report.topology import module_rows
from thalnet_mtl.runs.topology_file import TopologySnapshot

COLUMNS = ("module", "parameters", "features", "reads", "tasks", "frozen", "design", "reading")
MOST_READINGS = 150  # of a graph, which takes about 200 bytes for each
NUMBERS = ("parameters", "features")


class ShownNetwork(EditableNetwork):
    """A network that shows itself in notebooks; nothing is computed with it."""

    def _repr_html_(self) -> str:
        counts, body = parameter_counts(self), self.body
        about = f"{counts['total']:,} parameters, {counts['trainable']:,} trainable"
        html = markup.heading(type(self).__name__, about)
        specs = {name: self.adapter(name).spec for name in self.adapters}
        tasks = [[name, adapter_summary(spec)] for name, spec in specs.items()]
        if body.graph is None:
            html += markup.block(body_summary(body))
        else:
            topology = topology_snapshot(self)
            rows = module_rows(topology)
            lines = [[row[name] for name in COLUMNS] for row in rows]
            about = f"center of {body.graph.center:,} features, {len(rows):,} modules"
            html += markup.note(about)
            html += markup.beside(markup.table(COLUMNS, lines, NUMBERS), _graph(topology))
        return html + (markup.table(["task", "adapter"], tasks) if tasks else "")


def _graph(topology: TopologySnapshot) -> str:
    count = sum(len(module.reads) for module in topology.modules)
    if count > MOST_READINGS:
        return markup.note(f"no graph of more than {MOST_READINGS} readings; there are {count:,}")
    return graph_svg(topology)
