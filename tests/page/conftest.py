"""A page without a browser."""

from contextlib import ExitStack

import pytest


@pytest.fixture(scope="module")
def browser():
    """A browser for the tests of a module."""
    from browsing import open_browser

    with open_browser() as opened:
        yield opened


@pytest.fixture
def page(tmp_path):
    """page(runs, start=None, **limits): a page that works on no job; start=Here does jobs in this process."""
    from paging import BASE, TOKEN, Page, TestClient

    from voxlate.page.app import create_app
    from voxlate.page.page_settings import Settings

    with ExitStack() as open_pages:

        def make(
            runs=None,
            start=None,
            folder="data",
            names=(),
            **limits,
        ):
            settings = Settings(
                runs or {},
                tmp_path / folder,
                TOKEN,
                device="cpu",
                names=names,
                **limits,
            )
            app = create_app(settings, start)
            options = {"base_url": BASE, "follow_redirects": False}
            client = open_pages.enter_context(
                TestClient(app, headers={"origin": BASE}, raise_server_exceptions=False, **options)
            )
            client.get("/enter", params={"token": TOKEN})
            return Page(client, app.state.site.jobs, app)

        yield make


@pytest.fixture
def at_work(page):
    """at_work(folder, **options): a page with one model, "run", that does its jobs in this process."""
    from paging import Here

    return lambda folder, **options: page({"run": str(folder)}, start=Here, **options)
