"""Compile errors of pipelines have the user's file, line and names.

Each case is a module of a user; the line that the error must name ends with `# here`.
"""

from __future__ import annotations

import pytest
from sdk_user_modules import UserModules

from penstock import DefinitionError

CALLS = [
    ("train([1], depth='deep')", "input 'depth' of step 'train' takes int, but 'deep' (str) is not int"),
    ("train(3)", "input 'data' of step 'train' takes list[int], but 3 (int) is not list[int]"),
    ("train(['a'])", "item 0: 'a' (str) is not int"),
    ("train([1], depht=3)", "step 'train' has no input 'depht' (its inputs: data, depth)"),
    ("train(depth=3)", "step 'train' requires input 'data' (list[int])"),
    ("train([1], 2, 3)", "step 'train' takes 2 inputs, but 3 were given"),
    ("train([1], data=[2])", "input 'data' of step 'train' is given twice"),
    ("train(load())", "input 'data' of step 'train' takes list[int], but the result of step 'load' is str"),
    ("split(n)", "input 'text' of step 'split' takes str, but parameter 'n' is int"),
    ("train(split('a'))", "was given the outputs (train, test) of step 'split': pass one of them, such as .train"),
    ("train(split('a').tran)", "step 'split' has no output 'tran' (its outputs: train, test)"),
    ("pick([load()])", "input 'scores' of step 'pick', item 0 takes float, but the result of step 'load' is str"),
    ("pick([train([1]), 'x'])", "item 1 takes float, but 'x' (str) is not float"),
    ("pick([], names={'a': load()})", "key 'a' takes float"),
    ("pick([], names={1: train([1])})", "keys of a dictionary of references must be strings, not 1"),
    ("pick({train([1])})", "it cannot be a key of a dictionary, or an element of a set"),
    ("pick({'a': train([1])})", "takes list[float], but was given a dict of references"),
    ("train([1], depth=object)", "is not int"),
    ("loose(object())", "cannot be stored in the pipeline definition: a object cannot be stored as JSON"),
    ("loose(lambda: 1)", "cannot be stored in the pipeline definition"),
    ("loose('x' * 70_000)", "larger than 64 KiB"),
    ("train([1]).after(3)", ".after() takes what steps of this pipeline return, not 3"),
    ("n.after(load())", "parameter 'n' is not a result of a step"),
]


@pytest.mark.parametrize(("call", "says"), CALLS)
def test_invalid_calls(user: UserModules, call: str, says: str) -> None:
    message = user.refused(f"""
        @pipeline
        def wrong(n: int = 1):
            {call}  # here
    """)
    assert says in message


USES = [
    "result + 1",
    "1 + result",
    "-result",
    "for _ in result: pass",
    "[*result]",
    "a, b = result",
    "len(result)",
    "result[0]",
    "str(result)",
    "f'{result}'",
    "print(result)",
    "'%s' % result",
    "int(result)",
    "float(result)",
    "range(result)",
    "result.accuracy",
    "result()",
    "1 in result",
    "result[0] = 1",
    "open(result)",
    "sum([result])",
]


@pytest.mark.parametrize("value", ["load()", "n"])
@pytest.mark.parametrize("use", USES)
def test_a_reference_is_not_a_value(user: UserModules, use: str, value: str) -> None:
    message = user.refused(f"""
        @pipeline
        def wrong(n: str = ""):
            result = {value}
            {use}  # here
    """)
    assert "has no value yet while the pipeline is compiled" in message
    assert "inside the step" in message
    assert ("parameter 'n'" if value == "n" else "step 'load'") in message


MODULES = [
    ("@step(timeout='soon')  # here\ndef a(): ...", "timeout must be a duration such as '10m'"),
    ("@step(timeout=0)  # here\ndef a(): ...", "timeout must be a duration"),
    ("@step(timeout=True)  # here\ndef a(): ...", "timeout must be a duration"),
    ("@step(retries=-1)  # here\ndef a(): ...", "retries must be a whole number"),
    ("@step(retries=1.5)  # here\ndef a(): ...", "retries must be a whole number"),
    ("@step(retry_delay='1 year')  # here\ndef a(): ...", "retry_delay must be a duration"),
    ("@step(backoff=0.5)  # here\ndef a(): ...", "backoff must be a number of at least 1"),
    ("@step(retry_on=3)  # here\ndef a(): ...", "retry_on takes exception types"),
    ("@step(cache='yes')  # here\ndef a(): ...", 'cache must be True, False or Cache(ttl="7d")'),
    ("@step(resources={'cpu': 1})  # here\ndef a(): ...", "resources must be Resources("),
    ("@step(resources=Resources(memory='2 gigs'))  # here\ndef a(): ...", "memory must be a size such as '2Gi'"),
    ("@step(resources=Resources(cpu=0))  # here\ndef a(): ...", "cpu must be a number of cores"),
    ("@step(resources=Resources(gpu=0.5))  # here\ndef a(): ...", "gpu must be a whole number"),
    ("@step(resources=Resources(memory_growth=2))  # here\ndef a(): ...", "memory_growth requires memory"),
    ("@step(resources=Resources(memory=1, memory_growth=0.5))  # here\ndef a(): ...", "memory_growth must be a number"),
    ("@step(cache=Cache(ttl='soon'))  # here\ndef a(): ...", "ttl of Cache must be a duration"),
    ("@step(cache=Cache(salt=3))  # here\ndef a(): ...", "salt of Cache must be a string, not 3 (int)"),
    ("@step(max_retry_delay='x')  # here\ndef a(): ...", "max_retry_delay must be a duration"),
    ("@step(retry_jitter=2)  # here\ndef a(): ...", "retry_jitter must be a number of at least 0 and at most 1"),
    ("@step(concurrency='gpu:')  # here\ndef a(): ...", "such as 'gpu' or 'gpu:2' for two at a time, not 'gpu:'"),
    ("@step(concurrency='gpu:0')  # here\ndef a(): ...", "'gpu:2' for two at a time"),
    ("@step(concurrency='a b:2')  # here\ndef a(): ...", "concurrency 'a b' is not valid"),
    ("@step(concurrency=3)  # here\ndef a(): ...", "concurrency must be a string, not 3 (int)"),
    ("@step(trigger_rule='all')  # here\ndef a(): ...", "trigger_rule must be one of 'all_succeeded', 'all_done'"),
    ("@step(window=1.5)  # here\ndef a(): ...", "window must be a whole number from 1 to 10000"),
    ("@pipeline(deadline='later')  # here\ndef a(): ...", "deadline must be a duration"),
    ("@pipeline(max_active_runs=0)  # here\ndef a(): ...", "max_active_runs must be a whole number from 1"),
    ("@pipeline(overlap='drop')  # here\ndef a(): ...", "overlap must be one of 'queue', 'skip', 'cancel_previous'"),
    ("@pipeline(overlap='skip')  # here\ndef a(): ...", "overlap='skip' requires max_active_runs"),
    (
        "@pipeline(dead_line='1h')  # here\ndef a(): ...",
        "no option 'dead_line': did you mean 'deadline'?",
    ),
    ("@step(pool='a b')  # here\ndef a(): ...", "pool 'a b' is not valid"),
    ("@step(name='a.b')  # here\ndef a(): ...", "step name 'a.b' is not valid"),
    ("@step(priority='high')  # here\ndef a(): ...", "priority must be a whole number"),
    ("@step(secrets='key')  # here\ndef a(): ...", "secrets must be a list of names, or a dictionary"),
    ("@step(env={'A': 1})  # here\ndef a(): ...", "env must map names of variables to strings"),
    ("@step(retrys=2)  # here\ndef a(): ...", "@step has no option 'retrys': did you mean 'retries'?"),
    ("a = step(3)  # here", "@step takes a function, not 3 (int)"),
    ("a = step(lambda: 1)  # here", "a lambda cannot be a step"),
    ("@step\n@step  \ndef a(): ...".replace("@step\n", "@step  # here\n", 1), "is already a step"),
    ("@pipeline(name='x/y')  # here\ndef a(): ...", "pipeline name 'x/y' is not valid"),
    ("@pipeline  # here\nasync def a(): ...", "must be a plain function"),
    ("a = pipeline(3)  # here", "@pipeline takes a function"),
]


@pytest.mark.parametrize(("body", "says"), MODULES)
def test_invalid_definitions(user: UserModules, body: str, says: str) -> None:
    assert says in user.refused(body + "\n")


STEPS = [
    ("@step  # here\ndef a() -> list[int]:\n    yield 1", "a()", "uses yield, but is declared to return list[int]"),
    ("@step  # here\ndef a(*args: int): ...", "a(1)", "takes *args"),
    ("@step  # here\ndef a(**options: int): ...", "a(x=1)", "takes **options"),
    ("@step  # here\ndef a(x: int, /): ...", "a(1)", "positional-only parameter 'x'"),
    ("@step  # here\ndef a(x: int = 'one'): ...", "a()", "default of input 'x' of step 'a' does not fit its hint int"),
    ("@step  # here\ndef a(x: int = None): ...", "a()", "None is not int"),
    ("@step  # here\ndef a(x: Nothing): ...", "a(1)", "a type hint of step 'a' cannot be read"),
    ("def make():\n    @step  # here\n    def a(): ...\n    return a\na = make()", "a()", "defined inside a function"),
]


@pytest.mark.parametrize(("definition", "call", "says"), STEPS)
def test_invalid_steps(user: UserModules, definition: str, call: str, says: str) -> None:
    message = user.refused(f"{definition}\n\n@pipeline\ndef wrong():\n    {call}\n")
    assert says in message
    assert "'a'" in message


# Errors of a whole pipeline are reported at the line of its decorator.
WHOLE = [
    ("def p(n: int = 'x'):\n    load()", "default of parameter 'n' of pipeline 'p' does not fit its hint int"),
    ("def p(n=object()):\n    load()", "must be plain data (it is sent as JSON)"),
    ("def p(*n):\n    load()", "pipeline 'p' takes *n"),
    ("def p():\n    return 3", "pipeline 'p' returns 3 (int)"),
    ("def p() -> int:\n    return load()", "takes int, but the result of step 'load' is str"),
    ("def p() -> int:\n    load()", "declared to return int, but returns nothing"),
    ("def p():\n    return {1: load()}", "keys of a dictionary of references must be strings"),
    ("def p() -> Parts:\n    return Parts(load(), load())", "field 'train' takes list[int]"),
]


@pytest.mark.parametrize(("function", "says"), WHOLE)
def test_invalid_pipelines(user: UserModules, function: str, says: str) -> None:
    assert says in user.refused(f"@pipeline  # here\n{function}\n")


BODIES = [
    ("p()  # here", "pipeline 'p' calls itself: p -> p"),
    (
        "other.local()  # here",
        "cannot be compiled inside the body of another pipeline: call it instead, as in other(",
    ),
    ("{}['key']  # here", "pipeline 'p' raised KeyError while it was compiled: 'key'"),
    ("a = load()  # here\n    b = split(a)\n    a.after(b)", "in a cycle: load <- split <- load"),
    ("a = load()  # here\n    a.after(a)", "in a cycle: load <- load"),
    ("split(kept[0])  # here", "belongs to another pipeline or to an earlier compilation"),
    ("load().after(kept[0])  # here", ".after() takes what steps of this pipeline return"),
]


@pytest.mark.parametrize(("body", "says"), BODIES)
def test_invalid_bodies(user: UserModules, body: str, says: str) -> None:
    message = user.refused(f"""\
@pipeline
def p():
    {body}

kept = []

@pipeline
def other():
    kept.append(load())

other.compile()
""")
    assert says in message


INNER = """\
class Found(NamedTuple):
    scores: list[float]
    best: float

@pipeline
def inner(data: list[int], depth: int = 3, kind: Literal["a", "b"] = "a") -> Found:
    score = train(data, depth)
    return Found([score], pick([score]))

@pipeline
def as_dict(data: list[int]):
    return {"score": train(data)}

@pipeline
def as_list(data: list[int]):
    return [train(data)]

@pipeline
def empty(data):
    return data

"""
INNER_CALLS = [
    ("inner()", "pipeline 'inner' requires parameter 'data' (list[int])"),
    ("inner([1], deep=2)", "pipeline 'inner' has no parameter 'deep' (its parameters: data, depth, kind)"),
    ("inner([1], data=[2])", "parameter 'data' of pipeline 'inner' is given twice"),
    ("inner([1], 2, 'a', 4)", "pipeline 'inner' takes 3 parameters, but 4 were given"),
    ("inner([1], depth='x')", "parameter 'depth' of pipeline 'inner' takes int, but 'x' (str) is not int"),
    ("inner([1], kind='c')", "'c' (str) is not one of 'a', 'b'"),
    ("inner(load())", "parameter 'data' of pipeline 'inner' takes list[int], but the result of step 'load' is str"),
    ("inner([1], object())", "parameter 'depth' of pipeline 'inner' takes int"),
    ("loose(inner([1]).worst)", "pipeline 'inner' has no output 'worst' (its outputs: scores, best)"),
    ("split(inner([1]).best)", "takes str, but output 'best' of pipeline 'inner' is float"),
    ("pick(inner([1]).scores).after(3)", ".after() takes what steps of this pipeline return, not 3"),
    ("loose(as_dict([1]).other)", "pipeline 'as_dict' has no output 'other' (its outputs: score)"),
    ("loose(as_dict([1])['other'])", "pipeline 'as_dict' has no output 'other'"),
    ("split(as_dict([1]).score)", "takes str, but output 'score' of pipeline 'as_dict' is float"),
    ("split(as_list([1]))", "takes str, but was given a list of references"),
    ("bool(inner([1]).best)", "output 'best' of pipeline 'inner' has no value yet"),
    ("empty([1]).after(load())", "pipeline 'empty' calls no step, so .after() has no effect"),
    ("load().after(empty([1]))", "pipeline 'empty' calls no step"),
]


@pytest.mark.parametrize(("call", "says"), INNER_CALLS)
def test_invalid_calls_of_pipelines(user: UserModules, call: str, says: str) -> None:
    message = user.refused(f"@pipeline\ndef outer():\n    {call}  # here\n\n{INNER}")
    assert says in message


INSIDE = [
    ("@pipeline\ndef inner():\n    split(3)  # here", "input 'text' of step 'inner/split' takes str"),
    ("@pipeline\ndef inner():\n    [][0]  # here", "pipeline 'inner' raised IndexError"),
    ("@pipeline  # here\ndef inner():\n    return 3", "pipeline 'inner' returns 3 (int)"),
    ("@pipeline  # here\ndef inner() -> int:\n    return load()", "takes int, but the result of step 'inner/load'"),
    ("@pipeline  # here\ndef inner(x=object()):\n    load()", "default of parameter 'x' of pipeline 'inner' must be"),
    ("@pipeline\ndef inner():\n    third()\n@pipeline\ndef third():\n    inner()  # here", "inner -> third -> inner"),
    ("@pipeline\ndef inner():\n    third()\n@pipeline\ndef third():\n    outer()  # here", "outer -> inner -> third"),
]


@pytest.mark.parametrize(("inner", "says"), INSIDE)
def test_invalid_inner_pipelines(user: UserModules, inner: str, says: str) -> None:
    assert says in user.refused(f"@pipeline\ndef outer():\n    inner()\n\n{inner}\n")


def test_a_limit_has_one_size(user: UserModules) -> None:
    message = user.refused("""
        @step(concurrency="gpu:2")
        def a(): ...

        @step(concurrency="gpu")
        def b(): ...

        @step(concurrency="gpu:3")  # here
        def c(): ...

        @pipeline
        def p():
            a(), b(), c()
    """)
    assert message == "step 'c' has concurrency 'gpu:3', but step 'a' has 'gpu:2': one limit has one size"


def test_a_step_of_the_main_script_is_rejected(user: UserModules, monkeypatch: pytest.MonkeyPatch) -> None:
    module = user.load("""
        @step
        def a(): ...

        @pipeline
        def p():
            a()
    """)
    module.a.function.__module__ = "__main__"
    with pytest.raises(DefinitionError, match=r"step 'a' cannot be imported .* 'penstock run FILE'"):
        module.p.compile()


def test_a_replaced_name_is_rejected_with_a_reason(user: UserModules) -> None:
    message = user.refused("""
        def count(function):
            return functools.wraps(function)(lambda *args: function(*args))

        @step  # here
        def a(): ...
        steps = [a]
        a = count(a.function)

        @pipeline
        def p():
            steps[0]()
    """)
    assert "put @step on top of other decorators" in message
