"""Execute the notebooks anew, in place: `make notebooks`, after `make demo`.

The stored outputs are the same each time: what differs between two executions, such as times, is left out.

Usage: python notebooks/execute.py [NOTEBOOK…]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
_SECONDS = 120  # for a cell


def execute(path: Path) -> nbformat.NotebookNode:
    """Return a notebook with new outputs. It runs in its own folder, as in Jupyter, in a process of its own.

    Raises:
        CellExecutionError: A cell raised; the message has the cell and the traceback.
    """
    notebook = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    with TemporaryDirectory() as sockets:  # instead of open ports
        kernel = AsyncKernelManager(kernel_name="python3", transport="ipc", ip=f"{sockets}/kernel")
        client = NotebookClient(notebook, km=kernel, timeout=_SECONDS, record_timing=False, resources=folder)
        no_warning = {"PYTHONWARNINGS": "ignore:IProgress not found"}  # tqdm's, for widgets of Jupyter
        client.execute(cleanup_kc=True, env=os.environ | no_warning)
    names = {"display_name": "Python 3", "language": "python", "name": "python3"}
    notebook.metadata = nbformat.from_dict({"kernelspec": names, "language_info": {"name": "python"}})
    return notebook


def main(paths: list[Path]) -> None:
    """Execute the notebooks, and write each one when all of its cells are done."""
    for path in paths:
        notebook = execute(path)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main([Path(name).resolve() for name in sys.argv[1:]] or sorted(FOLDER.glob("*.ipynb")))
