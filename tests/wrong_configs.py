"""Wrong configurations, each with what the error says, and whether a schema can know it."""

import shlex
from typing import NamedTuple

from toy_tasks import TOY

TRAIN = shlex.join(["train", *TOY, "--out", "new"])


class Mistake(NamedTuple):
    """A command, what its only line must contain, and what it finds."""

    command: str
    fragment: str
    files: dict[str, str | bytes] = {}  # written before  # noqa: RUF012
    status: int = 2
    variables: dict[str, str] = {}  # of the environment  # noqa: RUF012


def flag(name: str, value: str, fragment: str) -> Mistake:
    """A wrong value of a flag, over the first configuration."""
    words = [word for word in shlex.split(TRAIN) if not word.startswith(f"--{name}=")]
    return Mistake(shlex.join([*words, f"--{name}={value}"]), fragment)


def file(text: str | bytes, fragment: str, start: str = "a.yaml") -> Mistake:
    """A wrong configuration file, named by the line."""
    return Mistake("train a.yaml --out new", f"{start}{fragment}", {"a.yaml": text})


def sections(text: str, fragment: str) -> Mistake:
    """A configuration of a toy task that cannot be run."""
    text = text if "tasks:" in text or "task:" in text else f"task: {{name: toy_rows}}\n{text}"
    model = "" if "model:" in text else "\nmodel: {features: 6, modules: 3, budget: 0}"
    return Mistake("train a.yaml --out new", fragment, {"a.yaml": text + model})


JOINT = "tasks: {a: {name: toy_rows}, b: {name: toy_wide}}\n"
MODULES = "modules: {i: {input: true}, o: {output: true}}\n"
BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{k + 1}: &a{k + 1} [*a{k}, *a{k}]\n" for k in range(64))

FILES = [
    file("", " holds no sections"),
    file("# nothing\n", " holds no sections"),
    file("- a\n- b\n", " holds no sections"),
    file("train: {batch: 7}\ntrain: {clip: 1}\n", ", line 2: 'train' is given twice"),
    file("train: {batch: 7, batch: 8}", ", line 1: 'batch' is given twice"),
    file("train:\n\tbatch: 7\n", " is not valid YAML: line 2"),
    file("train: {batch: 7", " is not valid YAML: line 2"),
    file("train: {batch: 7}\n---\ntrain: {clip: 1}\n", ", line 2: a second document begins"),
    file("train: {batch: !!int abc}", ", line 1: a tag such as"),
    file("train: !!python/object/apply:os.getcwd []", ", line 1: a tag such as"),
    file("train: {batch: *a}", ", line 1: alias '*a' stands before '&a'"),
    file("train: &a [*a]", ", line 1: alias '*a'"),
    file(BOMB, "more than 200,000 values, aliases included", start=""),
    file("train: " + "[" * 3000 + "]" * 3000, ", line 1: more than 40 lists"),
    file("train: {steps: " + "9" * 5000 + "}", ": train: steps: expected a whole number, got '999"),
    file("train: {clip: 2024-13-45}", ": train: clip: expected a number, got '2024-13-45'"),
    file("train: {batch: 1:30}", ": train: batch: expected a whole number, got '1:30'"),
    file("train: {batch: 010}", ": train: batch: expected a whole number, got '010'"),
    file("train: {batch: 0x10}", ": train: batch: expected a whole number, got '0x10'"),
    file("train: {batch: }", ": train: batch: expected a whole number, got None"),
    file("train:", ": train: expected a section of fields, got None"),
    file("trian: {}", ": unknown field 'trian'. Allowed: model, task"),
    file("train: {bach: 1}", ": train: unknown field 'bach'."),
    file("train: {1: 2}", ": train: unknown field '1'."),
    file("? [a, b]\n: 1\n", ", line 1: a key must be a word"),
    file("train: {batch: 1}".encode("utf-16"), " is not text in UTF-8"),
    file("# Grüße\ntrain: {batch: 1}".encode("latin-1"), " is not text in UTF-8"),
    file(b"train: {batch: 1}\0", " is not valid YAML"),
    file("train: {device: \x1b[31mcpu}", " is not valid YAML"),
    file("x" * 4_000_001, " has 4,000,001 bytes"),
    file("runs: {}", ": 'runs' must map names of runs to overlays"),
    file("runs: [a]", ": 'runs' must map names of runs to overlays"),
    file("runs: {a/b: {}}", ": 'a/b' cannot be the name of a run"),
    file("runs: {a: {train: 3}}", "run 'a': train: expected a section", start=""),
    file("runs: {a: false}", "run 'a': expected a section of fields", start=""),
    Mistake("train a.yaml a.yaml --out new", "an earlier file already has 'runs'",
            {"a.yaml": "runs: {a: {}}"}),
]  # fmt: skip

VALUES = [
    flag("train.batch", "many", "--train.batch: expected a whole number, got 'many'"),
    flag("train.batch", "1.5", "--train.batch: expected a whole number, got 1.5"),
    flag("train.batch", "0", "--train.batch: must be at least 1, got 0"),
    flag("train.batch", "", "--train.batch: expected a whole number, got None"),
    flag("train.batch", "[1, 2]", "--train.batch: expected a whole number, got [1, 2]"),
    flag("train.batch", "[1", "--train.batch is not valid YAML"),
    flag("train.batch", "1000000000000", "is larger than the 300 sequences of toy_rows"),
    flag("train.seed", "-1", "--train.seed: must be between 0 and 2147483648, got -1"),
    flag("train.learning_rate", "nan", "--train.learning_rate: expected a number, got 'nan'"),
    flag("train.learning_rate", ".inf", "--train.learning_rate: expected a number, got inf"),
    flag("train.learning_rate", "1e300", "1e+300 is too large for a number of 32 bits"),
    flag("train.learning_rate", "0,1", "--train.learning_rate: expected a number, got '0,1'"),
    flag("train.dropout", "1", "--train.dropout: must be between 0 and 0.9, got 1"),
    flag("train.optimizer", "adan", "unknown optimizer 'adan'"),
    flag("train.schedule", "cosin", "Did you mean 'cosine'?"),
    flag("train.device", "tpu", "--train.device: unknown value 'tpu'. Allowed: auto, cpu, cuda"),
    flag("train.precision", "tf32", "only a GPU has it"),
    flag("train.ops", "fast", "--train.ops: unknown value 'fast'"),
    flag("train.strategy", "ewcc", "unknown strategy 'ewcc'"),
    flag("train.combine", "mean", "train.combine: unknown weighting 'mean'"),
    flag("train.combine", "pcgrad", "--train.combine has no effect: only one task is trained"),
    flag("train.accumulate", "1000", "a batch of task 'toy_rows' has only 16 sequences"),
    flag("train.warmup", "20", "train.warmup (20) must be smaller"),
    flag("train.epochs", "1e300", "--train.epochs: expected a whole number, got 1e+300"),
    flag("train.steps", "1e15", "--train.steps: must be between 0 and 1000000000000"),
    flag("train.threads", "10000000000000000000", "--train.threads: expected a whole number"),
    flag("train.threads", "999999", "--train.threads: must be between 0 and 1024"),
    flag("model.modules", "1000000000", "--model.modules: must be between 1 and 1000"),
    flag("model.features", "1000000000000", "--model.features: must be between 0 and 1000000"),
    flag("model.sub_steps", "1e9", "--model.sub_steps: must be between 1 and 1000"),
    flag("model.budget", "10", "makes"),
    flag("model.body", "transformer", "unknown body 'transformer'"),
    flag("model.module", "gur", "unknown module 'gur'"),
    flag("model.reading", "softmax", "Did you mean 'fast_softmax'?"),
    flag("task.name", "toy_row", "unknown task 'toy_row'"),
    flag("task.name", "3", "--task.name: expected a word, got 3"),
    flag("task.steps", "3", "unknown field 'steps'"),
    flag("task.loss", "huberr", "unknown loss 'huberr'"),
    flag("task.loss", "mse", "loss"),
    flag("task.metrics", "f2", "unknown metric 'f2'"),
    flag("task.metrics", "accuracy,accuracy", "accuracy"),
    flag("evaluate.log_every", "10000000", "between 1 and 1000000"),
    flag("growth.when", "always", "unknown growth 'always'. Allowed: never, per_task"),
    flag("train.chunk", "3", "--train.chunk has no effect: no task is a text"),
    flag("train.draw", "1", "--train.draw has no effect: only one task is trained"),
    flag("model.layers", "4", "--model.layers has no effect: model.body is thalnet"),
    flag("strategy.memory", "60", "memory"),
    flag("tasks.a.name", "toy_rows", "both 'task' and 'tasks' are given"),
    Mistake(f"{TRAIN} --train.epochs 3", "--train.epochs has no effect: train.steps is 20"),
    Mistake("train digits --model.budget 0 --model.features 1000000", "GB to train; there are"),
    Mistake("sweep digits --grid train.clip=" + ",".join(map(str, range(101))) + " train.batch="
            + ",".join(map(str, range(1, 101))), "a sweep of 10,100 runs is over 10,000"),
]  # fmt: skip

STRUCTURES = [
    sections("modules: {a: {input: true, output: true, reads: [b]}}", "'b'"),
    sections("modules: {a: {input: true}}", "output"),
    sections("modules: {a: {output: true}}", "input"),
    sections("modules: {a: {input: yes}}", "input: expected true or false, got 'yes'"),
    sections("modules: {a: {tasks: [c], input: true, output: true}}", "unknown task 'c'"),
    sections("modules: {a: 0}", "modules: a: expected a section of fields, got 0"),
    sections("modules: [a]", "modules: expected entries by name, got ['a']"),
    sections("modules: {a: {input: true, output: true, module: gur}}", "unknown module 'gur'"),
    sections("modules: {a: {input: true, output: true}}\nmodel: {body: gru}", "only a ThalNet"),
    sections("changes: {step: 3}", "changes: expected a list"),
    sections("changes: [{step: 3}]", "every change needs a step, a verb and a name"),
    sections("changes: [{step: 3, verb: atach, name: a}]", "unknown value 'atach'"),
    sections("changes: [{step: 3, verb: clone, name: a}]", "clone a: it needs a source"),
    sections("changes: [{step: 3, verb: freeze, name: nobody}]\ntrain: {steps: 9}", "'nobody'"),
    sections("changes: [{step: 99, verb: detach, name: side1}]\ntrain: {steps: 9}", "only 9 steps"),
    sections("stream: [{tasks: []}]", "every experience needs tasks"),
    sections("stream: [{tasks: [b]}]", "'b'"),
    sections("stream: [{task: toy_rows}]", "unknown field 'task'"),
    sections(JOINT + "stream: [{tasks: [a], steps: -1}]", "steps: must be at least 0, got -1"),
    sections(JOINT + "stream: [{tasks: [a]}, {tasks: [b]}]\ntrain: {patience: 2, steps: 9}\n"
             "changes: [{step: 3, verb: freeze, name: a}]", "train.patience and changes: "),
    sections(JOINT + "train: {epoch_of: c}", "train.epoch_of: unknown task 'c'"),
    sections(JOINT + "train: {combine: upgrat}", "unknown weighting 'upgrat'"),
    sections("tasks: [toy_rows]", "tasks: expected entries by name"),
    sections("tasks: {a: {name: toy_row}}", "unknown task 'toy_row'"),
    sections("tasks: {a: {name: toy_rows, weight: -1}}", "weight: must be at least 0.0, got -1"),
    sections("tasks: {a: {name: toy_rows, reset: 0.1}}", "only a text carries a state to reset"),
    sections("tasks: {a: {name: toy_rows, only_scored: true}}", "every task is only scored"),
    sections("tasks: {a: {name: toy_rows}, b: {name: toy_rows, inputs_of: c}}", "unknown task 'c'"),
    sections("tasks: {a: {name: toy_rows, head: h}, b: {name: toy_wide, head: h}}", "share head"),
    sections("tasks: {a.b: {name: toy_rows}}", "a.b"),
    sections("task: {name: toy_rows}\n" + JOINT, "both 'task' and 'tasks' are given"),
    sections("growth: {when: per_task, modules: {a: {input: true, output: true}}}\n" + JOINT
             + "stream: [{tasks: [a]}, {tasks: [b]}]\nmodel: {features: 6, budget: 500}\n"
             "train: {steps: 9}", "500"),
    sections(JOINT + "stream: [{tasks: [a]}, {tasks: [b]}]\ngrowth: {when: search}",
             "give at least one input module"),
    sections("task: {name: toy_rows, loss: {name: huber}}", "loss"),
    sections("task: {name: toy_rows, loss: {name: cross_entropy, label_smoothing: 2}}", "2"),
    sections("task: {name: toy_rows, loss: {label_smoothing: 0.1}}", "options without a name"),
    sections("task: {name: toy_rows, metrics: [{k: 2}]}", "every entry needs a name"),
    sections("strategy: {memory: 0}\ntrain: {strategy: replay}", "memory: must be at least 1"),
]  # fmt: skip
