"""What a module's own forward calls, one level deep."""

from __future__ import annotations

import inspect

from torch import fx, nn

UNTRACEABLE = (
    *(fx.proxy.TraceError, TypeError, ValueError, RuntimeError),
    *(AttributeError, LookupError),
)
"""How a forward fails on stand-ins for tensors."""


class _OneLevel(fx.Tracer):
    """Every module below the traced one counts as one step."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return True


def traced(module: nn.Module) -> fx.Graph | None:
    """The steps of the module's forward; None where they depend on values.

    No layer runs, and no hook.
    """
    given = {
        name: parameter.default
        for name, parameter in inspect.signature(type(module).forward).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    try:
        return _OneLevel().trace(module, concrete_args=given or None)
    except UNTRACEABLE:
        return None
