"""Helpers for writing ONNX graphs, shared by the scripts that build embedders."""
import numpy as np
from onnx import helper, numpy_helper


def writer():
    """(nodes, initializers, constant, node); `constant` and `node` append to the lists and return a value's name."""
    nodes, initializers = [], []

    def constant(name, value, dtype=np.float32):
        initializers.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def node(kind, inputs, name, **attributes):
        nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    return nodes, initializers, constant, node
