"""Classify raw sequences with an exported program, of which its metadata is all that is known.

``python onnx_client.py PROGRAM.onnx SEQUENCES.json`` prints the names of their classes.
"""

import json
import sys

import numpy as np
import onnxruntime


def classify(session: onnxruntime.InferenceSession, sequences: list) -> list[str]:
    facts = session.get_modelmeta().custom_metadata_map
    x, *_ = json.loads(facts["inputs"])
    [outputs] = json.loads(facts["outputs"])
    assert outputs["answer"] == "largest"
    rows = [np.array(sequence, x["type"]) / x.get("divide_by", 1) for sequence in sequences]
    if "order" in x:
        rows = [row.reshape(-1)[x["order"]].reshape(row.shape) for row in rows]
    rows = [row.astype(x["type"]) for row in rows]
    run = run_whole if facts["program"] == "sequences" else run_step_by_step
    logits = run(session, facts, x["name"], rows)
    return [outputs["columns"][k] for k in logits.argmax(1)]


def run_whole(session, facts, name: str, rows: list[np.ndarray]) -> np.ndarray:
    lengths = np.array([len(row) for row in rows])
    padded = np.stack([np.pad(row, [(0, max(lengths) - len(row)), (0, 0)]) for row in rows])
    return session.run(["outputs"], {name: padded, "lengths": lengths})[0]


def run_step_by_step(session, facts, name: str, rows: list[np.ndarray]) -> np.ndarray:
    states, answers = json.loads(facts["states"]), []
    for sequence in rows:
        state = {
            part["name"]: np.zeros([1, *part["shape"][1:]], part["type"]) + part["start"]
            for part in states
        }
        state = {part["name"]: state[part["name"]].astype(part["type"]) for part in states}
        for row in sequence:
            results = session.run(
                ["outputs", *(part["next"] for part in states)], {name: row[None]} | state
            )
            state = dict(zip(state, results[1:], strict=True))
        answers.append(results[0][0])
    return np.stack(answers)


if __name__ == "__main__":
    with open(sys.argv[2]) as file:
        classes = classify(onnxruntime.InferenceSession(sys.argv[1]), json.load(file))
    assert not any(name.startswith(("torch", "thalnet")) for name in sys.modules)
    print(json.dumps(classes))
