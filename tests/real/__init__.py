"""The whole way over the real engines: Mosquitto, Kafka and PostgreSQL, and a kill test of all that runs. See `__main__`."""
