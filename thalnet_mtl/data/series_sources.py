"""Time series of the UCR, UEA and Monash archives, and three series to forecast, as data sources.

The archives' own site is timeseriesclassification.com. The files come from the wheel of the package
aeon, which holds the same ones; the package is neither installed nor imported. Hashes are those of
the files in the wheel of version 1.6.0, as the archives publish none.
"""

import zipfile
from functools import partial
from pathlib import Path

from thalnet_mtl.data.packages import Archive, ProgressCallback, fetch_archive, pip
from thalnet_mtl.data.sources import DataSource, Files

AEON_PACKAGE = Archive(
    *("aeon", "1.6.0", "aeon-1.6.0-py3-none-any.whl", 6_421_000),
    sha256="d05227086706f80111ac5fee8de4d5d3115bb3bcfd1c786c8629393055816409",
)

# License and files of each data set.
_SERIES: dict[str, tuple[str, Files]] = {
    "japanese_vowels": (
        "CC BY 4.0 (UCI)",
        {
            "JapaneseVowels_TRAIN.ts": (487_971, "md5:9165e3eec783ac6342d658685c864d19"),
            "JapaneseVowels_TEST.ts": (649_132, "md5:14d15214e3ab6ac39ab2d48901d3e2a3"),
        },
    ),
    "pickup_gesture": (
        "none stated (UCR archive)",
        {
            "PickupGestureWiimoteZ_TRAIN.ts": (
                43_921,
                "sha1:3368930d72ea4d116749520df4a90789a8ede904",
            ),
            "PickupGestureWiimoteZ_TEST.ts": (
                44_312,
                "sha1:f133445a5ba601e611c562d14c16f45eb19f2290",
            ),
        },
    ),
    "basic_motions": (
        "none stated (UEA archive)",
        {
            "BasicMotions_TRAIN.ts": (227_790, "md5:ebf723e9e78fb3396ab2420cddfb0856"),
            "BasicMotions_TEST.ts": (227_713, "md5:72a1a7bec5ac32a305fe0a6d0a2cefdc"),
        },
    ),
    "gun_point": (
        "none stated (UCR archive)",
        {
            "GunPoint_TRAIN.ts": (84_188, "md5:b7901fea64f1478306a5b2fd24bbadf3"),
            "GunPoint_TEST.ts": (252_305, "md5:29b4dcc6cc288913e3d4b9dc414844ad"),
        },
    ),
    "italy_power_demand": (
        "none stated (UCR archive)",
        {
            "ItalyPowerDemand_TRAIN.ts": (18_300, "md5:5b8ff57b23e07dfa4913ac19e402db52"),
            "ItalyPowerDemand_TEST.ts": (274_054, "md5:5b922219fc85af1fa441fde521f7a25d"),
        },
    ),
    "covid3month": (
        "CC BY 4.0 (Monash archive)",
        {
            "Covid3Month_TRAIN.ts": (51_542, "md5:ea0360dd8c82fae7c25305018f25cd37"),
            "Covid3Month_TEST.ts": (22_689, "md5:a1d16bd186edf75ac70b5116e769aba6"),
        },
    ),
    "solar": (
        "none stated (Sheffield Solar)",
        {
            "solar.csv": (9_392, "md5:d84245e12ccea18df07dba62b51847b2"),
        },
    ),
    "airline": (
        "none stated",
        {
            "Airline.csv": (1_744, "md5:bdd6a95533afb45557d16f9fc940b592"),
        },
    ),
    "lynx": (
        "none stated",
        {
            "Lynx.csv": (1_073, "md5:bc86f63fb2f39a84d587ff45a4f1f6f3"),
        },
    ),
}


def series_from_package(
    archive: Archive, files: Files, folder: Path, report: ProgressCallback
) -> None:
    """Write files out of the wheel of aeon, where each lies in a folder named after its data."""
    with zipfile.ZipFile(fetch_archive(archive, pip, report)) as package:
        for file in files:
            data_set = file.partition(".")[0].removesuffix("_TRAIN").removesuffix("_TEST")
            (folder / file).write_bytes(package.read(f"aeon/datasets/data/{data_set}/{file}"))


SERIES = {
    name: DataSource(
        versions={name: files},
        license=license,
        mirrors={"pip package aeon": partial(series_from_package, AEON_PACKAGE, files)},
        archive=AEON_PACKAGE,
    )
    for name, (license, files) in _SERIES.items()
}
