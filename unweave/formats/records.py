"""From a record, such as a line of JSON or a row of a table, to a document: one text, or the turns of a chat."""

import json
from collections.abc import Mapping
from typing import Any

from unweave.errors import UserError, nearest
from unweave.types import Document

_TEXT, _CHAT = "text", "messages"


def field_name(field: str, *, chat: bool) -> str:
    """The field that is read: chats are hardly ever under "text", so there that means that none was set."""
    return _CHAT if chat and field == _TEXT else field


def check_column(field: str, columns: list[str], where: str) -> None:
    """Raise ``UserError`` for a column that a table does not have."""
    if field not in columns:
        raise UserError(
            f"{where} has no column {field!r}{nearest(field, columns)} (it has {', '.join(columns) or 'none'}); "
            "set text.field"
        )


def document_of(name: str, record: Any, field: str, where: str, *, chat: bool) -> Document:
    """The document under a field of a record; ``where`` names the record in errors."""
    fields = record if isinstance(record, Mapping) else {}
    value = fields.get(field)
    if chat and _is_chat(value):
        return Document(name, json.dumps(value, ensure_ascii=False), messages=value)
    if isinstance(value, str) and not chat:
        return Document(name, value)
    instead = f" but {str(value)[:40]!r}" if field in fields else nearest(field, map(str, fields))
    if chat:
        raise UserError(
            f"{where} has no chat under {field!r}{instead}; a chat is a list of turns, each with a role and a content, "
            "both of them text; set text.field, or text.chat=false"
        )
    chat_hint = ", or text.chat=true for the turns of a chat" if _is_chat(value) else ""
    raise UserError(f"{where} has no text under {field!r}{instead}; set text.field{chat_hint}")


def _is_chat(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(_is_turn(turn) for turn in value)


def _is_turn(turn: Any) -> bool:
    return isinstance(turn, Mapping) and all(isinstance(turn.get(key), str) for key in ("role", "content"))
