"""The sources of secrets against their suite, and the encrypted store: versions, keys, crashes."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from penstock_adapters.nats.bootstrap import bootstrap
from penstock_adapters.nats.buckets.kv import Bucket
from penstock_adapters.nats.bus import Bus
from penstock_adapters.nats.server import EmbeddedServer
from penstock_adapters.secrets import stored
from penstock_adapters.secrets.environment import EnvironmentSecrets
from penstock_adapters.secrets.folder import FolderSecrets
from penstock_adapters.secrets.keys import GivenKeys, KeyFile
from penstock_adapters.secrets.resolver import Secrets
from penstock_adapters.secrets.stored import StoredSecrets
from penstock_contracts import subjects
from penstock_core.errors import InvalidIdError
from penstock_core.secrets import references
from penstock_core.secrets.records import (
    VERSIONS_KEPT,
    SecretError,
    SecretRefusedError,
    SecretSource,
    SecretUser,
    UnreadableSecretError,
)
from penstock_servicekit.nats_connection import connect, servers
from penstock_testkit.suites.secret_source import SecretSourceSuite

pytestmark = pytest.mark.asyncio(loop_scope="module")

TRAIN = SecretUser(project="default", pipeline="train")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("secrets")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(folder: Path) -> AsyncIterator[EmbeddedServer]:
    server = EmbeddedServer(folder / "home", fsync=False)
    await server.start()
    watch = asyncio.create_task(server.supervise())
    yield server
    await server.stop()
    await watch


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bus(server: EmbeddedServer) -> AsyncIterator[Bus]:
    broker, bus = await connect(servers(server.url), "test", asyncio.get_running_loop().create_future())
    await bootstrap(bus, pools=["default"], ack_wait=1.0)
    yield bus
    await asyncio.wait_for(broker.stop(), 30)


@pytest_asyncio.fixture(loop_scope="module")
async def store(bus: Bus, tmp_path: Path) -> AsyncIterator[StoredSecrets]:
    """An empty store with a key file of its own."""
    yield StoredSecrets(bus, tmp_path / "keys" / "secrets.keys")
    await bus.api(f"STREAM.PURGE.KV_{subjects.SECRETS_BUCKET}", {})


class TestStoredSecrets(SecretSourceSuite):
    @pytest.fixture
    def source(self, store: StoredSecrets) -> SecretSource:
        return store

    async def fill(self, source: SecretSource, name: str, value: str) -> None:
        assert isinstance(source, StoredSecrets)
        await source.put(self.project, name, value, by="user:ada", at=1.0)


class TestFolderSecrets(SecretSourceSuite):
    root: Path

    @pytest.fixture
    def source(self, tmp_path: Path) -> SecretSource:
        self.root = tmp_path / "mounted"
        return FolderSecrets(self.root)

    async def fill(self, source: SecretSource, name: str, value: str) -> None:
        (self.root / self.project).mkdir(parents=True, exist_ok=True)
        (self.root / self.project / name).write_text(f"{value}\n")


class TestEnvironmentSecrets(SecretSourceSuite):
    variables: dict[str, str]

    @pytest.fixture
    def source(self) -> SecretSource:
        return EnvironmentSecrets({"PENSTOCK_TOKEN": "the-token", "PATH": "/bin"})

    async def fill(self, source: SecretSource, name: str, value: str) -> None:
        assert isinstance(source, EnvironmentSecrets)
        source._values |= EnvironmentSecrets({f"PENSTOCK_SECRET_{name.upper()}": value})._values  # pyright: ignore[reportPrivateUsage]


async def put(store: StoredSecrets, value: str, name: str = "db", project: str = "default") -> int:
    return (await store.put(project, name, value, by="user:ada", at=1.0)).last


async def value(store: StoredSecrets, version: int, name: str = "db", project: str = "default") -> str | None:
    found = await store.value(project, name, version)
    return found.value if found is not None else None


async def test_versions_are_kept_and_the_oldest_are_removed(store: StoredSecrets, bus: Bus) -> None:
    numbers = [await put(store, f"value-{number}") for number in range(1, VERSIONS_KEPT + 3)]
    assert numbers == list(range(1, VERSIONS_KEPT + 3))
    record = await store.record("default", "db")
    assert record is not None and [one.number for one in record.versions] == numbers[2:]
    assert (await value(store, 2), await value(store, 3)) == (None, "value-3")
    assert len(await Bucket(bus, subjects.SECRETS_BUCKET).list("default.value.db.*")) == VERSIONS_KEPT


async def test_the_number_of_a_version_never_gets_another_value(store: StoredSecrets) -> None:
    await put(store, "first")
    await put(store, "second")
    assert await store.delete("default", "db", 2)
    assert await put(store, "third") == 3
    assert not await store.delete("default", "db", 2)
    await store.allow("default", "db", ["train"], [])
    assert await store.delete("default", "db")
    assert not await store.delete("default", "db")
    assert await store.record("default", "db") is None and await store.records("default") == []
    assert [await value(store, number) for number in (1, 2, 3)] == [None, None, None]
    assert await put(store, "fourth") == 4
    record = await store.record("default", "db")
    assert record is not None and record.pipelines == ()


async def test_writers_at_the_same_time_add_a_version_each(store: StoredSecrets, bus: Bus, tmp_path: Path) -> None:
    other = StoredSecrets(bus, tmp_path / "keys" / "secrets.keys")
    await put(store, "value-0")
    await asyncio.gather(*(put(one, f"value-{n}") for n, one in enumerate([store, other] * 4, 1)))
    record = await store.record("default", "db")
    assert record is not None and len(record.versions) == 9
    found = {await value(store, one.number) for one in record.versions}
    assert found == {f"value-{n}" for n in range(9)}
    assert len(await Bucket(bus, subjects.SECRETS_BUCKET).list("default.value.db.*")) == 9


async def test_what_a_killed_writer_left_is_removed_and_never_returned(store: StoredSecrets, bus: Bus) -> None:
    await put(store, "first")
    bucket = Bucket(bus, subjects.SECRETS_BUCKET)
    await bucket.put("default.value.db.2", b"of a writer that died before it wrote the record")
    assert await put(store, "third") == 3
    assert await bucket.get("default.value.db.2") is None
    assert await value(store, 3) == "third"


async def test_a_value_is_refused_under_another_name(store: StoredSecrets, bus: Bus) -> None:
    await put(store, "of another project", project="other")
    bucket = Bucket(bus, subjects.SECRETS_BUCKET)
    entry = await bucket.get("other.value.db.1")
    assert entry is not None
    await bucket.put("default.value.db.1", entry.value)
    with pytest.raises(UnreadableSecretError, match="belongs to another secret"):
        await store.value("default", "db", 1)


async def test_the_state_folder_has_no_value_and_no_key(store: StoredSecrets, folder: Path, tmp_path: Path) -> None:
    await put(store, "a-value-to-look-for")
    key = (tmp_path / "keys" / "secrets.keys").read_bytes().strip()
    assert (tmp_path / "keys" / "secrets.keys").stat().st_mode & 0o777 == 0o600
    for path in (folder / "home").rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"a-value-to-look-for" not in content and key not in content, path


async def test_a_lost_key_file_is_reported_and_not_replaced(store: StoredSecrets, bus: Bus, tmp_path: Path) -> None:
    await put(store, "first")
    path = tmp_path / "keys" / "secrets.keys"
    kept = path.read_bytes()
    path.unlink()
    for attempt in (lambda: value(store, 1), lambda: put(store, "second")):
        with pytest.raises(UnreadableSecretError, match=r"secrets\.keys"):
            await attempt()
    assert not path.exists()
    path.write_bytes(KeyFileText().other)
    with pytest.raises(UnreadableSecretError, match="with a key that is not in"):
        await value(store, 1)
    path.write_text("no key\n")
    with pytest.raises(UnreadableSecretError, match="a line that is no key"):
        await value(store, 1)
    path.write_bytes(kept)
    assert await value(store, 1) == "first"


class KeyFileText:
    other = b"MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n"


async def test_a_key_file_that_cannot_be_written_is_reported(bus: Bus, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SecretError, match="PENSTOCK_SECRETS_KEY_FILE"):
        await put(StoredSecrets(bus, tmp_path / "file" / "secrets.keys"), "value")


async def test_the_default_key_file_is_outside_of_the_state_folder(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    store = StoredSecrets(bus, None)
    assert await put(store, "first") == 1
    [file] = (tmp_path / ".config" / "penstock" / "secret-keys").glob("*.keys")
    assert await value(StoredSecrets(bus, None), 1) == "first"
    assert len(KeyFile(file).ids) == 1
    await bus.api(f"STREAM.PURGE.KV_{subjects.SECRETS_BUCKET}", {})


async def test_a_rotation_encrypts_everything_with_a_new_key(store: StoredSecrets, bus: Bus, tmp_path: Path) -> None:
    for number in range(3):
        await put(store, f"value-{number}", f"s{number}", "p")
    before = {entry.key: entry.value for entry in await Bucket(bus, subjects.SECRETS_BUCKET).list("*.value.*.*")}
    file = tmp_path / "keys" / "secrets.keys"
    old = file.read_bytes()
    done = await store.rotate()
    assert (done.new_key, done.encrypted, done.unreadable, done.dropped, len(done.keys)) == (True, 3, 0, 0, 2)
    after = {entry.key: entry.value for entry in await Bucket(bus, subjects.SECRETS_BUCKET).list("*.value.*.*")}
    assert before.keys() == after.keys() and not set(before.values()) & set(after.values())
    done = await store.rotate(drop_old=True)
    assert (done.encrypted, done.dropped, len(done.keys)) == (3, 2, 1)
    other = StoredSecrets(bus, file)
    assert [await value(other, 1, f"s{number}", "p") for number in range(3)] == ["value-0", "value-1", "value-2"]
    file.write_bytes(old)
    with pytest.raises(UnreadableSecretError):
        await value(other, 1, "s0", "p")


async def test_a_read_only_key_file_is_rotated_by_its_operator(store: StoredSecrets, tmp_path: Path) -> None:
    await put(store, "first")
    file = tmp_path / "keys" / "secrets.keys"
    file.write_bytes(KeyFileText.other + file.read_bytes())
    if os.geteuid() != 0:
        file.chmod(0o400)
        done = await store.rotate()
        assert (done.new_key, done.encrypted) == (False, 1)
    assert await value(store, 1) == "first"


async def test_keys_of_a_setting_are_rotated_by_its_operator(bus: Bus, tmp_path: Path) -> None:
    KeyFile(tmp_path / "first").create()
    first, second = (tmp_path / "first").read_text(), KeyFileText.other.decode()
    assert await put(StoredSecrets(bus, GivenKeys(first)), "first") == 1
    both = StoredSecrets(bus, GivenKeys(f"{second} {first}"))
    done = await both.rotate()
    assert (done.new_key, done.encrypted, len(done.keys)) == (False, 1, 2)
    assert await value(StoredSecrets(bus, GivenKeys(second)), 1) == "first"
    with pytest.raises(UnreadableSecretError, match="with a key that is not in PENSTOCK_SECRETS_KEY"):
        await value(StoredSecrets(bus, GivenKeys(first)), 1)
    with pytest.raises(SecretError, match="remove the old ones there"):
        await both.rotate(drop_old=True)
    with pytest.raises(UnreadableSecretError, match="a word that is no key") as caught:
        await put(StoredSecrets(bus, GivenKeys("hunter2-no-key")), "second")
    assert "hunter2" not in str(caught.value)
    await bus.api(f"STREAM.PURGE.KV_{subjects.SECRETS_BUCKET}", {})


async def test_old_keys_are_kept_while_a_value_is_unreadable(store: StoredSecrets, bus: Bus) -> None:
    await put(store, "first")
    await Bucket(bus, subjects.SECRETS_BUCKET).put("default.value.gone.1", b"encrypted elsewhere")
    assert (await store.rotate()).unreadable == 1
    with pytest.raises(SecretError, match="1 values cannot be decrypted: no key was removed"):
        await store.rotate(drop_old=True)
    assert await value(store, 1) == "first"


ROTATE = """
import asyncio, sys
from pathlib import Path
from penstock_adapters.secrets.stored import StoredSecrets
from penstock_servicekit.nats_connection import connect, servers

async def main():
    _, bus = await connect(servers(sys.argv[1]), "rotation", asyncio.get_running_loop().create_future())
    store = StoredSecrets(bus, Path(sys.argv[2]))
    print("ready", flush=True)
    while True:
        await store.rotate(drop_old=True)

asyncio.run(main())
"""


@pytest.fixture
def rotating(server: EmbeddedServer, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    arguments = [sys.executable, "-c", ROTATE, server.url, str(tmp_path / "keys" / "secrets.keys")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("turn", range(4))
async def test_a_rotation_that_is_killed_leaves_every_value_readable(
    store: StoredSecrets, rotating: subprocess.Popen[bytes], turn: int
) -> None:
    for number in range(20):
        await put(store, f"value-{number}", f"s{number}")
    assert rotating.stdout is not None
    assert await asyncio.to_thread(rotating.stdout.readline) == b"ready\n"
    await asyncio.sleep(random.Random(turn).uniform(0.0, 0.4))
    rotating.send_signal(signal.SIGKILL)
    await asyncio.to_thread(rotating.wait)
    assert [await value(store, 1, f"s{number}") for number in range(20)] == [f"value-{n}" for n in range(20)]
    assert (await store.rotate(drop_old=True)).unreadable == 0
    assert await value(store, 1, "s7") == "value-7"


async def test_a_reference_is_resolved_by_the_first_source_that_has_it(store: StoredSecrets, tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    for name in ("db", "mounted", "tiny"):
        (tmp_path / "default" / name).write_text("abc" if name == "tiny" else "of a file")
    secrets = Secrets(
        store, [EnvironmentSecrets({"PENSTOCK_SECRET_SLACK_URL": "of a variable"}), FolderSecrets(tmp_path)]
    )
    await put(store, "version 1")
    await put(store, "version 2")

    async def resolved(text: str, user: SecretUser = TRAIN) -> str:
        return (await secrets.resolve(references.parse(text), user, "run r1, step fit")).value

    assert await resolved("secret:db") == "version 2"
    assert await resolved("secret:db@1") == "version 1"
    assert await resolved("secret:mounted") == "of a file"
    assert await resolved("secret:slack-url") == await resolved("secret:slack_url") == "of a variable"
    assert [(one.name, one.source) for one in await secrets.records("default")] == [
        ("db", "store"),
        ("mounted", "files"),
        ("slack_url", "environment"),
        ("tiny", "files"),
    ]
    for text, message in [
        ("secret:nothing", "secret 'nothing' does not exist in project 'default'"),
        ("secret:db@3", "has no version 3"),
        ("secret:mounted@1", "which has no versions"),
        ("secret:tiny", "too short"),
    ]:
        with pytest.raises(SecretError, match=message):
            await resolved(text)
    with pytest.raises(SecretError, match="does not exist in project 'other'"):
        await resolved("secret:db", SecretUser(project="other", pipeline="train"))
    await store.allow("default", "db", ["eval"], [])
    with pytest.raises(SecretRefusedError, match="secret 'db' may not be used by pipeline 'train'"):
        await resolved("secret:db")


async def test_the_last_use_is_recorded_about_once_a_minute(store: StoredSecrets) -> None:
    now = [1000.0]
    secrets = Secrets(store, clock=lambda: now[0])
    await put(store, "first")
    for at, by in [(1000.0, "run r1"), (1030.0, "run r2"), (1061.0, "run r3")]:
        now[0] = at
        await secrets.resolve(references.parse("secret:db"), TRAIN, by)
    assert await store.last_uses("default") == {"db": stored.LastUse(1061.0, "run r3")}
    await store.delete("default", "db")
    assert await store.last_uses("default") == {}


async def test_names_are_checked(store: StoredSecrets) -> None:
    with pytest.raises(InvalidIdError):
        await Secrets(store).find("default", "a.b")


async def test_a_fifo_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "default").mkdir()
    os.mkfifo(tmp_path / "default" / "pipe")
    (tmp_path / "default" / "binary").write_bytes(b"\xff\xfe1234")
    (tmp_path / "default" / "folder").mkdir()
    for name, message in [("pipe", "not a regular file"), ("folder", "not a regular file"), ("binary", "not UTF-8")]:
        with pytest.raises(UnreadableSecretError, match=message):
            await FolderSecrets(tmp_path).value("default", name, 0)
