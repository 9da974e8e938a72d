"""Count the floating-point operations that really ran."""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class FlopCounter(TorchDispatchMode):
    """Sums torch's own FLOP formulas over every operation inside the ``with`` block.

    Multiply and add count as two. Torch's FlopCounterMode follows modules with hooks that raise
    when
    ``autograd.grad`` is asked for a leaf input; this one only watches the operations.

    Attributes:
        total: FLOPs so far.
        by_operation: the same by operation name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.by_operation: Counter[str] = Counter()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run the operation and add its FLOPs, if torch knows a formula for it."""
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            flops = formula(*args, **(kwargs or {}), out_val=out)
            self.total += flops
            self.by_operation[str(func._overloadpacket)] += flops
        return out
