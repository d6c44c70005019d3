"""Train the nets of the zoo and copy them to the package: ``python -m benchmarks.zoo [NAME …]``.

Runs are in ``runs/zoo``. One that is finished is not repeated; an interrupted one resumes.
"""

import sys
from pathlib import Path

from thalnet_mtl.config.load import load_configs
from thalnet_mtl.errors import UserError, unknown
from thalnet_mtl.files import staged
from thalnet_mtl.published import FOLDER, ZOO
from thalnet_mtl.training.publication import publication
from thalnet_mtl.training.trainer import train

CONFIGS, RUNS = Path(__file__).parent / "zoo.yaml", Path("runs/zoo")
LARGEST = 300_000  # bytes of a net with its files


def main(names: list[str]) -> int:
    """Train the runs of ``zoo.yaml``, all or some, and write the files of each to the package.

    Returns the exit status: 2 if a name is unknown, before anything is trained.
    """
    configs = load_configs([str(CONFIGS)])
    try:
        for name in names:
            if name not in configs:
                raise unknown("net", name, configs)
    except UserError as error:
        print(f"benchmarks.zoo: {error}", file=sys.stderr)
        return 2
    for name in names or configs:
        train(configs[name], RUNS / name)
        write(name, RUNS / name)
    return 0


def write(name: str, run: Path) -> None:
    """Write the files of a net: those that ``thalnet push`` would, without a report."""
    files, _ = publication([run], f"{ZOO}{name}", "mit")
    files.pop("report.html", None)
    if (size := sum(map(len, files.values()))) > LARGEST:
        raise SystemExit(f"{name} has {size:,} bytes, more than {LARGEST:,}")
    with staged(FOLDER / name) as part:
        part.mkdir(parents=True)
        for file, content in files.items():
            (part / file).write_bytes(content)
    print(f"{name}: {size:,} bytes")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
