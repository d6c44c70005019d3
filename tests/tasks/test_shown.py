import pytest
from toy_tasks import toy_rows

from thalnet_mtl.tasks.sequences import SequenceTask
from thalnet_mtl.topology.spec import TaskSpec


def test_a_task_is_shown_without_loading_its_data():
    def load():
        pytest.fail("data was loaded")

    task = SequenceTask("late", load, TaskSpec(inputs=8, outputs=3), metrics=["accuracy", "f1"])
    assert (
        repr(task) == "SequenceTask('late': rows of 8 -> 3 outputs at the last step; accuracy, f1)"
    )
    assert "'other'" in repr(toy_rows().named("other"))


def test_a_task_with_several_inputs_names_them():
    spec = TaskSpec(inputs={"image": 28, "sound": 12}, outputs=10, every_step=True)
    assert spec.words() == "rows of image 28, sound 12 -> 10 outputs at every step"
    assert TaskSpec(inputs=256, outputs=256, tokens=True).words().startswith("tokens of 256")
