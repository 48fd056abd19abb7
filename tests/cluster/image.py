"""Build and load the images of the cluster tests from the packages of this interpreter.

    python image.py TOOL [--small]

TOOL is a program with the commands `image OUT.tar NAME SOURCE:TARGET…` and `load FILE`: it makes an image from this
machine's Python and files, and gives it to the nodes. Prints the names of the images; `--small` leaves out the one with
packages for data science.
"""

from __future__ import annotations

import compileall
import hashlib
import io
import json
import re
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_path("purelib"))
STDLIB = Path(sysconfig.get_path("stdlib"))
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
        images = {"penstock.test/steps:1": RUNNER, "penstock.test/training:1": RUNNER + TRAINING}
        for name, packages in list(images.items())[: 1 if "--small" in sys.argv else 2]:
            out = Path(folder) / "image.tar"
            subprocess.run([tool, "image", str(out), name, *sources(packages)], check=True, timeout=300)
            for source in OWN:  # what lies there may be older than the sources, and is not checked in the image
                compileall.compile_dir(ROOT / source, quiet=1)
            add_bytecode(out, [*(SITE / package for package in packages), *(ROOT / source for source in OWN), STDLIB])
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


def add_bytecode(archive: Path, folders: list[Path]) -> None:
    """Add a layer with the compiled modules of this interpreter: without it each pod compiles all that it imports.

    Their headers say that they are not to be checked against the sources, whose times differ in the image.
    """
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in folders:
            for path in folder.rglob("__pycache__/*.cpython-*.pyc"):
                if "site-packages" in path.relative_to(folder).parts or "tests" in path.parts:
                    continue
                data = path.read_bytes()
                info = tarfile.TarInfo(str(target_of(path)).lstrip("/"))
                info.size, info.mode = len(data), 0o644
                tar.addfile(info, io.BytesIO(data[:4] + (1).to_bytes(4, "little") + bytes(8) + data[16:]))
    with tarfile.open(archive) as tar:
        files = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    index = json.loads(files["index.json"])
    manifest = json.loads(files[blob_name(index["manifests"][0]["digest"])])
    config = json.loads(files[blob_name(manifest["config"]["digest"])])

    def add(data: bytes, described: dict[str, Any]) -> None:
        described["digest"], described["size"] = f"sha256:{hashlib.sha256(data).hexdigest()}", len(data)
        files[blob_name(described["digest"])] = data

    new = {"mediaType": "application/vnd.oci.image.layer.v1.tar"}
    add(layer.getvalue(), new)
    manifest["layers"].append(new)
    config["rootfs"]["diff_ids"].append(new["digest"])
    config["history"].append(dict(config["history"][0]))
    add(json.dumps(config).encode(), manifest["config"])
    add(json.dumps(manifest).encode(), index["manifests"][0])
    files["index.json"] = json.dumps(index).encode()
    with tarfile.open(archive, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def target_of(path: Path) -> Path:
    """Where a file of this machine is in the image."""
    for source, name in OWN.items():
        if path.is_relative_to(ROOT / source):
            return Path(TARGET) / name / path.relative_to(ROOT / source)
    if path.is_relative_to(SITE):
        return Path(TARGET) / path.relative_to(SITE)
    return Path(TARGET).parent / path.relative_to(STDLIB)


def blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def is_own(info: Path) -> bool:
    return re.match(r"penstock[-_.]", info.name) is not None


if __name__ == "__main__":
    main()
