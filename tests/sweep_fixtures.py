"""Workers of sweeps that train without processes."""

from thalnet_mtl.config.load import load_run_config
from thalnet_mtl.errors import RunError, UserError
from thalnet_mtl.sweep import workers
from thalnet_mtl.sweep.jobs import LOG
from thalnet_mtl.training.trainer import train


class InProcessWorkers(workers.LocalWorkers):
    """Workers that train one run after another in this process."""

    def __init__(self):
        super().__init__(1)
        self.trained: list[str] = []
        self._ends: list[workers.ProcessResult] = []

    @property
    def running(self) -> int:
        return len(self._ends)

    def submit(self, job: workers.TrainingJob) -> None:
        name, folder = job.name, job.folder
        self.trained.append(name)
        status = 0
        try:
            train(load_run_config(folder), folder)
        except (RunError, UserError) as error:
            status = 2 if isinstance(error, UserError) else 1
            with (folder / LOG).open("a") as log:
                log.write(f"thalnet: {error}\n")
        self._ends.append(workers.ProcessResult(name, status, 1.0))

    def poll(self) -> list[workers.ProcessResult]:
        ends, self._ends = self._ends, []
        return ends
