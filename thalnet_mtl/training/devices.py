"""The devices that a run may use, and how they compute."""

import os

import torch

from thalnet_mtl.config.schema import Config
from thalnet_mtl.errors import UserError
from thalnet_mtl.models.network import Network
from thalnet_mtl.models.size import count_parameters
from thalnet_mtl.sweep.devices import VISIBLE
from thalnet_mtl.training.launched import place_on_machine, several_processes

# Below so many parameters more CPU threads than one do not pay: on a busy machine they wait for
# each other. On a quiet one our own kernel gains by --train.threads.
SMALL_NETWORK = 500_000
THREADS = torch.get_num_threads()  # PyTorch's choice: the cores, or what OMP_NUM_THREADS says


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that PyTorch can use, as ``CUDA_VISIBLE_DEVICES`` names them.

    CUDA is not initialized where the driver's management library can count them.
    """
    count = torch.cuda.device_count()  # of those that the variable leaves visible
    names = os.environ.get(VISIBLE)
    if names is None:
        return tuple(map(str, range(count)))
    return tuple(name.strip() for name in names.split(","))[:count]


def configure_process(config: Config, network: Network, device: torch.device) -> None:
    """Set what holds for the whole process: CPU threads, and how a GPU rounds products."""
    small = count_parameters(network) < SMALL_NETWORK
    torch.set_num_threads(config.train.threads or (1 if small else THREADS))
    if device.type == "cuda":
        set_matmul_precision(config.train.precision)


def set_matmul_precision(precision: str) -> None:
    """Let a GPU round the inputs of products to tf32, or not; in cuDNN as well."""
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def choose_device(name: str) -> torch.device:
    """Return the device of a name; 'auto' is the GPU where there is one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("train.device 'cuda': no GPU that PyTorch can use. Allowed: auto, cpu.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    processes = place_on_machine()[1]
    if name == "cuda" and several_processes() and processes > torch.cuda.device_count():
        raise UserError(
            f"train.device {name}: torchrun has started {processes} processes on this machine, "
            f"with {torch.cuda.device_count()} GPUs. Start one for each GPU, or use cpu."
        )
    return torch.device(name)


def check_precision(precision: str, device: torch.device) -> None:
    """Raise if a device does not have a precision."""
    if precision == "tf32" and device.type != "cuda":
        raise UserError("train.precision 'tf32': only a GPU has it. Allowed here: fp32, bf16.")
