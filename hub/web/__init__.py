"""Operational 360: server-rendered pages over the hub's views, live by server-sent events."""
