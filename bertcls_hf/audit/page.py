"""The page of an audit: one file of HTML without scripts, and without anything from elsewhere."""

from collections.abc import Iterable
from html import escape

from bertcls_hf.audit.sections import MOST_SHOWN, Section
from bertcls_hf.hub.card.public_text import plain_text


STYLE = """
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 75rem; padding: 1rem; }
h2 { margin-top: 2.5rem; }
.note { max-width: 50rem; opacity: 0.85; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; width: 100%; }
caption { font-weight: 600; padding: 0.4rem 0; text-align: left; }
th, td { border-bottom: 1px solid #8886; padding: 0.4rem 0.6rem; text-align: left; vertical-align: top; }
td { overflow-wrap: anywhere; min-width: 3rem; }
td.long { min-width: 16rem; }
"""
# A cell of more characters is given room.
LONG_CELL = 40


def audit_page(title: str, sections: Iterable[Section]) -> str:
    """Returns the page. All texts are escaped, and shown on one line.

    Args:
        title: what was audited.
        sections: its findings.
    """
    found = list(sections)
    links = "".join(
        f'<li><a href="#{section.name}">{_shown(section.title)}</a>: {_shown(section.summary)}</li>\n'
        for section in found
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
        f"<title>{_shown(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{_shown(title)}</h1>\n"
        f'<ul aria-label="Summary">\n{links}</ul>\n{"".join(map(_section, found))}</main>\n</body>\n</html>\n'
    )


def _section(section: Section) -> str:
    heading = f'<section aria-labelledby="{section.name}">\n<h2 id="{section.name}">{_shown(section.title)}</h2>\n'
    table = _table(section) if section.rows else ""
    return (
        f'{heading}<p>{_shown(section.summary)}</p>\n<p class="note">{_shown(section.note)}</p>\n{table}</section>\n'
    )


def _table(section: Section) -> str:
    caption = f"The first {MOST_SHOWN}" if len(section.rows) == MOST_SHOWN else "All"
    header = "".join(f'<th scope="col">{_shown(title)}</th>' for title in section.header)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>\n" for row in section.rows)
    return (
        f'<div class="table" role="region" tabindex="0" aria-label="{_shown(section.title)}">\n<table>\n'
        f"<caption>{caption}</caption>\n<thead><tr>{header}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>\n</div>\n"
    )


def _cell(text: str) -> str:
    is_long = ' class="long"' if len(text) > LONG_CELL else ""
    return f"<td{is_long}><bdi>{_shown(text)}</bdi></td>"


def _shown(text: str) -> str:
    return escape(plain_text(text))
