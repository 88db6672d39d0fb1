"""BurstGPT of release 2.0 and of the one before it: a conversation, a failure, calls of the API."""

from __future__ import annotations

from samples import Plant


def files(text: Plant, name: Plant) -> dict[str, bytes]:
    one, two, log, api = text("Session ID 1"), text("Session ID 2"), name("Log Type"), name("API")
    gpt4, chat = name("GPT-4"), name("ChatGPT")
    rows = [
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type,Note",
        f"19440110.0,{one},43,{gpt4},906,446,1352,{log},{text('note')}",
        f"19440120.0,,3,{chat},36,29,65,{api},",
        f'19440161.0,{two},2,{chat},36,0,36,{log},"{text("quoted")}, {text("note")}"',
        f"19440200.0,{one},8,{gpt4},1779,123,1902,{log},",
        f"19440260.0,{one},5,{gpt4},100,20,120,{log},",
    ]
    old = [
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        f"5,{chat},472,18,490,{log}",
        f"45,{chat},1087,230,1317,{log}",
    ]
    return {"BurstGPT_1.csv": _lines(old), "BurstGPT_3.csv": _lines(rows)}


def _lines(rows: list[str]) -> bytes:
    return "".join(f"{row}\n" for row in rows).encode()
