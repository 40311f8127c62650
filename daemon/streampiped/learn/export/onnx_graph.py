"""ONNX graphs node by node, for formulas of numbers and of classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from streampiped.learn.export.formula import Placing, pairs_of

OPSET: Final = 17  # of ONNX, 2022: every runtime of today has it
IR_VERSION: Final = 8  # that goes with it


class Graph:
    """With the input `features` (double, rows x columns). `onnx`: the module, which is an extra."""

    def __init__(self, onnx: Any) -> None:
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def constant(self, name: str, value: Any, kind: Any = np.float64) -> str:
        self._constants.append(self._onnx.numpy_helper.from_array(np.asarray(value, dtype=kind), name))
        return name

    def texts(self, name: str, values: Sequence[str]) -> str:
        """A constant of text."""
        encoded = [value.encode() for value in values]
        kind = self._onnx.TensorProto.STRING
        self._constants.append(self._onnx.helper.make_tensor(name, kind, [len(values)], encoded))
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self._nodes.append(self._onnx.helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def clipped(self, value: str, low: float, high: float, output: str) -> str:
        lowest = self.node("Max", [value, self.constant(f"{output}_low", low)], f"{output}_least")
        return self.node("Min", [lowest, self.constant(f"{output}_high", high)], output)

    def known_or(self, value: str, other: Any, output: str) -> str:
        """What is missing or infinite is the only thing that is not itself less itself."""
        missing = self.node("IsNaN", [self.node("Sub", [value, value], f"{output}_nothing")], f"{output}_missing")
        return self.node("Where", [missing, self.constant(f"{output}_other", other), value], output)

    def weighted(self, formula: Placing, coefficients: Any, intercepts: Any) -> str:
        """`raw` of a formula."""
        known = self.known_or("features", 0.0, "known")
        moved = self.node("Sub", [known, self.constant("shift", formula.shift)], "moved")
        placed = self.node("Mul", [moved, self.constant("factor", formula.factor)], "placed")
        if formula.bound:
            placed = self.clipped(placed, -formula.bound, formula.bound, "bounded")
        if formula.basis == "squares":
            first, second = pairs_of(formula)
            sides = [
                self.node("Gather", [placed, self.constant(f"{name}_columns", places, np.int64)], name, axis=1)
                for name, places in (("one", first), ("other", second))
            ]
            placed = self.node("Concat", [placed, self.node("Mul", sides, "products")], "columns", axis=1)
        weighted = self.node("MatMul", [placed, self.constant("coefficients", coefficients)], "weighted")
        return self.node("Add", [weighted, self.constant("intercept", intercepts)], "raw")

    def model(self, columns: int, outputs: Sequence[tuple[str, Any, Sequence[Any]]], told: dict[str, str]) -> Any:
        """The whole, checked. `outputs`: name, kind of number and shape of each; `told`: its properties."""
        helper, double = self._onnx.helper, self._onnx.TensorProto.DOUBLE
        inputs = [helper.make_tensor_value_info("features", double, ["rows", columns])]
        given = [helper.make_tensor_value_info(name, kind, list(shape)) for name, kind, shape in outputs]
        graph = helper.make_graph(self._nodes, "streampipe", inputs, given, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
        helper.set_model_props(model, told)
        self._onnx.checker.check_model(model)
        return model
