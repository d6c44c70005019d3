"""Sweeps that train without processes."""

import pytest
from sweep_fixtures import InProcessWorkers

from thalnet_mtl.sweep import workers


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A folder where sweeps train without processes; the names of what they train."""
    monkeypatch.chdir(tmp_path)
    local = InProcessWorkers()
    monkeypatch.setattr(workers, "make_workers", lambda *options: local)
    return local.trained
