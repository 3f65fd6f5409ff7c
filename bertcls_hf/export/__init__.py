"""Exports a trained classifier to ONNX.

Start with `onnx_export.py`, which lists the steps of an export. `onnx_graph.py` writes and runs the graphs, and
`onnx_report.py` measures them.
"""
