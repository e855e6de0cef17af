"""Importing modules from a mapping of paths to source text, without files."""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class TreeFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds and loads what a tree of files holds; comes before everything else on `sys.meta_path`."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = dict(files)
        self._compiled: dict[str, types.CodeType] = {}
        self._roots = ("", "src/") if any(path.startswith("src/") for path in files) else ("",)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module of that name, if the tree holds it: a package, a module or a namespace package."""
        base = fullname.replace(".", "/")
        for root in self._roots:
            for place, is_package in ((f"{root}{base}/__init__.py", True), (f"{root}{base}.py", False)):
                if place in self._files:
                    spec = importlib.util.spec_from_loader(fullname, self, origin=place, is_package=is_package)
                    if spec is not None and is_package:
                        spec.submodule_search_locations = [place.rpartition("/")[0]]
                    return spec
            if any(place.startswith(f"{root}{base}/") and place.endswith(".py") for place in self._files):
                spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
                spec.submodule_search_locations = [f"{root}{base}"]
                return spec
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType | None:
        """The default module object."""
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """Run the module's source."""
        spec = module.__spec__
        assert spec is not None and spec.origin is not None
        module.__file__ = spec.origin
        exec(self.code(spec.origin), module.__dict__)

    def code(self, path: str) -> types.CodeType:
        """The compiled file; compiled once."""
        if path not in self._compiled:
            self._compiled[path] = compile(self._files[path], path, "exec", dont_inherit=True)
        return self._compiled[path]

    def get_source(self, fullname: str) -> str | None:
        """For tracebacks."""
        spec = self.find_spec(fullname)
        return self._files.get(spec.origin) if spec is not None and spec.origin is not None else None


def module_name(path: str) -> str:
    """The dotted name that `path` is imported by."""
    stem = path.removesuffix(".py").removesuffix("/__init__").removeprefix("src/")
    return stem.replace("/", ".")


def load(finder: TreeFinder, path: str) -> types.ModuleType:
    """Import the module at `path` of the tree; anything that its code raises comes through."""
    name = module_name(path)
    sys.meta_path.insert(0, finder)
    if name.isidentifier():
        # By hand: the import machinery would touch pages that the fork shares, a third of the cost of a small check.
        module = types.ModuleType(name)
        module.__file__ = path
        module.__spec__ = importlib.machinery.ModuleSpec(name, finder, origin=path)
        sys.modules[name] = module
        exec(finder.code(path), module.__dict__)
        return module
    if all(part.isidentifier() for part in name.split(".")):
        top = name.partition(".")[0]
        for loaded in [known for known in sys.modules if known == top or known.startswith(f"{top}.")]:
            del sys.modules[loaded]  # the tree's own module wins over one of the standard library
        return importlib.import_module(name)
    module = types.ModuleType("solution")
    module.__file__ = path
    sys.modules["solution"] = module
    exec(finder.code(path), module.__dict__)
    return module
