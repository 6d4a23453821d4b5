"""A page of Flask with a template."""

from __future__ import annotations

from flask import Flask, render_template_string

PAGE = """<!doctype html><title>{{ title }}</title><h1>{{ title }}</h1>
<ul>{% for item in items %}<li class="{{ loop.cycle('odd', 'even') }}">{{ item.name }}: {{ '%.2f'|format(item.price) }}
{% endfor %}</ul>"""
ITEMS = [{"name": f"<item {number}>", "price": number * 1.5} for number in range(20)]

app = Flask(__name__)


@app.get("/page")
def page() -> str:
    return render_template_string(PAGE, title="Items", items=ITEMS)


@app.get("/hello")
def hello() -> str:
    return "Hello, World!"
