"""The Django project in a pool of two workers: sends a few requests and prints the answers.

python examples/django_app/run.py
"""

from __future__ import annotations

from pathlib import Path

import anyio

from subpool import Pool

FORM = (
    b'--edge\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\nan upload\r\n--edge--\r\n"
)


def environ(path: str, query: str = "", form: bytes = b"") -> dict[str, object]:
    """A WSGI environ (PEP 3333) of a GET, or of a POST if there is a form."""
    return {
        "REQUEST_METHOD": "POST" if form else "GET",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "CONTENT_TYPE": "multipart/form-data; boundary=edge" if form else "",
        "CONTENT_LENGTH": str(len(form)),
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "wsgi.url_scheme": "http",
        "wsgi.input": form,
    }


async def main() -> None:
    """Start the pool, ask, print."""
    here = Path(__file__).parent
    requests = [
        environ("/json/Ada", "times=3"),
        environ("/upload", form=FORM),
        environ("/page"),
        environ("/static/django_site/style.css"),
        environ("/admin/login/"),
        environ("/stream"),
        environ("/missing"),
        environ("/error"),
    ]
    async with Pool("django_site.wsgi:application", workers=2, interface="wsgi", pythonpath=[here]) as pool:
        for request in requests:
            status, _, body = await pool.run_wsgi(request)
            print(request["PATH_INFO"], status, " ".join(body.decode().split())[:100])
        print("isolation:", pool.isolation)


if __name__ == "__main__":
    anyio.run(main)
