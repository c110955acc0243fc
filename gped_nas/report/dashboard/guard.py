"""Who may talk to the dashboard: only its own pages.

optuna-dashboard has no log-in, and some of its addresses delete or rename studies. A page on
another site could send requests to them from the user's own browser, so every request must name
this server as its host, and whatever names an origin must name this server too. Files attached to a
study are handed out as files: none of them can run as a page.
"""

from collections.abc import Callable, Iterable
from typing import Any

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

_READ_ONLY_VERBS = frozenset({"GET", "HEAD"})
_NO_FRAMES = ("X-Frame-Options", "DENY")
_NO_PAGE = [
    ("Content-Security-Policy", "sandbox; default-src 'none'"),
    ("X-Content-Type-Options", "nosniff"),
]
_REPLACED = frozenset({"x-frame-options", "access-control-allow-origin"})


def guard_requests(app: Application, port: int) -> Application:
    """``app``, which answers only requests that name this server as their host and origin.

    Args:
        app: what is guarded.
        port: of this machine's loopback.
    """
    suffix = "" if port == 80 else f":{port}"
    hosts = frozenset(f"{name}{suffix}" for name in ("127.0.0.1", "localhost", "[::1]"))

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if not _is_own(environ, hosts):
            content_type = ("Content-Type", "text/plain; charset=utf-8")
            start_response("403 Forbidden", [content_type, _NO_FRAMES])
            return [b"Refused: this request does not come from the dashboard itself.\n"]

        added = [_NO_FRAMES]
        if environ.get("PATH_INFO", "").startswith("/artifacts/"):
            added += _NO_PAGE

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            unchanged = [pair for pair in headers if pair[0].lower() not in _REPLACED]
            return start_response(status, [*unchanged, *added], *rest)

        return app(environ, start)

    return answer


def _is_own(environ: Environ, hosts: frozenset[str]) -> bool:
    """Whether a request names this server as its host and, where it names one, as its origin."""
    host = environ.get("HTTP_HOST", "")
    origin = f"http://{host}"
    if host not in hosts or environ.get("HTTP_ORIGIN", origin) != origin:
        return False
    if environ["REQUEST_METHOD"] in _READ_ONLY_VERBS:
        return True

    # what writes must come from a page of this server, as far as the browser says
    is_same_site = environ.get("HTTP_SEC_FETCH_SITE", "same-origin") in ("same-origin", "none")
    referer = str(environ.get("HTTP_REFERER", f"{origin}/"))
    return is_same_site and referer.startswith(f"{origin}/")
