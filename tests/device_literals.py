"""What a plug-in may not say: the name of a device. Only the trial chooses one."""

from __future__ import annotations

import ast
import inspect
import re

DEVICE = re.compile(r"(cuda|cpu|mps|xpu)(:\d+)?")


def device_literals(cls: type) -> list[str]:
    """Device names and calls such as ``.cuda()`` in the file of a class, with their lines."""
    with open(inspect.getfile(cls), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("cuda", "cpu", "mps", "xpu"):
            found.append(f"line {node.lineno}: .{node.attr}")
        elif isinstance(node, ast.Constant) and DEVICE.fullmatch(str(node.value)):
            found.append(f"line {node.lineno}: {node.value!r}")
    return found
