"""The house: floors, rooms of one floor that never meet, no cycles, and rooms that are not too large.

Imports are read from the source with `ast`: those inside functions and under TYPE_CHECKING count like any other.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parents[1]

FLOORS = (
    ('dsl',),
    ('controller', 'optimizers'),
    ('tasks',),
    ('evaluation', 'store'),
    ('search', 'compare'),
    ('report',),
    ('nos_tf', 'cli', 'launch'),  # the roof
)
STRANGERS = ({'controller', 'tasks'}, {'controller', 'evaluation'}, {'controller', 'store'})
NEIGHBOURS = {
    ('search', 'compare'),  # on one floor: the search compares its best rules with known ones
    ('cli', 'nos_tf'),
    ('launch', 'cli'),
    ('launch', 'nos_tf'),
}
UPSTAIRS = {('nos_tf.search.search', 'nos_tf.report.report')}  # `Search.report()` draws, when it is asked to
GROUND = {f'nos_tf.{name}' for name in ('config', 'errors', 'files', 'output', 'renamed', 'version')}
ROOF = {'nos_tf', 'nos_tf.__main__'}  # nos_tf/__init__.py and nos_tf/__main__.py
FOREIGN_TO_DSL = {'tensorflow', 'keras', 'tf_keras', 'tensorflow_probability', 'tensorflow_datasets', 'gin'}

NOT_IN_PYTHON_3_10 = {
    *('LiteralString', 'Never', 'NotRequired', 'Required', 'Self', 'TypeVarTuple', 'Unpack', 'assert_never'),
    *('assert_type', 'dataclass_transform', 'override', 'reveal_type', 'ReadOnly', 'TypeAliasType', 'TypeIs'),
}

FILES, INNER_FLOORS = 12, 5  # of a room, at most
TOO_LARGE = {'dsl': (13, 7), 'report': (14, 5)}  # rooms that are still to be rebuilt: files, floors
FEW_LINES = 36  # a file of so few that only one other reads belongs into that one

LEVEL = {room: level for level, rooms in enumerate(FLOORS, start=1) for room in rooms}


class Import(NamedTuple):
    """`module` (the one whose source it is) imports `target`, in `line`."""

    module: str
    target: str
    line: int

    def __str__(self) -> str:
        return f'{self.module}, line {self.line}: imports {self.target}'


def find_modules(root: Path) -> dict[str, Path]:
    """Dotted name -> file, of everything under nos_tf/ and launch/; a package has the name of its folder."""
    found = {}
    for path in sorted([*root.glob('nos_tf/**/*.py'), *root.glob('launch/**/*.py')]):
        parts = path.relative_to(root).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


def read_imports(module: str, path: Path, ours: Mapping[str, Path]) -> Iterator[Import]:
    """Every import in one file; `from package import name` leads to `package.name` if that is a module of ours."""
    package = module.split('.') if path.name == '__init__.py' else module.split('.')[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'), str(path))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(module, alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            parents = package[: len(package) - node.level + 1] if node.level else []
            source = '.'.join([*parents, *filter(None, [node.module])])
            for alias in node.names:
                name = f'{source}.{alias.name}'
                yield Import(module, name if name in ours else source, node.lineno)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith('import_module') and node.args:
            yield Import(module, ast.unparse(node.args[0]).strip('\'"'), node.lineno)


def all_imports(root: Path) -> list[Import]:
    """The imports of every module of the house; scripts of launch/ name their neighbours without the folder."""
    ours = find_modules(root)
    imports = [found for module, path in ours.items() for found in read_imports(module, path, ours)]
    neighbours = [f'launch.{i.target}' if i.module.startswith('launch.') else '' for i in imports]
    return [
        i._replace(target=neighbour) if neighbour in ours else i
        for i, neighbour in zip(imports, neighbours, strict=True)
    ]


def room_of(module: str) -> str:
    """nos_tf.dsl.rule -> dsl; the roof is `nos_tf` and `launch`; a module that has no place keeps its whole name."""
    if module in ROOF:
        return 'nos_tf'
    top, *rest = module.split('.')
    return 'launch' if top == 'launch' else rest[0] if rest and rest[0] in LEVEL else module


def may_import(room: str, other: str) -> bool:
    """Whether a module of `room` may import one of `other`; nothing may that has no place in the house."""
    if room == other or (room, other) in NEIGHBOURS:
        return room in LEVEL
    return LEVEL.get(other, len(FLOORS)) < LEVEL.get(room, 0) and {room, other} not in STRANGERS


def homeless(root: Path) -> list[str]:
    """Modules that stand on no floor."""
    return [module for module in find_modules(root) if module not in GROUND and room_of(module) not in LEVEL]


def forbidden_imports(root: Path) -> list[str]:
    """Imports between our own modules that go up, across, or out of the ground."""
    return [
        str(found)
        for found in all_imports(root)
        if found.target.split('.')[0] in {'nos_tf', 'launch'} and found.target not in GROUND
        if not may_import(room_of(found.module), room_of(found.target)) and found[:2] not in UPSTAIRS
    ]


def foreign_imports(root: Path) -> list[str]:
    """Imports in dsl/ of a framework: the language is plain Python."""
    return [
        str(found)
        for found in all_imports(root)
        if room_of(found.module) == 'dsl' and found.target.split('.')[0] in FOREIGN_TO_DSL
    ]


def import_cycle(root: Path) -> list[str]:
    """The modules of one cycle, the first of them again at the end; empty if there is none."""
    graph: dict[str, set[str]] = {module: set() for module in find_modules(root)}
    for module, target, _ in all_imports(root):
        if target in graph:
            graph[module].add(target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def sizes(root: Path) -> dict[str, tuple[int, int]]:
    """Folder within nos_tf/ -> its files, and the length of the longest chain of imports among them."""
    graph: dict[str, set[str]] = {module: set() for module in find_modules(root)}
    for module, target, _ in all_imports(root):
        if target in graph and target != module:
            graph[module].add(target)
    folders: dict[str, dict[str, int]] = {}
    for module in TopologicalSorter(graph).static_order():
        folder, _, _ = module.removeprefix('nos_tf.').rpartition('.')
        if folder and module.startswith('nos_tf.') and find_modules(root)[module].name != '__init__.py':
            below = folders.setdefault(folder, {})
            below[module] = 1 + max((below.get(other, 0) for other in graph[module]), default=0)
    return {folder: (len(below), max(below.values())) for folder, below in folders.items()}


def too_large(root: Path) -> dict[str, tuple[int, int]]:
    """Rooms of too many files or floors."""
    return {room: size for room, size in sizes(root).items() if size[0] > FILES or size[1] > INNER_FLOORS}


def too_small(root: Path) -> list[str]:
    """Modules of a few lines that only one other reads."""
    readers: dict[str, set[str]] = {}
    for module, target, _ in all_imports(root):
        readers.setdefault(target, set()).add(module)
    return [
        module
        for module, path in find_modules(root).items()
        if path.name != '__init__.py' and module.count('.') > 1
        if len(path.read_text(encoding='utf-8').splitlines()) <= FEW_LINES
        if len(found := readers.get(module, set())) == 1
        and not any(reader.startswith(('launch', 'nos_tf.cli')) for reader in found)
    ]


def untested(root: Path) -> list[str]:
    """Modules of nos_tf/ that no test imports or names."""
    ours, named = find_modules(root), set()
    for path in root.glob('tests/**/*.py'):
        named |= {found.target for found in read_imports('tests', path, ours)}
        named |= set(re.findall(r'nos_tf(?:\.\w+)+', path.read_text(encoding='utf-8').replace('/', '.')))
    return [
        module
        for module, path in ours.items()
        if module.startswith('nos_tf.') and path.name != '__init__.py' and module not in {*ROOF, 'nos_tf.version'}
        if not any(name == module or name.startswith(f'{module}.') for name in named)
    ]


def too_new_imports(root: Path) -> list[str]:
    """Names from `typing` that the oldest Python of setup.py lacks: there, their modules cannot be imported."""
    return [
        f'{module}, line {node.lineno}: imports {alias.name}'
        for module, path in find_modules(root).items()
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'), str(path)))
        if isinstance(node, ast.ImportFrom) and node.module == 'typing'
        for alias in node.names
        if alias.name in NOT_IN_PYTHON_3_10
    ]


def not_gin(root: Path) -> list[str]:
    """Files of gin/ that are no configuration: an __init__.py there would hide the gin library."""
    return [str(path.relative_to(root)) for path in root.glob('gin/**/*') if path.is_file() and path.suffix != '.gin']


def test_at_most_six_floors_and_a_roof_and_every_module_stands_on_one() -> None:
    assert len(FLOORS) <= 7
    assert find_modules(ROOT), f'no module under {ROOT}'
    assert homeless(ROOT) == []


def test_imports_go_down_and_the_towers_never_meet() -> None:
    assert forbidden_imports(ROOT) == []


def test_the_language_needs_no_framework() -> None:
    assert foreign_imports(ROOT) == []


def test_no_import_cycle() -> None:
    assert import_cycle(ROOT) == []


def test_rooms_are_not_too_large() -> None:
    assert too_large(ROOT) == TOO_LARGE


def test_no_module_is_too_small() -> None:
    assert too_small(ROOT) == []


def test_every_module_is_tested() -> None:
    assert untested(ROOT) == []


def test_tasks_and_children_know_no_images() -> None:
    for name in ('task', 'child', 'sweep'):
        text = (ROOT / f'nos_tf/tasks/{name}.py').read_text(encoding='utf-8')
        assert not re.findall(r'(?i)\b(?:images?|pixels?|convnet|classes|accurac\w*)\b', text)


def test_the_oldest_python_has_what_is_imported() -> None:
    assert too_new_imports(ROOT) == []


def test_the_gin_folder_holds_configurations_only() -> None:
    assert not_gin(ROOT) == []


# The checker itself: a sound house passes, and each fault of a fabricated one is found.

SOUND = {
    'nos_tf/__init__.py': 'from nos_tf.search.search import Search',
    'nos_tf/version.py': '',
    'nos_tf/dsl/__init__.py': '',
    'nos_tf/dsl/rule.py': 'import numpy\nfrom nos_tf.version import __version__',
    'nos_tf/dsl/space.py': 'from nos_tf.dsl import rule',
    'nos_tf/controller/policy.py': 'import tensorflow\nfrom ..dsl.space import SearchSpace',
    'nos_tf/optimizers/semantics.py': 'from nos_tf.dsl.rule import UpdateRule',
    'nos_tf/tasks/child.py': 'from nos_tf.optimizers import semantics',
    'nos_tf/search/search.py': 'from nos_tf.controller.policy import Policy\nimport nos_tf.tasks.child',
    'launch/commandline.py': '',
    'launch/search.py': 'import nos_tf\nfrom nos_tf.search import search\nfrom commandline import run',
    'gin/search.gin': '',
}


def build(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding='utf-8')
    return root


def test_checker_accepts_a_sound_house(tmp_path: Path) -> None:
    root = build(tmp_path, SOUND)
    assert len(find_modules(root)) == len(SOUND) - 1
    assert len(all_imports(root)) == 13
    assert [homeless(root), forbidden_imports(root), foreign_imports(root), import_cycle(root), not_gin(root)] == [
        []
    ] * 5


@pytest.mark.parametrize(
    'name, text, fault',
    [
        ('nos_tf/dsl/a.py', 'from nos_tf.controller.policy import Policy', 'nos_tf.controller.policy'),
        ('nos_tf/tasks/a.py', 'x = 1\ndef f():\n    import nos_tf.search.search', 'nos_tf.search.search'),
        ('nos_tf/tasks/a.py', 'from importlib import import_module\nimport_module("nos_tf.search")', 'nos_tf.search'),
        ('nos_tf/controller/a.py', 'from ..optimizers.semantics import f', 'nos_tf.optimizers.semantics'),
        ('nos_tf/controller/a.py', 'from nos_tf.tasks import child', 'nos_tf.tasks.child'),
        ('nos_tf/optimizers/a.py', 'from nos_tf import controller', 'nos_tf'),
        ('nos_tf/optimizers/a.py', 'from nos_tf.controller import policy', 'nos_tf.controller.policy'),
        ('nos_tf/tasks/a.py', 'from nos_tf.controller import policy', 'nos_tf.controller.policy'),
        ('nos_tf/search/a.py', 'from nos_tf import UpdateRule', 'nos_tf'),
        ('nos_tf/compare/a.py', 'from nos_tf.search import search', 'nos_tf.search.search'),
        ('nos_tf/store/a.py', 'import nos_tf.evaluation.jobs', 'nos_tf.evaluation.jobs'),
        ('nos_tf/__main__.py', 'import launch.search', 'launch.search'),
        ('nos_tf/version.py', 'from nos_tf.dsl import rule', 'nos_tf.dsl.rule'),
        ('nos_tf/utils.py', 'from nos_tf.dsl import rule', 'nos_tf.dsl.rule'),
    ],
)
def test_checker_finds_a_forbidden_import(tmp_path: Path, name: str, text: str, fault: str) -> None:
    found = forbidden_imports(build(tmp_path, SOUND | {name: text}))
    module = name.removesuffix('.py').replace('/', '.')
    line = text.count('\n') + 1
    assert found == [f'{module}, line {line}: imports {fault}']


@pytest.mark.parametrize('text', ['import tensorflow as tf', 'from keras import ops', 'def f():\n    import gin'])
def test_checker_finds_a_framework_in_the_language(tmp_path: Path, text: str) -> None:
    assert len(foreign_imports(build(tmp_path, SOUND | {'nos_tf/dsl/a.py': text}))) == 1


def test_checker_finds_a_cycle(tmp_path: Path) -> None:
    root = build(tmp_path, SOUND | {'nos_tf/dsl/rule.py': 'def f():\n    from nos_tf.dsl.space import SearchSpace'})
    assert set(import_cycle(root)) == {'nos_tf.dsl.rule', 'nos_tf.dsl.space'}
    assert forbidden_imports(root) == []


def test_checker_finds_a_cycle_of_scripts(tmp_path: Path) -> None:
    root = build(tmp_path, SOUND | {'launch/commandline.py': 'import search'})
    assert set(import_cycle(root)) == {'launch.commandline', 'launch.search'}


def test_checker_finds_a_module_without_a_floor(tmp_path: Path) -> None:
    root = build(tmp_path, SOUND | {'nos_tf/utils.py': '', 'nos_tf/extras/a.py': ''})
    assert homeless(root) == ['nos_tf.extras.a', 'nos_tf.utils']


def test_checker_finds_a_name_that_the_oldest_python_lacks(tmp_path: Path) -> None:
    root = build(tmp_path, SOUND | {'nos_tf/tasks/child.py': 'from typing import (\n    Any,\n    Self,\n)'})
    assert too_new_imports(root) == ['nos_tf.tasks.child, line 1: imports Self']


def test_checker_finds_a_module_without_a_test_and_a_stranger_in_gin(tmp_path: Path) -> None:
    tests = {'tests/a.py': 'import nos_tf.dsl.rule\nfrom nos_tf.dsl import space\nfrom nos_tf.tasks.child import x'}
    root = build(tmp_path, SOUND | tests | {'gin/__init__.py': ''})
    assert untested(root) == ['nos_tf.controller.policy', 'nos_tf.optimizers.semantics', 'nos_tf.search.search']
    assert not_gin(root) == ['gin/__init__.py']


def test_checker_finds_rooms_that_are_too_large(tmp_path: Path) -> None:
    chain = {f'nos_tf/dsl/m{i}.py': f'import nos_tf.dsl.m{i - 1}' if i else '' for i in range(6)}
    many = {f'nos_tf/tasks/sub/m{i}.py': '' for i in range(13)}
    assert too_large(build(tmp_path, SOUND | chain | many)) == {'dsl': (8, 6), 'tasks.sub': (13, 1)}


def test_checker_finds_a_module_that_is_too_small(tmp_path: Path) -> None:
    long = {'nos_tf/dsl/rule.py': '\n' * 40, 'nos_tf/dsl/space.py': 'from nos_tf.dsl import rule' + '\n' * 40}
    found = too_small(build(tmp_path, SOUND | long))
    assert found == ['nos_tf.controller.policy', 'nos_tf.optimizers.semantics', 'nos_tf.tasks.child']
