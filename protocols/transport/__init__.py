"""Lines to a broker: the port, MQTT over TCP or TLS, and an in-process broker for tests.

Import the module that you need (`port`, `mqtt`, `memory`): this package imports none, so that a core that only knows the port does not
load a network library.
"""
