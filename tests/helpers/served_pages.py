"""Pages that a command serves, and the browser that opens them."""

import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMIUM_OPTIONS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
# Milliseconds that an answer may take on a machine with other work to do.
PATIENCE = 60_000


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@contextmanager
def served(argv: list[str], port: int, **options: Any) -> Iterator[str]:
    """The address of a page that a command serves."""
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, **options)
    try:
        address = f"http://127.0.0.1:{port}/"
        assert address in process.stdout.readline()
        yield address
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def chromium(profile: Path) -> Iterator[BrowserContext]:
    """A browser with a profile of its own; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("there is no chromium here")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, args=CHROMIUM_OPTIONS
        )
        context.set_default_timeout(PATIENCE)
        expect.set_options(timeout=PATIENCE)
        yield context
        context.close()


@contextmanager
def fresh_page(browser: BrowserContext, address: str) -> Iterator[Page]:
    """A page, freshly opened; a script that fails fails the test."""
    page = browser.new_page()
    failures: list[str] = []
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(address)
    yield page
    page.close()
    assert failures == []
