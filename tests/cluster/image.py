"""Build and load the images of the cluster tests from the packages of this interpreter.

    python image.py TOOL

TOOL is a program with the commands `image OUT.tar NAME SOURCE:TARGET…` and `load FILE`: it makes an image from this
machine's Python and files, and gives it to the nodes. Prints the names of the images.
"""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_path("purelib"))
TARGET = f"/usr/local/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"

OWN = {
    "libs/core/penstock_core": "penstock_core",
    "libs/sdk/penstock": "penstock",
}
RUNNER = ("nats",)
TRAINING = (
    *("numpy", "numpy.libs", "pandas", "pandas.libs", "scipy", "scipy.libs", "sklearn", "scikit_learn.libs", "joblib"),
    *("threadpoolctl.py", "pyarrow", "pyarrow.libs", "dateutil", "pytz", "six.py", "tzdata", "matplotlib", "contourpy"),
    *("cycler", "fontTools", "kiwisolver", "packaging", "PIL", "pillow.libs", "pyparsing", "mpl_toolkits"),
    *("pylab.py", "narwhals", "cloudpickle"),
)


def main() -> None:
    tool = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        for name, packages in (("penstock.test/steps:1", RUNNER), ("penstock.test/training:1", RUNNER + TRAINING)):
            out = Path(folder) / "image.tar"
            subprocess.run([tool, "image", str(out), name, *sources(packages)], check=True, timeout=300)
            subprocess.run([tool, "load", str(out)], check=True, timeout=300)
            print(name)


def sources(packages: tuple[str, ...]) -> list[str]:
    """What goes where: our packages, others with their metadata, and libraries of the system."""
    found = [f"{ROOT / source}:{TARGET}/{name}" for source, name in OWN.items()]
    found += [f"{SITE / name}:{TARGET}/{name}" for name in packages if (SITE / name).exists()]
    found += [f"{info}:{TARGET}/{info.name}" for info in SITE.glob("*.dist-info") if not is_own(info)]
    return found + [f"{path.resolve()}:/lib/{path.name}" for path in libraries(packages)]


def libraries(packages: tuple[str, ...]) -> list[Path]:
    """The libraries of the system that the packages load, besides those that Python itself loads."""
    modules = [str(path) for name in packages if (SITE / name).is_dir() for path in (SITE / name).rglob("*.so*")]
    if not modules:
        return []
    listed = subprocess.run(["ldd", *modules], check=False, capture_output=True, text=True, timeout=120).stdout
    found = {Path(path) for path in re.findall(r"=> (/(?:usr/)?lib/\S+)", listed)}
    return sorted(path for path in found if not path.name.startswith(("libc.so", "libm.so", "ld-linux")))


def is_own(info: Path) -> bool:
    return re.match(r"penstock[-_.]", info.name) is not None


if __name__ == "__main__":
    main()
