"""The part of the OpenAPI document about what is carried for others."""

from __future__ import annotations

from typing import Any, Final

from edge_agent.operation import Operation, Param
from protocols.sync.parcel import MEDIA_TYPE, PARCEL_BYTES, PARCEL_MESSAGES, WAIT_MOST_S

_PEER: Final = {
    "node": "phone-17",
    "org": "acme",
    "region": "EMEA",
    "site": "W8-Madrid",
    "fingerprint": "SHA256:Zm9yIHBlb3BsZSB0byBjb21w",
    "addedMs": 1_779_372_312_000,
}
_FIELDS: Final = ("longshore", "node", "org", "region", "site", "publicKey", "brokerPassword", "signature")
CARD: Final[dict[str, Any]] = {
    "type": "object",
    "description": "What `longshore-edge init` wrote to node.card.json, whole.",
    "required": list(_FIELDS),
    "properties": {name: {"type": "string"} for name in _FIELDS},
}
_SYNC_TEXT: Final = (
    f"The body is a list of signed envelopes (see protocols/README.md), each behind its length in four bytes, the highest first: at most "
    f"{PARCEL_MESSAGES} envelopes and {PARCEL_BYTES} bytes; it may be empty. Frames of peers are kept in custody and folded here; hellos, "
    "heartbeats and records are passed on to the hub. The answer comes once all of it is on disk: what the hub said to `node` since it "
    "last asked, in the same form. With `Accept: application/json` it says what became of each message instead (for a stick). "
    "403: not a peer of this edge. 507: some or all was not taken for want of room; what was taken is known when it comes again."
)
_FRAMES_TEXT: Final = (
    "Own facts that are not settled, as signed frames cut anew, and what is in custody; a page at a time, in the form of `sync`. "
    "The header `longshore-cursor` says where the next page begins; without it, this was the last. Nothing is freed by it."
)

OPERATIONS: Final = (
    Operation(
        "post",
        "/v1/sync",
        "sync",
        "Hand over signed frames, and fetch what the hub said",
        _SYNC_TEXT,
        {200: ("Envelopes for the caller, perhaps none.", None)},
        (
            Param("node", "Who asks: its mail is the answer. Left out, nothing is fetched.", {"type": "string"}, "phone-17"),
            Param(
                "wait",
                "Seconds to wait for mail when there is none.",
                {"type": "integer", "minimum": 0, "maximum": WAIT_MOST_S, "default": 0},
            ),
        ),
        (401, 403, 413, 415, 422, 503, 507),
        body=MEDIA_TYPE,
        media=MEDIA_TYPE,
    ),
    Operation(
        "get",
        "/v1/queue/frames",
        "takeFrames",
        "All that another may carry for this edge",
        _FRAMES_TEXT,
        {200: ("A page.", None)},
        (Param("cursor", "Where the page before ended.", {"type": "string"}),),
        (401, 403, 422, 503),
        media=MEDIA_TYPE,
    ),
    Operation(
        "get",
        "/v1/peers",
        "listPeers",
        "Whose frames this edge carries",
        "By name.",
        {200: ("All of them.", {"peers": [_PEER]})},
        problems=(401, 403, 422, 503),
    ),
    Operation(
        "post",
        "/v1/peers",
        "addPeer",
        "Carry the frames of a node",
        "Of the same organisation, by its card. The same card again is harmless.",
        {201: ("On disk.", _PEER)},
        problems=(401, 403, 413, 415, 422, 503, 507),
        body="NodeCard",
    ),
    Operation(
        "delete",
        "/v1/peers/{node}",
        "removePeer",
        "Take nothing more of a node",
        "What is in custody stays until it is settled.",
        {200: ("Done.", {"removed": "phone-17"})},
        (Param("node", "Its name.", {"type": "string"}, "phone-17", "path"),),
        (401, 403, 404, 503),
    ),
)
