"""Sources in Git: what users write, and what must never reach `git`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_core import git_sources
from penstock_core.git_sources import GitSource, InvalidGitSourceError, choose_commit, parse, submodule_url

COMMIT = "a" * 40


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("git+https://host/team/repo", GitSource(url="https://host/team/repo")),
        ("git+https://host/team/repo.git@main", GitSource(url="https://host/team/repo.git", ref="main")),
        ("git+HTTPS://host:8443/repo@v1.2", GitSource(url="https://host:8443/repo", ref="v1.2")),
        (
            "git+https://host/repo@feature/x:train",
            GitSource(url="https://host/repo", ref="feature/x", pipeline="train"),
        ),
        (
            "git+https://host/repo@main#subdirectory=a/b:train",
            GitSource(url="https://host/repo", ref="main", path="a/b", pipeline="train"),
        ),
        ("git+https://host/repo#:train", GitSource(url="https://host/repo", pipeline="train")),
        (
            f"git+ssh://git@host/team/repo@{COMMIT}#subdirectory=a/train.py&submodules=true&lfs=true&secret=key",
            GitSource(
                url="ssh://git@host/team/repo", ref=COMMIT, path="a/train.py", submodules=True, lfs=True, secret="key"
            ),
        ),
    ],
)
def test_a_source_is_read_and_written(text: str, source: GitSource) -> None:
    assert parse(text) == source
    assert parse(str(source)) == source


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("git+https://user:word@host/repo", "store them as a secret"),
        ("git+https://token@host/repo", "store them as a secret"),
        ("git+ssh://git:word@host/repo", "contains a password"),
        ("git+ssh://-oProxyCommand=x/repo", "not the name of a host"),
        ("git+ssh://git@-oProxyCommand=x/repo", "not the name of a host"),
        ("git+ssh://-l@host/repo", "a user that is not valid"),
        ("git+ext::sh -c whoami% /repo", "expected git+https"),
        ("git+ext://sh/repo", "not the URL of a Git repository"),
        ("git+file://host/repo", "not the name of a host"),
        ("git+https://host/--upload-pack=x", "begins with '-'"),
        ("git+https://host/../repo", "'..'"),
        ("git+https://host/repo?x=1", "without a query"),
        ("git+https://host", "must be that of a repository"),
        ("git+https://host/repo@--upload-pack=x", "not the name of a branch"),
        ("git+https://host/repo@a..b", "not the name of a branch"),
        ("git+https://host/repo@a:b:c", "not the name of a pipeline"),
        ("git+https://host/repo@", "is missing"),
        ("git+https://host/repo@main:", "is missing"),
        ("git+https://host/repo@refs/heads/*", "not the name of a branch"),
        ("git+https://host/repo@main#subdirectory=../x", "not a folder or file"),
        ("git+https://host/repo@main#subdirectory=.git/hooks", "not a folder or file"),
        ("git+https://host/repo@main#subdirectory=-x", "not a folder or file"),
        ("git+https://host/repo@main#depth=3", "depth=3 is unknown"),
        ("git+https://host/repo@main#lfs=yes", "lfs=yes is unknown"),
        ("git+https://host/repo@main#secret=a/b", "not the name of a secret"),
        ("git+https://ho st/repo", "without spaces"),
        ("git+https://host/re\npo", "without spaces"),
        ("https://host/repo", "expected git+https"),
    ],
)
def test_a_hostile_or_mistaken_source_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidGitSourceError) as refused:
        parse(text)
    assert why in str(refused.value)


@given(st.text(max_size=60), st.text(max_size=30), st.text(max_size=30))
def test_whatever_is_accepted_is_no_option_and_keeps_its_meaning(rest: str, ref: str, fragment: str) -> None:
    try:
        source = parse(f"git+https://host/{rest}@{ref}#subdirectory={fragment}")
    except InvalidGitSourceError:
        return
    assert source.url.startswith("https://host/") and not source.ref.startswith("-")
    for part in (*source.url.split("/"), *source.path.split("/")):
        assert not part.startswith("-") and part != ".."
    assert (source.url + source.ref + source.path).isprintable()


def test_equal_sources_have_one_digest_and_an_experiment_has_another() -> None:
    one, two = parse("git+https://host/r@main"), parse("git+https://host/r@main#")
    assert one.digest() == two.digest() != parse("git+https://host/r@dev").digest()
    assert one.digest(published=False) != one.digest()


def test_a_tag_comes_before_a_branch_and_gives_the_commit_that_it_names() -> None:
    refs = {"HEAD": "1", "refs/heads/v1": "2", "refs/tags/v1": "3", "refs/tags/v1^{}": "4", "refs/heads/x/v2": "5"}
    assert choose_commit(refs, "v1") == "4"
    assert choose_commit(refs, "refs/heads/v1") == "2"
    assert choose_commit(refs, "") == "1"
    assert choose_commit(refs, "v2") is None


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("../lib.git", "https://host/team/lib.git"),
        ("./lib", "https://host/team/repo/lib"),
        ("git@other:team/lib.git", "ssh://git@other/team/lib.git"),
        ("https://other/lib", "https://other/lib"),
    ],
)
def test_urls_of_submodules(url: str, found: str) -> None:
    assert submodule_url("https://host/team/repo", url) == found


@pytest.mark.parametrize("url", ["ext::sh -c x", "-x", "/etc", "--upload-pack=x", "git@-x:y", "https://a:b@h/r", ""])
def test_a_hostile_url_of_a_submodule_is_refused(url: str) -> None:
    with pytest.raises(InvalidGitSourceError):
        submodule_url("https://host/team/repo", url)


def test_full_commits_only() -> None:
    assert git_sources.is_commit(COMMIT) and git_sources.is_commit("b" * 64)
    assert not git_sources.is_commit("a" * 39) and not git_sources.is_commit("main")
