"""Imports a page, and serves it on this machine until it is interrupted."""

import importlib
import os
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bertcls_hf.errors import ArgumentsError, one_line


if TYPE_CHECKING:
    import gradio as gr

# The largest file that can be uploaded.
LARGEST_UPLOAD = "200mb"


def import_page(module: str) -> ModuleType:
    """Imports a module that builds a page with gradio.

    Raises:
        ArgumentsError: a package is not installed.
    """
    # gradio reads this variable when it is imported.
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ArgumentsError(
            f"the page needs a package that is missing ({one_line(error)}): pip install -c constraints.txt -r "
            "requirements-deploy.txt"
        ) from error


def serve(page: "gr.Blocks", name: str, host: str | None, port: int | None, **looks: Any) -> None:
    """Serves a page, prints its address, and returns when it is interrupted.

    Args:
        page: the page.
        name: what it is called in the line with the address.
        host: the address to listen on; None for GRADIO_SERVER_NAME, or this machine alone.
        port: the port; None for GRADIO_SERVER_PORT, or the first free one.
        **looks: `css` and `head` of the page.

    Raises:
        ArgumentsError: the port is in use.
    """
    try:
        page.launch(
            server_name=host,
            server_port=port,
            share=False,
            ssr_mode=False,
            run_history=False,
            enable_monitoring=False,
            footer_links=[],
            max_file_size=LARGEST_UPLOAD,
            quiet=True,
            prevent_thread_lock=True,
            **looks,
        )
    except OSError as error:
        raise ArgumentsError(f"--port {port}: {one_line(error)}") from error
    sys.stdout.write(f"The {name} is at {page.local_url} (Ctrl-C ends it)\n")
    sys.stdout.flush()
    page.block_thread()
