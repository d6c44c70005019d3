"""A bridge to Avalanche: tasks, networks, growth and metrics as parts of its programs.

Its strategies train our networks in runs (``--train.strategy avalanche:ewc``), and programs that
are written for it can use our parts. The modules of this package come before any import of
avalanche itself; see ``compat.py``.

>>> from thalnet_mtl import Network, ThalNet
>>> from thalnet_mtl.avalanche.benchmark import benchmark
>>> from thalnet_mtl.avalanche.model import Loss, as_avalanche
>>> from thalnet_mtl.avalanche.plugins import Growth, RichLogger, StreamMetrics
>>> from thalnet_mtl.config.load import load_configs
>>> from thalnet_mtl.config.schema import GrowthConfig, ModuleConfig
>>> from thalnet_mtl.training.setup import make_tasks
>>> from torch.optim import Adam
>>> from avalanche.training import Replay
>>> from avalanche.training.plugins import EvaluationPlugin
>>> tasks = make_tasks(load_configs(["joint/digits"])[""])
>>> tasks = {name: task.load("cpu") for name, task in tasks.items()}
>>> stream = benchmark(tasks, limit=320)
>>> network = Network(ThalNet(inputs=8, modules=2, features=8))
>>> growth = GrowthConfig("per_task", "frozen", {"own": ModuleConfig(features=8, output=True)})
>>> evaluator = EvaluationPlugin(StreamMetrics(tasks), loggers=[RichLogger()])
>>> model = as_avalanche(network, tasks)
>>> strategy = Replay(
...     model=model, optimizer=Adam(network.parameters(), 0.01),
...     criterion=Loss(model), mem_size=100, train_mb_size=32, eval_mb_size=100,
...     plugins=[Growth(growth)], evaluator=evaluator,
... )
>>> for experience in stream.train_stream:
...     _ = strategy.train(experience)
...     measures = strategy.eval(stream.test_stream[: experience.current_experience + 1])
... # doctest: +ELLIPSIS
experience 1: digits_rows …
  step 10  ACC/eval_phase/test_stream 0...
>>> 0 < measures["ACC/eval_phase/test_stream"] <= 1
True

Tasks of different shapes may meet in a batch, which is then a ``RaggedBatch``. Which strategies of
Avalanche 0.6 work with which networks and tasks is in ``benchmarks/continual/README.md``.
"""
