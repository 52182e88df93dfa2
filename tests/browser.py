"""A real browser without a screen: Chromium, installed from the system's packages where that is possible."""

import functools
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PACKAGES: Final = ("chromium", "chromium-driver")
ARGUMENTS: Final = (
    "--headless=new",
    "--no-sandbox",  # which root cannot have
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


class Browser:
    """One window, with its size, colour scheme and console."""

    def __init__(self, program: str, driver: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for argument in ARGUMENTS:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        self._chrome = webdriver.Chrome(options=options, service=Service(driver))

    def close(self) -> None:
        self._chrome.quit()

    def open(self, url: str, *, width: int = 1200, height: int = 1000, dark: bool = False, still: bool = False) -> None:
        """Load a page in a window of this size; `dark` and `still` are what the user prefers."""
        self.resize(width, height)
        features = {
            "color-scheme": "dark" if dark else "light",
            "reduced-motion": "reduce" if still else "no-preference",
        }
        media = [{"name": f"prefers-{name}", "value": value} for name, value in features.items()]
        self._command("Emulation.setEmulatedMedia", features=media)
        self.console()  # what was before is of another page
        self._chrome.get(url)

    def resize(self, width: int, height: int, scale: float = 1) -> None:
        self._command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )

    def _command(self, name: str, **parameters: Any) -> Any:
        return self._chrome.execute_cdp_cmd(name, parameters)

    def run(self, script: str, *arguments: Any) -> Any:
        """The value that a script returns."""
        return self._chrome.execute_script(script, *arguments)

    def text(self, name: str) -> str:
        """What the element with this id shows."""
        return str(self.run("return document.getElementById(arguments[0]).innerText", name))

    def shown(self, name: str) -> bool:
        return bool(self.run("return document.getElementById(arguments[0]).checkVisibility()", name))

    def title(self) -> str:
        return str(self._chrome.title)

    def console(self) -> list[str]:
        """Warnings and errors since the last call."""
        log: list[dict[str, Any]] = self._chrome.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in log]

    def picture(self, file: Path) -> None:
        """Save what is in the window as PNG."""
        assert self._chrome.save_screenshot(str(file))


@functools.cache
def programs() -> tuple[str, str] | str:
    """Chromium and its driver, or why they cannot be had."""
    if found := _found():
        return found
    if not shutil.which("apt-get") or os.geteuid() != 0:
        return "neither Chromium with its driver is installed, nor can it be: that takes root and apt"
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "-y", "--no-install-recommends", *PACKAGES]):
        done = subprocess.run(
            ["apt-get", "-q", *command], env=environment, capture_output=True, text=True, timeout=280, check=False
        )
        if done.returncode:
            return f"apt-get {command[0]} failed: {done.stderr.strip()[-300:]}"
    return _found() or "Chromium was installed and is not there"


def _found() -> tuple[str, str] | None:
    program, driver = next(filter(None, map(shutil.which, NAMES)), None), shutil.which("chromedriver")
    return (program, driver) if program and driver else None


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of a module."""
    found = programs()
    if isinstance(found, str):
        pytest.skip(found)
    browser = Browser(*found)
    yield browser
    browser.close()
