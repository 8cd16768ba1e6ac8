"""Takes the pictures of the dashboard that the docs show.

    python -m tests.examples.dashboard_pictures

A backend serves some users for ten minutes, since that is how far the page looks back. Meanwhile the provider
fails three times, the last time until the pictures are taken. With `--real` it is two processes on PostgreSQL
and Redis.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.examples.backend_process import ROOT, SHELLS, Running, fresh_email, fresh_sid, logged_in, login
from tests.examples.browser import chromium, opened

PICTURES = {
    "dashboard.png": {"width": 1280, "height": 900, "color_scheme": "light"},
    "dashboard-dark.png": {"width": 1280, "height": 900, "color_scheme": "dark"},
    "dashboard-phone.png": {"width": 375, "height": 812, "color_scheme": "light"},
}
PHONE = 400
"""Pixels; on what is narrower than that, the first screen is enough to see."""
TROUBLE = ((0.32, 0.36), (0.61, 0.63), (0.93, 1.1))
"""When the provider fails, as shares of the whole time."""
CALLS_OF_A_USER = (10, 75)
"""From how many to how many; all fewer than the limit of the API."""
STUMBLING = 20.0
"""Seconds from one single failure of the provider, which a retry makes good, to the next."""


def main():
    """Read the command line, and take the pictures."""
    parser = argparse.ArgumentParser(description="Take the pictures of the dashboard.")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long to wait (default: %(default)s)")
    parser.add_argument("--app", choices=SHELLS, default="asgi", help="the shell (default: %(default)s)")
    parser.add_argument("--folder", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("--real", action="store_true", help="take the backend in its real mode")
    options = parser.parse_args()
    workers = 2 if options.real else 1
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        Running(Path(folder, "var"), options.app, workers, real=options.real, sweep_interval=75.0) as server,
        ThreadPoolExecutor() as pool,
    ):
        ended = threading.Event()
        users = pool.submit(be_users, server, ended)
        try:
            live_through(server, options.minutes * 60)
            if users.done():
                users.result()  # raises what went wrong
            take(server, options.folder)
        finally:
            ended.set()


def be_users(server, ended):
    """Fetch one recording after another, at an uneven pace, each user a limited number."""
    while not ended.is_set():
        with logged_in(server) as user:
            for _ in range(random.randint(*CALLS_OF_A_USER)):
                user.get(f"/api/recordings/{fresh_sid()}")
                if ended.wait(random.uniform(0.1, 1.2)):
                    return


def live_through(server, seconds):
    """Let the provider fail and recover, and let somebody guess passwords towards the end."""
    began = time.monotonic()
    for start, end in TROUBLE:
        while (left := began + start * seconds - time.monotonic()) > 0:
            server.fault(next=1, status=503)
            time.sleep(min(left, STUMBLING))
        server.fault(status=503)
        if end < 1:
            time.sleep(max(0.0, began + end * seconds - time.monotonic()))
            server.heal()
    for guesses in (8, 5, 3):
        with server.client() as stranger:
            email = fresh_email()
            for _ in range(guesses):
                login(stranger, email)
    time.sleep(max(0.0, began + seconds - time.monotonic()))


def take(server, folder):
    """Open the dashboard, wait for the first report, and write the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for name, options in PICTURES.items():
            with opened(browser, f"{server.url}/dashboard", device_scale_factor=1.5, **options) as page:
                page.wait_for_selector("body[data-touch=live] .breaker[data-state=open]")
                page.wait_for_timeout(500)  # for the bars to have grown
                page.screenshot(path=folder / name, full_page=options["width"] > PHONE)


if __name__ == "__main__":
    main()
