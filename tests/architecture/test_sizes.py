from architecture.tree import Source, all_python, qualified

FILE_LINES = 400
FUNCTION_LINES = 60
PARAMETERS = 6

# What may be longer, and why. An entry that is not needed any more fails the test.
LONG_FILES = {
    "shared/shared/db/migrations/versions/0001_pre_foundation.py": "the first schema is read in one piece, and frozen once released",
}
LONG_FUNCTIONS: dict[str, str] = {}
MANY_PARAMETERS: dict[str, str] = {}


def long_files(source: Source) -> list[str]:
    return [source.name] if len(source.lines) > FILE_LINES else []


def long_functions(source: Source) -> list[str]:
    return [
        f"{source.name}:{name}"
        for name, node, _ in qualified(source)
        if (node.end_lineno or node.lineno) - node.lineno + 1 > FUNCTION_LINES
    ]


def many_parameters(source: Source) -> list[str]:
    """Return the functions that take more than six things, self and cls apart."""
    found = []
    for name, node, is_method in qualified(source):
        if node.name.startswith("test_"):
            continue  # pytest hands these over: the fixtures it needs, the columns of its table
        arguments = node.args
        names = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
        if is_method and names[:1] in (["self"], ["cls"]):
            names = names[1:]
        names += [one.arg for one in (*arguments.kwonlyargs, arguments.vararg, arguments.kwarg) if one is not None]
        if len(names) > PARAMETERS:
            found.append(f"{source.name}:{name}")
    return found


def test_files_are_read_in_one_sitting() -> None:
    found = {name for source in all_python() for name in long_files(source)}
    assert found == set(LONG_FILES)


def test_functions_fit_on_a_screen() -> None:
    found = {name for source in all_python() for name in long_functions(source)}
    assert found == set(LONG_FUNCTIONS)


def test_functions_take_few_parameters() -> None:
    found = {name for source in all_python() for name in many_parameters(source)}
    assert found == set(MANY_PARAMETERS)


def test_the_measures_measure() -> None:
    body = "    pass\n"
    assert long_files(Source("x.py", "a = 1\n" * 400)) == []
    assert long_files(Source("x.py", "a = 1\n" * 401)) == ["x.py"]
    assert long_functions(Source("x.py", "def f():\n" + body * 59)) == []
    assert long_functions(Source("x.py", "class A:\n  async def f(self):\n" + body * 60)) == ["x.py:A.f"]
    assert many_parameters(Source("x.py", "class A:\n  def f(self, a, /, b, c, *, d, e, f): ...")) == []
    assert many_parameters(Source("x.py", "def f(a, /, b, c, *more, d, e, f): ...")) == ["x.py:f"]
    assert many_parameters(Source("x.py", "def test_f(a, b, c, d, e, f, g): ...")) == []
