"""The fixture that hands a browser to tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from selenium import webdriver

from .chromium import OPTIONS, ChromiumBackend
from .fixtures import shared


@pytest.fixture(scope="session")
def chromium_server(pytestconfig: pytest.Config) -> ChromiumBackend:
    """The ChromeDriver that the run shares."""
    backend = shared(pytestconfig, "chromium")
    assert isinstance(backend, ChromiumBackend)
    return backend


@pytest.fixture
def browser(chromium_server: ChromiumBackend) -> Iterator[webdriver.Remote]:
    """Open a window of its own; it closes with the test. Its calls block."""
    options = webdriver.ChromeOptions()
    for option in (*OPTIONS, "--window-size=1200,900"):
        options.add_argument(option)
    window = webdriver.Remote(chromium_server.endpoint, options=options)
    yield window
    window.quit()
