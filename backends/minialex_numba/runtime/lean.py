"""Leaves out stages of Numba's compiler that kernels do not need and that take longer than all the rest.

A function that kernels call (`minialex_numba.runtime.jit.part`) becomes a library of LLVM IR and nothing else: it is
optimised and compiled to machine code as part of a kernel, not by itself first. A kernel's functions are optimised
once, together with those, not one by one first.
"""

# mypy: disable-error-code="no-untyped-call"
from __future__ import annotations

from typing import Any

from numba.core import config, typed_passes
from numba.core.codegen import JITCodeLibrary
from numba.core.compiler import CompilerBase, DefaultPassBuilder
from numba.core.compiler_machinery import register_pass
from numba.core.lowering import Lower

from minialex_numba.runtime.packed import Lower as Entry

OPTIMISATION = 2
"""LLVM's level: 3, Numba's own, takes a twelfth longer to compile a step's kernels, which are then no faster."""


class KernelLibrary(JITCodeLibrary):
    """A kernel: the module is optimised as a whole, once."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        made = self._codegen._module_pass_manager(opt=min(int(config.OPT), OPTIMISATION))
        passes, *builder = made if isinstance(made, tuple) else (made,)  # a pair since Numba 0.62
        passes.run(self._final_module, *builder)


class PartLibrary(KernelLibrary):
    """A part that kernels link in; it has no machine code of its own, and Python cannot call it."""

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        self._finalize_dynamic_globals()
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        return 0

    @property
    def codegen(self) -> Any:  # gets the address of an environment, which only a kernel has
        return self

    def set_env(self, name: str, env: Any) -> None:
        """Do nothing: see `codegen`."""


def _compiler(library: type[JITCodeLibrary], lower: type[Lower]) -> type[CompilerBase]:
    @register_pass(mutates_CFG=True, analysis_only=False)
    class Lowering(typed_passes.NativeLowering):
        @property
        def lowering_class(self) -> type[Lower]:
            return lower

        def run_pass(self, state: Any) -> bool:
            if state.library is None:
                state.library = library(state.targetctx.codegen(), state.func_id.func_qualname)
                state.library.enable_object_caching()
            return bool(super().run_pass(state))

    class Compiler(CompilerBase):
        def define_pipelines(self) -> list[Any]:
            passes = DefaultPassBuilder.define_nopython_pipeline(self.state)
            passes.passes = [
                (Lowering if kind is typed_passes.NativeLowering else kind, what) for kind, what in passes.passes
            ]
            passes._finalized = False
            passes.finalize()
            return [passes]

    return Compiler


KernelCompiler, PartCompiler = _compiler(KernelLibrary, Entry), _compiler(PartLibrary, Lower)
