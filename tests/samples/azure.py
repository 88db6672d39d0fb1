"""Azure LLM inference trace: both time formats, and a column of another tool."""

from __future__ import annotations

from samples import Plant


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    rows = [
        "TIMESTAMP,ContextTokens,GeneratedTokens,NumImages,Note",
        f"2023-11-16 18:17:03.9799600,4808,10,0,{text('note')}",
        f"2023-11-16 18:17:04.0319600,3180,8,1,{text('note')}",
        f'2024-05-10 00:00:00.009930+00:00,2162,0,2,"{text("quoted")}, {text("note")}"',
        f"2024-05-10 00:00:10+00:00,40,5,0,{text('note')}",
    ]
    return {"trace.csv": "\r\n".join(rows).encode()}
